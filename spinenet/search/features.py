"""A network as a few dozen numbers, from which its accuracy may be guessed.

They say what a designer would look at: how many blocks of which kind stand at each level, how far
connections reach and how much they resample, how deep each output lies, and how fine the network is
early and late. Blocks that no output depends on count for nothing but their number. Networks of all
spaces have the same features.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from spinenet.genotype import EXPANSION, OUTPUT_LEVELS, RESIDUAL, Genotype

LEVELS = (2, *OUTPUT_LEVELS)
SHIFTS = range(-4, 5)  # of the level along an edge; further ones count as these
NAMES = (
    *(f"blocks at {level}" for level in LEVELS),
    *(f"residual blocks at {level}" for level in LEVELS),
    *(f"edges by {shift:+d} levels" for shift in SHIFTS),
    *(f"place of output {level}" for level in OUTPUT_LEVELS),
    *(f"least depth of output {level}" for level in OUTPUT_LEVELS),
    *(f"depth of output {level}" for level in OUTPUT_LEVELS),
    *(f"least resampling of output {level}" for level in OUTPUT_LEVELS),
    "mean reach of edges",
    "furthest reach of edges",
    "stem blocks",
    "blocks not built",
    "blocks merged into outputs",
    "mean level of the first half",
    "mean level of the second half",
    "work",
)


def features(genotype: Genotype) -> np.ndarray:
    """One number for each of `NAMES`."""
    nodes, merged, stem = genotype.nodes, genotype.merged(), len(genotype.stem)
    built = genotype.built()
    inner = [i for i in built if i >= stem]
    levels = [nodes[i].level for i in inner]
    edges = [(p, i) for i in inner for p in nodes[i].parents]
    shifts = [nodes[i].level - nodes[p].level for p, i in edges]
    reach = [i - p for p, i in edges]
    least, most, resampled = _depths(genotype, built)
    outputs = [genotype.outputs[level] for level in OUTPUT_LEVELS]
    half = len(levels) // 2
    return np.array(
        [
            *_counted(levels, LEVELS),
            *_counted((nodes[i].level for i in inner if nodes[i].kind == RESIDUAL), LEVELS),
            *_counted((min(max(s, SHIFTS[0]), SHIFTS[-1]) for s in shifts), SHIFTS),
            *(i - stem for i in outputs),
            *(least[i] for i in outputs),
            *(most[i] for i in outputs),
            *(resampled[i] for i in outputs),
            np.mean(reach),
            max(reach),
            stem,
            len(nodes) - len(built),
            sum(len(orphans) for orphans in merged.values()),
            np.mean(levels[:half]),
            np.mean(levels[half:]),
            sum(_work(genotype, i) for i in inner),
        ],
        dtype=float,
    )


def _counted(values: Iterable[int], of: Iterable[int]) -> list[int]:
    found = list(values)
    return [found.count(value) for value in of]


def _depths(
    genotype: Genotype, built: tuple[int, ...]
) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
    """Of each block the fewest and the most blocks on a way to it, and the fewest levels by which
    such a way goes up and down.
    """
    nodes = genotype.nodes
    least: dict[int, int] = {}
    most: dict[int, int] = {}
    resampled: dict[int, int] = {}
    for i in built:
        before = nodes[i].parents
        least[i] = 1 + min((least[p] for p in before), default=0)
        most[i] = 1 + max((most[p] for p in before), default=0)
        steps = (resampled[p] + abs(nodes[i].level - nodes[p].level) for p in before)
        resampled[i] = min(steps, default=0)
    return least, most, resampled


def _work(genotype: Genotype, index: int) -> float:
    """Multiply-adds of a block's convolutions, up to a factor that all networks share."""
    node = genotype.nodes[index]
    width = genotype.widths[node.level]
    inner = 9 + 2 * EXPANSION[node.kind] if node.kind != RESIDUAL else 18
    return inner * (width / 64) ** 2 / 4 ** (node.level - 2)
