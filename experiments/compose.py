"""From YAML and dotted overrides to a validated recipe.

A recipe file names the differences from the defaults; overrides such as `model.backbone.width=0.5`
come on top, in the order given. Choosing another `kind` of backbone or data source replaces the
whole subtree, since the fields of the one mean nothing to the other. Pydantic checks the types over
the same plain dataclasses.
"""

from __future__ import annotations

import math
import reprlib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from experiments.errors import UserError, did_you_mean
from experiments.recipe import Recipe, flatten, plain, to_tree
from spinenet import genotype as genotypes
from spinenet.derivations import derive
from spinenet.genotype import Genotype, GenotypeError
from spinenet.yaml_text import YamlError, is_yaml, parse

RECIPES = Path(__file__).parent / "recipes"
GENOTYPE = ".genotype"  # the end of the key of what is always put whole
LARGEST = 2**63 - 1  # of a number that seeds and counts are kept in
# Beyond these a network takes hours to be counted, let alone built; nobody means them.
MOST = dict.fromkeys(("block_repeats", "neck_repeats", "convs", "scales"), 100)
MOST |= dict.fromkeys(("filters", "endpoint_filters", "fc"), 2**16)
MOST |= {"width": 1000, "side": 2**14, "threads": 2**10}

_hints: Callable[[Any], dict[str, Any]] = cache(get_type_hints)

Tree = dict[str, Any]


@dataclass(frozen=True)
class Changes:
    """Overrides as a file or flag gives them; `origin` names it, files are found beside it."""

    values: Mapping[str, Any]
    origin: str
    folder: Path | None = None


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file. Raises UserError that names the file and the line."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        data = parse(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text: byte {error.start}; save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; allow it to be read") from None
    except YamlError as error:
        raise UserError(f"{path}: {error}") from None
    if data is None:
        raise UserError(f"{path}: the file says nothing; write into it, such as base: NAME")
    if not isinstance(data, Mapping):
        raise UserError(
            f"{path}: expected a mapping of keys to values, found {type(data).__name__}"
        )
    return {str(key): value for key, value in data.items()}


def default_tree() -> Tree:
    """The defaults as a tree to put overrides on."""
    return to_tree(Recipe())


def override(
    tree: Tree, changes: Mapping[str, Any], *, origin: str, folder: Path | None = None
) -> Tree:
    """A copy of `tree` with dotted or nested `changes` put on it, in order.

    `origin` names the file or flag in errors; genotype files are found relative to `folder`. Raises
    UserError for a key that does not exist, with the nearest that does.
    """
    for given, nested in changes.items():
        for key, value in _steps(given, nested):
            _check_key(key.split("."), value, tree, origin=origin)
            if key.endswith(GENOTYPE):
                value = _genotype(value, origin, folder).to_mapping()
            elif isinstance(value, Mapping):
                value = _chosen_anew(tree, key, value)
            tree = _put(tree, key, value)
    return tree


def _steps(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """A change, nested or not, as dotted ones: of a mapping its `kind` first, since another kind
    has other keys; a genotype stays whole.
    """
    parent, _, last = key.rpartition(".")
    if last == "kind" and parent:
        yield parent, {"kind": value}
    elif not isinstance(value, Mapping) or key.endswith(GENOTYPE):
        yield key, value
    else:
        if "kind" in value:
            yield key, {"kind": value["kind"]}
        for name, inner in value.items():
            if name != "kind":
                yield from _steps(f"{key}.{name}", inner)


def _chosen_anew(tree: Tree, key: str, choice: Mapping[str, Any]) -> Any:
    """What stands at `key` once a kind is chosen: all as it was, or the new kind's defaults."""
    current = _at(tree, key.split("."))
    if isinstance(current, Mapping) and current.get("kind") == choice["kind"]:
        return current
    return _defaults_of(tree, key, choice)


def apply(tree: Tree, chain: Sequence[Changes]) -> Tree:
    """`tree` with every link of the chain put on it, in order."""
    for link in chain:
        tree = override(tree, link.values, origin=link.origin, folder=link.folder)
    return tree


def multiply(tree: Tree, factors: Mapping[str, float], *, origin: str) -> Tree:
    """`tree` with the numbers at dotted keys multiplied. Whole numbers stay whole.

    Raises UserError for a key without a number, and for a product that is no whole number where
    one is needed.
    """
    for key, factor in factors.items():
        _check_key(key.split("."), factor, tree, origin=f"{origin}.times")
        value = _at(tree, key.split("."))
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{origin}.times: {key}: {value!r} is not a number to multiply")
        product = value * factor
        if isinstance(value, int):
            if not float(product).is_integer():
                raise UserError(
                    f"{origin}.times: {key}: {value} times {factor} is {product}, and it must be "
                    "a whole number; choose another factor"
                )
            product = int(product)
        tree = _put(tree, key, product)
    return tree


def after_last_choice(chain: Sequence[Changes]) -> tuple[Changes, ...]:
    """The chain without what was said of a subtree before its `kind` last changed.

    On a tree that has been through the whole chain it restates values and switches nothing.
    """
    kinds: dict[str, Any] = {}
    since: dict[str, int] = {}
    stepwise = [
        replace(link, values=dict(step for said in link.values.items() for step in _steps(*said)))
        for link in chain
    ]
    for place, link in enumerate(stepwise):
        for key, value in link.values.items():
            if isinstance(value, Mapping) and "kind" in value and kinds.get(key) != value["kind"]:
                kinds[key], since[key] = value["kind"], place

    def stands(key: str, place: int) -> bool:
        inside = (first for subtree, first in since.items() if f"{key}.".startswith(f"{subtree}."))
        return all(place >= first for first in inside)

    return tuple(
        replace(link, values={k: v for k, v in link.values.items() if stands(k, place)})
        for place, link in enumerate(stepwise)
    )


def from_tree(tree: Tree, *, origin: str) -> Recipe:
    """A recipe from its tree. Raises UserError that names key, value and what was expected."""
    _refuse_extremes(tree, origin)
    genotype = _at(tree, ["model", "backbone", "genotype"])
    if isinstance(genotype, Mapping):
        read = _genotype(genotype, origin)
        tree = _put(tree, "model.backbone.genotype", read)
    try:
        return _recipe_type().validate_python(tree)
    except ValidationError as error:
        raise UserError(f"{origin}: {_first_problem(error, tree)}") from None


def _refuse_extremes(value: Any, origin: str, key: str = "") -> None:
    """Raise UserError for a number that no field can have, wherever it stands."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _refuse_extremes(inner, origin, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_extremes(inner, origin, key)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{origin}: {key}: {value} must be a finite number")
    elif isinstance(value, int | float):
        most = MOST.get(key.rpartition(".")[2], LARGEST)
        if abs(value) > most:
            raise UserError(f"{origin}: {key}: {reprlib.repr(value)} must be at most {most:,}")


@cache
def _recipe_type() -> TypeAdapter[Recipe]:
    return TypeAdapter(Recipe)  # building it takes as long as a hundred validations


def load_recipe(name_or_path: str, seen: tuple[Path, ...] = ()) -> Tree:
    """The tree of a recipe that comes with the package, or of a YAML file, whose bases are not
    among those `seen`.
    """
    path = Path(name_or_path)
    if not is_yaml(name_or_path):
        path = RECIPES / f"{name_or_path}.yaml"
        if not path.is_file():
            known = [p.stem for p in RECIPES.glob("*.yaml")]
            raise UserError(f"no recipe {name_or_path!r}; {did_you_mean(name_or_path, known)}")
    if path.resolve() in seen:
        raise UserError(f"{path.name}: it is its own base; name another recipe")
    seen = (*seen, path.resolve())
    data = read_yaml(path)
    data.pop("title", None)
    base = data.pop("base", None)
    try:
        tree = default_tree() if base is None else load_recipe(beside(path, str(base)), seen)
    except (UserError, OSError) as error:  # a name may be longer than any file's
        raise UserError(f"{path.name}: base: {getattr(error, 'strerror', error)}") from None
    return override(tree, data, origin=path.name, folder=path.parent)


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """`KEY=VALUE` strings from the command line; values are read as YAML."""
    changes: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(
                f"--set {_short(text)}: expected KEY=VALUE, such as model.backbone.width=0.5"
            )
        try:
            changes[key] = parse(value)
        except YamlError as error:
            raise UserError(f"--set {_short(text)}: {error}") from None
    return changes


def _short(text: str) -> str:
    """The beginning of what a user gave, in one line."""
    return " ".join(text[:80].split())


def difference(tree: Tree, base: Tree) -> dict[str, tuple[Any, Any]]:
    """Dotted keys whose value differs: key → (in base, in tree); None where one has no such key."""
    mine, theirs = flatten(tree), flatten(base)
    keys = dict.fromkeys([*theirs, *mine])
    return {k: (theirs.get(k), mine.get(k)) for k in keys if theirs.get(k) != mine.get(k)}


def beside(path: Path, name: str) -> str:
    """A file named inside `path` is looked for beside it; a shipped name stays one."""
    return str(path.parent / name) if is_yaml(name) else name


def _check_key(parts: list[str], value: Any, tree: Tree, *, origin: str) -> None:
    """Walk the dataclasses along the key; a mapping as value is the choice of a kind."""
    owner: Any = Recipe
    for depth, part in enumerate(parts):
        here = ".".join(parts[:depth])
        owner = _chosen(owner, _at(tree, parts[:depth]))
        if not is_dataclass(owner):
            raise UserError(
                f"{origin}: {'.'.join(parts)}: {here} is a value, it has no keys inside"
            )
        known = [f.name for f in fields(owner)]
        if part not in known:
            inside = f" in {here}" if here else ""
            raise UserError(
                f"{origin}: {'.'.join(parts)}: unknown key {part!r}{inside}; "
                f"{did_you_mean(part, known)}"
            )
        owner = _hints(owner)[part]
    inner_type = _chosen(owner, _at(tree, parts))
    if is_dataclass(inner_type) and inner_type is not Genotype and not isinstance(value, Mapping):
        raise UserError(
            f"{origin}: {'.'.join(parts)}: {value!r} is not a mapping; set one of its keys: "
            f"{', '.join(f.name for f in fields(inner_type))}"
        )
    if not isinstance(value, Mapping) or parts[-1] == "genotype":
        return
    if not _is_union(owner):
        _check_key([*parts, "kind"], value["kind"], tree, origin=origin)
    elif not _chosen(owner, value):
        kinds = [kind for kind in map(_kind_of, get_args(owner)) if kind]
        raise UserError(
            f"{origin}: {'.'.join(parts)}: unknown kind {value['kind']!r}; "
            f"{did_you_mean(str(value['kind']), kinds)}"
        )


def _chosen(owner: Any, current: Any) -> Any:
    """The dataclass meant by a type: of a union, the one whose `kind` the tree has."""
    if not _is_union(owner):
        return owner
    for candidate in get_args(owner):
        if isinstance(current, Mapping) and current.get("kind") == _kind_of(candidate):
            return candidate
    return None


def _is_union(owner: Any) -> bool:
    return get_origin(owner) in (Union, types.UnionType)


def _kind_of(candidate: Any) -> str:
    """The `kind` of a union's member; empty for one that has none."""
    hint = _hints(candidate).get("kind") if is_dataclass(candidate) else None
    return str(get_args(hint)[0]) if get_origin(hint) is Literal else ""


def _at(tree: Any, parts: list[str]) -> Any:
    for part in parts:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree


def _put(tree: Tree, key: str, value: Any) -> Tree:
    """A copy of `tree` with `value` at the dotted key."""
    first, _, rest = key.partition(".")
    if rest:
        there = tree.get(first)
        value = _put(there if isinstance(there, dict) else {}, rest, value)
    return {**tree, first: value}


def _defaults_of(tree: Tree, key: str, value: Mapping[str, Any]) -> Tree:
    """The fields of the newly chosen kind, at their defaults."""
    owner: Any = Recipe
    parts = key.split(".")
    for depth, part in enumerate(parts):
        owner = _hints(_chosen(owner, _at(tree, parts[:depth])))[part]
    defaults: Tree = plain(_chosen(owner, value)())
    return defaults


def _genotype(value: Any, origin: str, folder: Path | None = None) -> Genotype:
    """A genotype from a name, a file, `{base: NAME, derive: [...]}`, or its own mapping."""
    try:
        if isinstance(value, str):
            return genotypes.load(value, relative_to=folder)
        if isinstance(value, Mapping) and "base" in value:
            base = genotypes.load(str(value["base"]), relative_to=folder)
            return derive(base, list(value.get("derive", [])))
        if isinstance(value, Mapping):
            return genotypes.from_mapping(value)
    except GenotypeError as error:
        raise UserError(f"{origin}: model.backbone.genotype: {error}") from None
    raise UserError(
        f"{origin}: model.backbone.genotype: cannot read {value!r}; give a name, a .yaml file, or "
        "{base: NAME, derive: [sequential]}"
    )


def _first_problem(error: ValidationError, tree: Tree) -> str:
    """One readable line of pydantic's first complaint that concerns the chosen kinds."""
    for problem in error.errors():
        # Of a union, pydantic reports every member; only the one whose kind was chosen is of
        # interest.
        classes = [str(p) for p in problem["loc"] if isinstance(p, str) and p[:1].isupper()]
        location = [str(p) for p in problem["loc"] if str(p) not in classes]
        if problem["loc"][-1:] == ("kind",) and classes:
            continue
        found = _at(tree, location)
        given = "" if isinstance(found, Mapping) else f", found {found!r}"
        key = f"{'.'.join(location)}: " if location else ""
        return f"{key}{problem['msg'].removeprefix('Value error, ')}{given}"
    return str(error).splitlines()[0]
