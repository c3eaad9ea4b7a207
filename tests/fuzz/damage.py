"""Damage as strategies: of bytes, of the text of a file, of trees of plain values."""

from __future__ import annotations

import copy
import json
from typing import Any

import yaml
from hypothesis import strategies as st

Tree = Any

NUMBERS = [0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**400, 0.0, -0.5, 1e-320, 1e308, -1e308]
NUMBERS += [float("nan"), float("inf"), float("-inf")]
TEXTS = ["", " ", "\0", "\ud800", "é", "💥", "a" * 5000, "../../etc/passwd", "/", ".", "-0", "1e3"]
TEXTS += ["null", "true", "NaN", "²", "٣", "kind", "spinenet-49", "x.yaml", "a\nb", "%s{}"]
SHAPES = [None, True, False, [], {}, [[]], [None], {"": None}, {"kind": "?"}, {"kind": None}]
DEEP: Any = None
for _ in range(60):
    DEEP = [DEEP]

SPLINTERS = [
    "!!python/object/apply:os.system ['true']",
    "!!python/name:os.system",
    "!unknown {}",
    "&a [*a]",
    "&a {b: *a}",
    "*missing",
    "<<: *x",
    "<<: 3",
    "9" * 5000,
    "-" + "9" * 5000,
    "1e999999",
    "[" * 3000,
    "{a: " * 300,
    "2001-99-99",
    "2001-01-01T99:99:99Z",
    "!!int x",
    "!!float x",
    "!!binary '*'",
    "0x" + "f" * 400,
    "190:20:30",
    "\t",
    "---\n",
    "...\n",
    "%YAML 9.9\n",
    "? [a]\n: b",
    "? {a: b}\n: c",
    "'",
    '"',
    "|\n",
    "NaN",
    "-Infinity",
    "\u2028",
    "\ufeff",
    ": :",
]

values = st.one_of(
    st.sampled_from([*NUMBERS, *TEXTS, *SHAPES, DEEP]),
    st.integers(-5, 5),
    st.floats(-10, 10),
    st.text(max_size=8),
)


@st.composite
def damaged_bytes(draw: st.DrawFn, original: bytes) -> bytes:
    """One to four of: bits flipped, bytes overwritten, cut, repeated, put in; or something else
    altogether.
    """
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 64))
        match draw(st.integers(0, 7)):
            case 0 | 1 if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 2:
                data[at : at + length] = draw(st.binary(max_size=length))
            case 3:
                del data[at:]
            case 4:
                del data[at : at + length]
            case 5:
                data[at:at] = data[at : at + length]
            case 6:
                data[at:at] = bytes(length)
            case _:
                data[at : at + length] = draw(st.sampled_from(SPLINTERS)).encode()
    return bytes(data) if draw(st.integers(0, 40)) else draw(st.binary(max_size=200))


@st.composite
def damaged_tree(draw: st.DrawFn, original: Tree) -> Tree:
    """One to three of: an entry dropped, renamed, replaced, put into another's place, wrapped."""
    tree = copy.deepcopy(original)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        if not places:
            return copy.deepcopy(draw(values))
        holder, key = draw(st.sampled_from(places))
        match draw(st.integers(0, 7)):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                names = st.text(max_size=6) | st.sampled_from([str(name) for name in holder])
                holder[draw(names)] = holder.pop(key)
            case 2:
                other, there = draw(st.sampled_from(places))
                if there in other if isinstance(other, dict) else there < len(other):
                    holder[key] = copy.deepcopy(other[there])
            case 3:
                holder[key] = [holder[key]]
            case 4 if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case 5 if isinstance(holder[key], str):
                holder[key] = holder[key][: draw(st.integers(0, len(holder[key])))]
            case _:
                holder[key] = copy.deepcopy(draw(values))
    return tree if draw(st.integers(0, 60)) else copy.deepcopy(draw(values))


def _places(tree: Tree) -> list[tuple[Any, Any]]:
    """Every container with each of its keys or positions."""
    if isinstance(tree, dict):
        inner = [(tree, key) for key in tree]
    elif isinstance(tree, list):
        inner = [(tree, i) for i in range(len(tree))]
    else:
        return []
    return inner + [place for holder, key in inner for place in _places(holder[key])]


def as_json(tree: Tree) -> bytes:
    """JSON as Python writes it, with NaN and Infinity."""
    return json.dumps(tree).encode()


def as_yaml(tree: Tree) -> bytes:
    return yaml.safe_dump(tree, sort_keys=False).encode(errors="backslashreplace")


def damaged_yaml(original: Tree) -> st.SearchStrategy[bytes]:
    """A YAML file whose text or whose values are damaged."""
    return damaged_bytes(as_yaml(original)) | damaged_tree(original).map(as_yaml)


def damaged_json(original: Tree) -> st.SearchStrategy[bytes]:
    """A JSON file whose text or whose values are damaged."""
    return damaged_bytes(as_json(original)) | damaged_tree(original).map(as_json)
