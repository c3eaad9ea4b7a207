"""What a scale-permuted network is, as data (SpineNet, CVPR 2020, sections 3.1-3.3).

A genotype is an ordered list of blocks. Each block has a feature level (its map is the input side
divided by 2**level), a kind, one or two parents among the blocks before it, and may be an output.
The first blocks form the stem, a plain scale-decreasing chain of bottlenecks (of MBConv blocks in a
mobile network); every later block is one row of the table. Genotypes are frozen, validated when
made, and read from and written to YAML without loss.

Indices count the stem blocks too: in SpineNet-49 the stem is 0 and 1, and the first permuted block
is 2.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import yaml

from spinenet.naming import unknown
from spinenet.yaml_text import YamlError, is_yaml, parse

BOTTLENECK, RESIDUAL, MBCONV = "bottleneck", "residual", "mbconv"
EXPANSION = {
    BOTTLENECK: 4,
    RESIDUAL: 1,
    MBCONV: 1,
}  # output channels of a block over its inner width
STEM_START = {BOTTLENECK: 2, MBCONV: 1}  # level of the first stem block, by the stem's kind

# Inner width C per level before the width multiplier (tensorflow/tpu: spinenet.py,
# FILTER_SIZE_MAP).
LEVEL_WIDTHS = {2: 64, 3: 128, 4: 256, 5: 256, 6: 256, 7: 256}
OUTPUT_LEVELS = (3, 4, 5, 6, 7)

MOST_BLOCKS, MOST_WIDTH = 1000, 2**16  # that no network has, and a typing error may

SHIPPED = Path(__file__).parent / "genotypes"


class GenotypeError(ValueError):
    """A genotype that no network can be built from; the message names the block, the value and the
    way out.
    """


@dataclass(frozen=True)
class BlockSpec:
    """One row of a genotype's table: feature level, block kind, parents' indices, and whether it is
    an output.
    """

    level: int
    kind: str
    parents: tuple[int, ...]
    is_output: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "parents", tuple(self.parents))


class Widths(dict[int, int]):
    """Inner width per level. It cannot be changed, so that genotypes can be shared and hashed."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            "a genotype's widths cannot be changed; make another genotype: "
            "dataclasses.replace(genotype, widths={...})"
        )

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[type[Widths], tuple[dict[int, int]]]:
        return Widths, (dict(self),)


@dataclass(frozen=True)
class Genotype:
    """An ordered, validated description of a scale-permuted network.

    `stem` lists the levels of the stem's blocks, all of `stem_kind`, `blocks` the permuted part,
    `widths` the inner width per level. `merge_orphans` says whether outputs take up what nobody
    reads. `name` and `source` are for people: two genotypes with the same `content()` are the same
    network.

    Lists are taken for tuples, and any mapping for `widths`, which is kept as `Widths`. Raises
    GenotypeError when the description is not a network.
    """

    name: str
    stem: tuple[int, ...]
    blocks: tuple[BlockSpec, ...]
    widths: Mapping[int, int] = field(default_factory=lambda: dict(LEVEL_WIDTHS))
    source: str = ""
    stem_kind: str = BOTTLENECK
    merge_orphans: bool = True

    def __post_init__(self) -> None:
        _check_fields(self.stem, self.widths, self.blocks)
        for name, kept in (("stem", tuple), ("blocks", tuple), ("widths", Widths)):
            object.__setattr__(self, name, kept(getattr(self, name)))
        _validate(self)

    @property
    def is_mobile(self) -> bool:
        """Whether this is a network of MBConv blocks, which has its own stem and resampling."""
        return self.stem_kind == MBCONV

    @property
    def nodes(self) -> tuple[BlockSpec, ...]:
        """All blocks by index, the stem written out as the chain that it is."""
        stem = (
            BlockSpec(level, self.stem_kind, (i - 1,) if i else ())
            for i, level in enumerate(self.stem)
        )
        return (*stem, *self.blocks)

    @property
    def outputs(self) -> dict[int, int]:
        """Level to index of the output block at that level, in order of level."""
        found = {node.level: i for i, node in enumerate(self.nodes) if node.is_output}
        return dict(sorted(found.items()))

    def merged(self) -> dict[int, tuple[int, ...]]:
        """For each output block, the earlier blocks that nobody has read and that it therefore adds
        (section 3.3).

        A block without a child so far joins the output block of its own level if the channels
        agree; it is added as it is, without resampling (tensorflow/tpu: spinenet.py, "outdegree
        0").
        """
        nodes, has_child = self.nodes, [False] * len(self.nodes)
        merged: dict[int, tuple[int, ...]] = {}
        for index, node in enumerate(nodes):
            for parent in node.parents:
                has_child[parent] = True
            if node.is_output:
                shape = (node.level, EXPANSION[node.kind])
                orphans = tuple(
                    j
                    for j in range(index)
                    if not has_child[j] and (nodes[j].level, EXPANSION[nodes[j].kind]) == shape
                )
                merged[index] = orphans if self.merge_orphans else ()
                for j in orphans:
                    has_child[j] = True
        return merged

    def built(self, outputs: Iterable[int] | None = None) -> tuple[int, ...]:
        """The blocks that some output, or one of `outputs` alone, depends on, in order; others are
        no part of a network.
        """
        live = set(self.outputs.values() if outputs is None else outputs)
        merged = self.merged()
        for index, node in reversed(list(enumerate(self.nodes))):
            if index in live:
                live.update(node.parents, merged.get(index, ()))
        return tuple(sorted(live))

    def content(self) -> dict[str, Any]:
        """What decides the network, in plain JSON types; names and sources are left out."""
        return {
            "stem": list(self.stem),
            "widths": {int(k): int(v) for k, v in sorted(self.widths.items())},
            "blocks": [[b.level, b.kind, list(b.parents), b.is_output] for b in self.blocks],
            **self._unusual(),
        }

    def _unusual(self) -> dict[str, Any]:
        """The switches that are not at their defaults."""
        switches = {"stem_kind": BOTTLENECK, "merge_orphans": True}
        return {k: getattr(self, k) for k, usual in switches.items() if getattr(self, k) != usual}

    def to_mapping(self) -> dict[str, Any]:
        """The mapping that a YAML file holds; `from_mapping` reads it back to an equal genotype."""
        rows = [
            [b.level, b.kind, list(b.parents)] + (["output"] if b.is_output else [])
            for b in self.blocks
        ]
        body = {
            "stem": list(self.stem),
            "widths": {int(k): v for k, v in self.widths.items()},
            "blocks": rows,
        }
        return {"name": self.name, "source": self.source, **body, **self._unusual()}

    def to_yaml(self) -> str:
        """The genotype as YAML, one row per block."""
        head = yaml.safe_dump(
            {"name": self.name, "source": self.source, "stem": list(self.stem)}, sort_keys=False
        )
        widths = yaml.safe_dump({"widths": dict(self.widths)}, default_flow_style=None)
        unusual = yaml.safe_dump(self._unusual(), sort_keys=False) if self._unusual() else ""
        rows = "".join(f"  - {_row_text(b)}\n" for b in self.blocks)
        return f"{head}{unusual}{widths}blocks:  # level, kind, parents, output\n{rows}"


def from_mapping(data: Mapping[str, Any], *, origin: str = "genotype") -> Genotype:
    """Read a genotype from plain data; `origin` names the file or key in errors."""
    try:
        return _read(data, name=origin)
    except GenotypeError as error:
        raise GenotypeError(f"{origin}: {error}") from None


def _read(data: Mapping[str, Any], *, name: str) -> Genotype:
    """The genotype in plain data, called `name` where the data does not say."""
    known = [f.name for f in fields(Genotype)]
    if unknown := set(data) - set(known):
        raise GenotypeError(f"unknown key {min(unknown, key=str)!r}; known: {', '.join(known)}")
    missing = {"stem", "blocks"} - set(data)
    if missing:
        raise GenotypeError(
            f"the key {min(missing)!r} is missing; a genotype needs stem and blocks"
        )
    widths = data.get("widths", LEVEL_WIDTHS)
    if isinstance(widths, Mapping):  # JSON has no integer keys
        widths = {int(k) if _is_level(k) else k: v for k, v in widths.items()}
    _check_fields(data["stem"], widths, data["blocks"])
    offset = len(data["stem"])
    rows = tuple(_read_row(row, f"block {offset + i}") for i, row in enumerate(data["blocks"]))
    return Genotype(
        name=str(data.get("name", name)),
        stem=data["stem"],
        blocks=rows,
        widths=widths,
        source=str(data.get("source", "")),
        stem_kind=str(data.get("stem_kind", BOTTLENECK)),
        merge_orphans=data.get("merge_orphans", True),
    )


def from_yaml(text: str, *, origin: str = "genotype") -> Genotype:
    """Read a genotype from YAML text."""
    try:
        data = parse(text)
    except YamlError as error:
        raise GenotypeError(f"{origin}: {error}") from None
    if not isinstance(data, Mapping):
        raise GenotypeError(
            f"{origin}: expected a mapping with stem and blocks, found {type(data).__name__}"
        )
    return from_mapping(data, origin=origin)


def load(name_or_path: str | Path, *, relative_to: Path | None = None) -> Genotype:
    """A shipped genotype by name, or one from a YAML file, which is looked up in `relative_to`."""
    text = str(name_or_path)
    if not is_yaml(text):
        return _load_shipped(text)
    path = Path(text) if relative_to is None or Path(text).is_absolute() else relative_to / text
    if not path.is_file():
        raise GenotypeError(
            f"no genotype file {path}; the name is taken relative to the file that names it"
        )
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GenotypeError(f"{path}: cannot be read as UTF-8 text: {error}") from None
    return from_yaml(content, origin=path.name)


@cache
def _load_shipped(name: str) -> Genotype:
    path = SHIPPED / f"{name}.yaml"
    if not path.is_file():
        complaint = unknown("genotype", name, shipped(), "shipped")
        raise GenotypeError(f"{complaint}; or give a .yaml file")
    return from_yaml(path.read_text(), origin=path.name)


def shipped() -> list[str]:
    """Names of the genotypes that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def _is_level(key: Any) -> bool:
    """Whether it is a level written as text; int() takes no superscripts, and time for more."""
    return isinstance(key, str) and key.isdecimal() and len(key) < 3


def _row_text(block: BlockSpec) -> str:
    parents = ", ".join(str(p) for p in block.parents)
    return f"[{block.level}, {block.kind}, [{parents}]{', output' if block.is_output else ''}]"


def _check_fields(stem: Any, widths: Any, blocks: Any) -> None:
    if not isinstance(stem, list | tuple) or not all(isinstance(level, int) for level in stem):
        raise GenotypeError(f"stem {reprlib.repr(stem)} must be a list of levels, such as [2, 2]")
    if not isinstance(widths, Mapping) or not all(
        isinstance(k, int) and isinstance(v, int) and 0 < v <= MOST_WIDTH for k, v in widths.items()
    ):
        raise GenotypeError(
            f"widths {reprlib.repr(widths)} must be a mapping of level: width, both "
            f"positive integers, the latter at most {MOST_WIDTH}"
        )
    if not isinstance(blocks, list | tuple):
        raise GenotypeError(
            f"blocks {reprlib.repr(blocks)} must be a list of rows [level, kind, [parents]]"
        )
    if len(blocks) > MOST_BLOCKS:
        raise GenotypeError(f"{len(blocks)} blocks; at most {MOST_BLOCKS} can be built")


def _read_row(row: Any, where: str) -> BlockSpec:
    form = "a row is [level, kind, [parents]] with an optional fourth entry, output"
    if not isinstance(row, Sequence) or isinstance(row, str) or len(row) not in (3, 4):
        raise GenotypeError(f"{where}: cannot read {row!r}; {form}")
    level, kind, parents, *rest = row
    if not isinstance(level, int) or not isinstance(parents, Sequence) or isinstance(parents, str):
        raise GenotypeError(f"{where}: cannot read {row!r}; {form}")
    if not all(isinstance(p, int) for p in parents):
        raise GenotypeError(f"{where}: parents {list(parents)!r} must be indices of blocks")
    if rest not in ([], ["output"], [True], [False]):
        raise GenotypeError(f"{where}: fourth entry {rest[0]!r}; write output or leave it out")
    return BlockSpec(level, str(kind), tuple(parents), bool(rest and rest[0]))


def _validate(genotype: Genotype) -> None:
    stem, widths, stem_kind = genotype.stem, genotype.widths, genotype.stem_kind
    if stem_kind not in STEM_START:
        raise GenotypeError(f"stem_kind {stem_kind!r} is unknown; known: {', '.join(STEM_START)}")
    if not isinstance(genotype.merge_orphans, bool):
        raise GenotypeError(f"merge_orphans {genotype.merge_orphans!r} must be true or false")
    start = STEM_START[stem_kind]
    if not stem or stem[0] != start or any(b not in (a, a + 1) for a, b in pairwise(stem)):
        raise GenotypeError(
            f"stem {list(stem)} must start at level {start} and step by 0 or 1, as a ResNet does"
        )
    for index, node in enumerate(genotype.nodes):
        where = f"block {index}"
        if node.level not in widths:
            raise GenotypeError(
                f"{where}: level {node.level} has no width; widths has levels {sorted(widths)}"
            )
        if node.kind not in EXPANSION:
            raise GenotypeError(
                f"{where}: kind {node.kind!r} is unknown; known: {', '.join(EXPANSION)}"
            )
        if (node.kind == MBCONV) != genotype.is_mobile:
            raise GenotypeError(
                f"{where}: kind {node.kind!r} does not go with a stem of {stem_kind} blocks; a "
                "mobile network is mbconv throughout"
            )
        if index < len(stem):
            continue
        if not node.parents or len(set(node.parents)) != len(node.parents):
            raise GenotypeError(
                f"{where}: parents {list(node.parents)} must be one or more distinct blocks"
            )
        for parent in node.parents:
            if not 0 <= parent < index:
                raise GenotypeError(
                    f"{where}: parent {parent} does not come before it; "
                    f"parents must be among blocks 0 to {index - 1}"
                )
    levels = [node.level for node in genotype.nodes if node.is_output]
    if not levels:
        raise GenotypeError("no block is an output; mark one block per endpoint level with output")
    if len(set(levels)) != len(levels):
        repeated = next(level for level in levels if levels.count(level) > 1)
        raise GenotypeError(
            f"two output blocks at level {repeated}; each level has at most one endpoint"
        )
