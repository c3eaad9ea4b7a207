"""YAML from strangers: plain data or one clear complaint, never code and never a bomb.

PyYAML's safe loader makes no objects. What it lets through is refused here: a key given twice,
aliases that unfold to billions of values or into themselves, nesting that no reader gets through,
and the numbers and dates that Python itself refuses.
"""

from __future__ import annotations

from typing import Any

import yaml

MOST_VALUES = 100_000  # with every alias written out; the largest file of this project has 3,000
DEEPEST = 40


class YamlError(ValueError):
    """The text is no YAML that can be used; the message says where and why."""


def is_yaml(name: str) -> bool:
    """Whether a name is that of a YAML file, not of something that comes with the package."""
    return name.endswith((".yaml", ".yml"))


def parse(text: str) -> Any:
    """The data in `text`. Raises YamlError."""
    try:
        data = yaml.load(text, Loader=StrictLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise YamlError(f"not valid YAML{where}: {problem}") from None
    except RecursionError:
        raise YamlError(f"nested more than {DEEPEST} deep; write it flatter") from None
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        # a date or a number that is none, or a tag on the wrong kind of value
        raise YamlError(f"a value cannot be read: {error}") from None
    _Weight().of(data, 0)
    return data


class StrictLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which by itself keeps the last of two equal keys and says nothing."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """The mapping as it is written, before `<<` brings in keys that may be given again."""
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name = key.value
            if isinstance(name, str) and name in lines:
                problem = f"the key {name!r} is there already, at line {lines[name]}; rename one"
                raise yaml.composer.ComposerError(None, None, problem, key.start_mark)
            if isinstance(name, str):  # the keys of this project are; another is refused later
                lines[name] = key.start_mark.line + 1
        return node


class _Weight:
    """Counts the values of a tree, those under an alias each time that it stands there."""

    def __init__(self) -> None:
        self.known: dict[int, tuple[int, int]] = {}  # by identity: values, and how deep
        self.open: set[int] = set()

    def of(self, node: Any, above: int) -> tuple[int, int]:
        """Values in `node`, which is so far from the root, and its own depth."""
        if not isinstance(node, dict | list | set | tuple):
            return 1, 0
        place = id(node)
        if place in self.open:
            raise YamlError("an alias stands for what it is part of; write that out")
        if place not in self.known:
            if above > DEEPEST:
                raise YamlError(f"nested more than {DEEPEST} deep; write it flatter")
            self.open.add(place)
            inner = [*node.keys(), *node.values()] if isinstance(node, dict) else list(node)
            found = [self.of(value, above + 1) for value in inner]
            self.open.discard(place)
            values = 1 + sum(count for count, _ in found)
            self.known[place] = values, 1 + max((depth for _, depth in found), default=0)
        values, depth = self.known[place]
        if values > MOST_VALUES:
            raise YamlError(
                f"more than {MOST_VALUES:,} values, with every alias written out; write less"
            )
        if above + depth > DEEPEST + 1:
            raise YamlError(f"nested more than {DEEPEST} deep; write it flatter")
        return values, depth
