"""The paper's search spaces as rows of decisions (SpineNet, CVPR 2020, section 3.1; the window of
parents, section 5.1).

A network of the space has a fixed stem, a given number of blocks per level, and five outputs at the
end, one for each of the levels 3 to 7. In this order the space decides

- the order of the intermediate blocks, then that of the outputs (scale permutation);
- two parents for each block, of the last five blocks before an intermediate one, of all blocks
  before an output (cross-scale connections);
- where it is switched on, an offset to the level of each intermediate block and a kind for every
  block (block adjustment).

Each decision is a choice among a few numbers, which depend on the choices before it. A network may
have several rows of choices (blocks at one level are alike, and an offset can undo an order);
`encode` gives the first of them.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from spinenet.families import FAMILIES, Family, family
from spinenet.genotype import (
    BOTTLENECK,
    LEVEL_WIDTHS,
    OUTPUT_LEVELS,
    RESIDUAL,
    BlockSpec,
    Genotype,
    GenotypeError,
)
from spinenet.naming import unknown

Kind = Literal["order", "output order", "first parent", "second parent", "offset", "kind"]
Choices = tuple[int, ...]

PARENT_WINDOW = 5
OFFSETS = (-1, 0, 1, 2)
KINDS = (BOTTLENECK, RESIDUAL)


@dataclass(frozen=True)
class Decision:
    """What is chosen next: for which block (its index, the stem counted), and among which values.

    Values are levels for an order, indices of blocks for a parent, offsets, indices of `KINDS`.
    """

    kind: Kind
    block: int
    options: tuple[int, ...]


@dataclass(frozen=True)
class Space:
    """All networks with this stem, these levels of intermediate blocks, and outputs at levels 3 to
    7.

    With `order` given, levels come in that order, outputs included, and only the connections are
    searched. `adjusts` adds offsets and kinds. Raises GenotypeError where some block has no two
    blocks to choose its parents from.
    """

    name: str
    stem: tuple[int, ...]
    intermediates: tuple[int, ...]
    order: tuple[int, ...] | None = None
    adjusts: bool = False
    window: int = PARENT_WINDOW
    widths: Mapping[int, int] = field(default_factory=lambda: dict(LEVEL_WIDTHS))

    def __post_init__(self) -> None:
        if len(self.stem) < 2:
            raise GenotypeError(
                f"{self.name}: the stem {list(self.stem)} needs at least two blocks"
            )
        if self.window < 2:
            raise GenotypeError(f"{self.name}: window {self.window} must be at least 2")

    @property
    def length(self) -> int:
        """Permuted blocks, outputs included: the paper's N."""
        return len(self.intermediates) + len(OUTPUT_LEVELS)

    def walk(self, choose: Callable[[Decision], int]) -> list[tuple[Decision, int]]:
        """Every decision in order with what `choose` made of it.

        Raises GenotypeError for a choice that is not among the options.
        """
        taken: list[tuple[Decision, int]] = []

        def ask(kind: Kind, block: int, options: tuple[int, ...]) -> int:
            decision = Decision(kind, block, options)
            choice = choose(decision)
            if choice not in options:
                raise GenotypeError(f"block {block}: {kind} {choice!r} is not one of {options}")
            taken.append((decision, choice))
            return choice

        levels = self._ask_order(ask)
        for index in self._indices:
            candidates = self._candidates(index)
            first = ask("first parent", index, candidates[:-1])
            ask("second parent", index, tuple(c for c in candidates if c > first))
        if self.adjusts:
            for index, level in zip(self._indices, levels[: len(self.intermediates)], strict=False):
                ask("offset", index, self._offsets(level))
            for index in self._indices:
                ask("kind", index, tuple(range(len(KINDS))))
        return taken

    def decode(self, choices: Sequence[int], name: str = "") -> Genotype:
        """The network of a complete row of choices.

        Raises GenotypeError for a choice that is not among its options, and for too few or many.
        """
        row = list(reversed(choices))

        def following(decision: Decision) -> int:
            if not row:
                raise GenotypeError(f"{self.name}: no choice is left for {decision}")
            return row.pop()

        by_kind: dict[Kind, list[int]] = defaultdict(list)
        for decision, choice in self.walk(following):
            by_kind[decision.kind].append(choice)
        if row:
            raise GenotypeError(f"{self.name}: {len(row)} choices are left over")
        levels = self.order or (*by_kind["order"], *by_kind["output order"])
        offsets = (by_kind["offset"] or [0] * len(self.intermediates)) + [0] * len(OUTPUT_LEVELS)
        kinds = by_kind["kind"] or [0] * self.length
        pairs = zip(by_kind["first parent"], by_kind["second parent"], strict=True)
        blocks = tuple(
            BlockSpec(level + offset, KINDS[kind], pair, i >= len(self.intermediates))
            for i, (level, offset, kind, pair) in enumerate(
                zip(levels, offsets, kinds, pairs, strict=True)
            )
        )
        source = f"our search, in the space {self.name}"
        return Genotype(name or self.name, self.stem, blocks, self.widths, source)

    def encode(self, genotype: Genotype) -> Choices:
        """The first row of choices that decodes to a network.

        Raises GenotypeError that says why a network is not in the space.
        """
        before = self._base_levels(genotype)
        row: list[int] = []
        if self.order is None:
            row += before
        for block in genotype.blocks:
            if len(block.parents) != 2:
                raise GenotypeError(
                    f"{genotype.name}: a block has {len(block.parents)} parents; in {self.name} "
                    "every block has two"
                )
            row += sorted(block.parents)
        if self.adjusts:
            shifts = zip(genotype.blocks, before[: len(self.intermediates)], strict=False)
            row += [block.level - level for block, level in shifts]
            row += [KINDS.index(block.kind) for block in genotype.blocks]
        self.decode(row)  # complains of parents out of reach
        return tuple(row)

    def sample(self, rng: np.random.Generator) -> Choices:
        """A row of choices with every order, and every pair of parents, equally likely."""
        row: list[int] = []
        if self.order is None:
            row += rng.permutation(self.intermediates).tolist()
            row += rng.permutation(OUTPUT_LEVELS).tolist()
        for index in self._indices:
            row += sorted(rng.choice(self._candidates(index), 2, replace=False).tolist())
        if self.adjusts:
            levels = (self.order or row)[: len(self.intermediates)]
            row += [int(rng.choice(self._offsets(level))) for level in levels]
            row += rng.integers(len(KINDS), size=self.length).tolist()
        return tuple(row)

    def sizes(self) -> dict[str, int]:
        """Networks by part, as the paper counts them: every block distinct, every earlier block a
        possible parent, every offset allowed.
        """
        n, m = self.length, len(self.stem)
        found = {"cross-scale connections": math.prod(math.comb(i, 2) for i in range(m, n + m))}
        if self.order is None:
            outputs = len(OUTPUT_LEVELS)
            permutations = math.factorial(n - outputs) * math.factorial(outputs)
            found = {"scale permutations": permutations, **found}
        if self.adjusts:
            found["level adjustment"] = len(OFFSETS) ** len(self.intermediates)
            found["block kinds"] = len(KINDS) ** n
        return found

    def rows(self) -> int:
        """Rows of choices, which is what a search can tell apart: blocks at one level are alike,
        and parents are within reach.
        """
        count = math.prod(math.comb(len(self._candidates(i)), 2) for i in self._indices)
        if self.order is None:
            count *= math.factorial(len(self.intermediates)) * math.factorial(len(OUTPUT_LEVELS))
            for repeated in Counter(self.intermediates).values():
                count //= math.factorial(repeated)
        if self.adjusts:
            count *= math.prod(len(self._offsets(level)) for level in self.intermediates)
            count *= len(KINDS) ** self.length
        return count

    @property
    def _indices(self) -> range:
        """Of the permuted blocks, the stem counted."""
        return range(len(self.stem), len(self.stem) + self.length)

    def _ask_order(self, ask: Callable[[Kind, int, tuple[int, ...]], int]) -> list[int]:
        if self.order is not None:
            return list(self.order)
        levels: list[int] = []
        parts: tuple[tuple[Kind, tuple[int, ...]], ...] = (
            ("order", self.intermediates),
            ("output order", OUTPUT_LEVELS),
        )
        for kind, remaining in parts:
            left = Counter(remaining)
            while left:
                levels.append(ask(kind, len(self.stem) + len(levels), tuple(sorted(left))))
                left -= Counter(levels[-1:])
        return levels

    def _candidates(self, index: int) -> tuple[int, ...]:
        is_output = index >= len(self.stem) + len(self.intermediates)
        return tuple(range(0 if is_output else max(0, index - self.window), index))

    def _offsets(self, level: int) -> tuple[int, ...]:
        return tuple(offset for offset in OFFSETS if level + offset in self.widths)

    def _base_levels(self, genotype: Genotype) -> list[int]:
        """Levels of a network's blocks before any offset, in order.

        Raises GenotypeError where there are none.
        """
        n, levels = self.length, [block.level for block in genotype.blocks]
        outputs = levels[len(self.intermediates) :]
        kinds = {block.kind for block in genotype.blocks}
        complaint = ""
        if genotype.stem != self.stem:
            complaint = f"its stem is {list(genotype.stem)}, not {list(self.stem)}"
        elif len(levels) != self.length or sorted(outputs) != list(OUTPUT_LEVELS):
            complaint = "its last five blocks are not one for each of the levels 3 to 7"
        elif [b.is_output for b in genotype.blocks] != [False] * (n - 5) + [True] * 5:
            complaint = "its outputs are not its last five blocks"
        elif not kinds <= set(KINDS if self.adjusts else KINDS[:1]):
            complaint = f"it has blocks of the kinds {', '.join(sorted(kinds))}"
        elif self.order is not None and tuple(levels) != self.order:
            complaint = f"its levels come in the order {levels}, not {list(self.order)}"
        base = None if complaint else self._undo_offsets(levels[: len(self.intermediates)])
        if base is None:
            complaint = complaint or f"no order of {list(self.intermediates)} leads to its levels"
            raise GenotypeError(f"{genotype.name} is not in the space {self.name}: {complaint}")
        return base + outputs

    def _undo_offsets(self, levels: Sequence[int]) -> list[int] | None:
        """An order of the intermediate levels that some offsets turn into `levels`."""
        offsets = OFFSETS if self.adjusts else (0,)
        return _assign(list(levels), Counter(self.intermediates), offsets)


def walked(space: Space, row: Choices) -> list[tuple[Decision, int]]:
    """Every decision of a space with what a complete row makes of it."""
    rest = iter(row)
    return space.walk(lambda decision: next(rest))


def _assign(levels: list[int], left: Counter[int], offsets: Sequence[int]) -> list[int] | None:
    """For each level a base level of `left`, each used as often as it is there, or None."""
    if not levels:
        return []
    for base in sorted(left, key=lambda level: abs(levels[0] - level)):
        if levels[0] - base in offsets:
            rest = _assign(levels[1:], left - Counter([base]), offsets)
            if rest is not None:
                return [base, *rest]
    return None


def _of_family(found: Family, *, adjusts: bool) -> Space:
    levels = Counter(found.blocks) - Counter(OUTPUT_LEVELS)
    return Space(
        name="spinenet" if adjusts else found.name,
        stem=found.stem,
        intermediates=tuple(sorted(levels.elements())),
        order=found.order,
        adjusts=adjusts,
    )


def spaces() -> list[str]:
    """Names that `space` knows."""
    return [*FAMILIES, "spinenet"]


def space(name: str) -> Space:
    """A space by name: one of the families of table 1 and of the fixed orders, or `spinenet`, that
    of R0-SP53 with block adjustment, in which SpineNet-49 was found.

    Raises GenotypeError with the nearest name for an unknown one.
    """
    if name not in spaces():
        raise GenotypeError(unknown("space", name, spaces()))
    if name == "spinenet":
        return _of_family(family("r0-sp53"), adjusts=True)
    return _of_family(family(name), adjusts=False)
