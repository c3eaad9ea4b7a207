"""Which networks a table holds: fair samples of the spaces, spread over what networks cost.

Of each space several times as many networks are drawn as are needed and sorted by multiply-adds;
one is taken of each group of neighbours. So every network of a space is as likely as any other, and
no cost is left out by chance. The paper's own networks join them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from experiments.counting import as_trained, count_all, free_cores
from experiments.recipe import Recipe
from experiments.search.proxy import with_genotype
from spinenet import genotype as genotypes
from spinenet.genotype import Genotype
from spinenet.search.graph_hash import graph_hash
from spinenet.search.space import Choices, space

# Half of the networks are of the space that the comparison of controllers searches.
SHARES = {
    "spinenet": 0.5,
    "r0-sp53": 0.2,
    "r14-sp39": 0.1,
    "r23-sp30": 0.05,
    "r35-sp18": 0.05,
    "hourglass": 0.05,
    "fish": 0.05,
}
PAPERS = {"spinenet-49": "spinenet", "r0-sp53": "r0-sp53", "r23-sp30": "r23-sp30"}
GROUP = 3  # networks drawn for one that is taken


@dataclass(frozen=True)
class Network:
    """A network of a table: its row of choices in a space, and what it costs as the proxy trains
    it. `name` is that of a network of the paper, and empty for a sample.

    Raises ValueError where the row is another network than the hash says.
    """

    space: str
    choices: Choices
    hash: str
    macs_m: float
    params_m: float
    name: str = ""

    def __post_init__(self) -> None:
        if (found := graph_hash(self.genotype)) != self.hash:
            raise ValueError(f"choices: they are the network {found}, not {self.hash}")

    @property
    def label(self) -> str:
        """A short name."""
        return self.name or f"{self.space}-{self.hash[:8]}"

    @property
    def genotype(self) -> Genotype:
        """The network itself. Raises GenotypeError for a row of another space."""
        return space(self.space).decode(self.choices, self.label)


def sizes(samples: int) -> dict[str, int]:
    """How many networks of each space, the largest remainders rounded up."""
    exact = {name: samples * share for name, share in SHARES.items()}
    found = {name: int(part) for name, part in exact.items()}
    by_remainder = sorted(exact, key=lambda name: found[name] - exact[name])
    for name in by_remainder[: samples - sum(found.values())]:
        found[name] += 1
    return found


def sample(samples: int, seed: int, base: Recipe) -> list[Network]:
    """The paper's networks, then so many of the spaces, in an order of which every beginning is
    like the whole.
    """
    drawn = {
        name: _drawn(name, number * GROUP, np.random.default_rng((seed, place)))
        for place, (name, number) in enumerate(sizes(samples).items())
    }
    papers = [
        _network(where, space(where).encode(genotypes.load(name)), name)
        for name, where in PAPERS.items()
    ]
    everything = [*papers, *(one for some in drawn.values() for one in some)]
    priced = iter(costed(everything, base))
    first = list(islice(priced, len(papers)))
    rng = np.random.default_rng((seed, len(drawn)))
    chosen = [
        pair for some in drawn.values() for pair in _spread(list(islice(priced, len(some))), rng)
    ]
    return first + [one for _, one in sorted(chosen, key=lambda pair: pair[0])]


def _drawn(name: str, number: int, rng: np.random.Generator) -> list[Network]:
    """Different networks of a space, every one as likely as any other."""
    searched = space(name)
    found: dict[str, Network] = {}
    while len(found) < number:
        one = _network(name, searched.sample(rng))
        found.setdefault(one.hash, one)
    return list(found.values())


def _network(where: str, choices: Choices, name: str = "") -> Network:
    return Network(where, choices, graph_hash(space(where).decode(choices)), 0.0, 0.0, name)


def costed(networks: Sequence[Network], base: Recipe) -> list[Network]:
    """The networks with what they cost as a recipe trains them."""
    jobs = [as_trained(with_genotype(base, one.genotype, 0)) for one in networks]
    found = count_all(jobs, free_cores())
    return [
        replace(one, macs_m=costs.macs_b * 1e3, params_m=costs.params_m)
        for one, costs in zip(networks, found, strict=True)
    ]


def _spread(networks: list[Network], rng: np.random.Generator) -> list[tuple[float, Network]]:
    """One of each group of neighbours in cost, with its place in the order of all: from 0 to 1,
    at random within the space.
    """
    networks = sorted(networks, key=lambda one: one.macs_m)
    groups = [networks[i : i + GROUP] for i in range(0, len(networks), GROUP)]
    places = (rng.permutation(len(groups)) + 0.5) / max(1, len(groups))
    return [(float(p), g[rng.integers(len(g))]) for p, g in zip(places, groups, strict=True)]
