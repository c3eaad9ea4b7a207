"""A name for a network that does not depend on how it is written down.

Two genotypes are the same network when their graphs are isomorphic: blocks may be listed in another
order, and blocks from which no output can be reached are not built. Colour refinement (Weisfeiler
and Leman) in both directions along the edges, then of each choice that it leaves open in turn, as
in the search for a canonical form: the smallest outcome is the same for all ways to write a graph.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from typing import Any

from spinenet.genotype import Genotype

Edge = tuple[int, int, str]  # from, to, and whether it is resampled or merged as an orphan
Colours = dict[int, str]


def graph_hash(genotype: Genotype) -> str:
    """Sixteen hexadecimal digits, equal for two genotypes just when they are the same network."""
    labels, edges = _graph(genotype)
    start = {node: _digest(label) for node, label in labels.items()}
    widths = sorted(genotype.widths.items())
    return _digest([widths, genotype.stem_kind, _canonical(start, edges)])[:16]


def _graph(genotype: Genotype) -> tuple[dict[int, Any], list[Edge]]:
    """Labels of the blocks that are built, and the edges between them."""
    nodes, merged, live = genotype.nodes, genotype.merged(), genotype.built()
    stem = len(genotype.stem)
    labels = {
        i: [nodes[i].level, nodes[i].kind, nodes[i].is_output, i if i < stem else -1] for i in live
    }
    edges = [(p, i, "parent") for i in live if i >= stem for p in nodes[i].parents]
    edges += [(p, i, "merged") for i in live for p in merged.get(i, ())]
    return labels, edges


def _canonical(colours: Colours, edges: list[Edge]) -> str:
    """The smallest description that any way to tell equal colours apart leads to."""
    colours = _refined(colours, edges)
    counts = Counter(colours.values())
    shared = sorted(colour for colour, count in counts.items() if count > 1)
    if not shared:
        named = sorted([colours[a], colours[b], kind] for a, b, kind in edges)
        return _digest([sorted(colours.values()), named])
    alike = [node for node, colour in colours.items() if colour == shared[0]]
    return min(
        _canonical({**colours, node: _digest([shared[0], "told apart"])}, edges) for node in alike
    )


def _refined(colours: Colours, edges: list[Edge]) -> Colours:
    """Colours that also say what each node's neighbours are, theirs, and so on."""
    while True:
        around: dict[int, list[list[str]]] = defaultdict(list)
        for a, b, kind in edges:
            around[b].append(["from", kind, colours[a]])
            around[a].append(["to", kind, colours[b]])
        finer = {node: _digest([colour, sorted(around[node])]) for node, colour in colours.items()}
        if len(set(finer.values())) == len(set(colours.values())):
            return finer
        colours = finer


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
