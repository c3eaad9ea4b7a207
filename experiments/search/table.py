"""A table of trained networks: a sample of the spaces, each trained by the proxy.

Some are trained with several seeds, which says how much of a reward is chance, and some by a longer
recipe as well, which says whether the proxy ranks networks as a longer training would. A run is an
ordinary run of the store; the table keeps of it what comparisons need, in one small file. A run
that the file or the store has is not made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from datamodules import open_data
from experiments.errors import UserError
from experiments.provenance import environment, trained_on
from experiments.recipe import Recipe, run_id
from experiments.search import stored
from experiments.search.candidates import LOST, settled
from experiments.search.places import TABLE
from experiments.search.proxy import base_recipe, with_genotype
from experiments.search.sampling import PAPERS, Network, costed, sample
from experiments.store import Store
from experiments.study import Cell

WAY_OUT = "restore the file, or remove it and let `spinenet search-table` make it again"
METRIC = "AP"

Part = Literal["proxy", "longer"]


@dataclass(frozen=True)
class TableConfig:
    """What a table holds: `samples` networks beside the paper's, trained by `recipe` in `profile`;
    of these `repeated` with `repeats` seeds, and `longer` by `long_recipe` in `long_profile` as
    well. The paper's networks are in all parts.
    """

    samples: int = 300
    repeated: int = 30
    repeats: int = 3
    longer: int = 50
    seed: int = 0
    recipe: str = "proxy"
    profile: str = "proxy"
    long_recipe: str = "retinanet"
    long_profile: str = "embedded"

    def __post_init__(self) -> None:
        for name in ("samples", "repeats"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} must be at least 1")
        for name in ("repeated", "longer"):
            if not 0 <= getattr(self, name) <= self.samples:
                raise UserError(
                    f"{name} {getattr(self, name)} must be in 0 to samples, {self.samples}"
                )

    @property
    def runs(self) -> int:
        """Of a table that is whole."""
        papers = len(PAPERS)
        again = (self.repeats - 1) * (self.repeated + papers)
        return self.samples + papers + again + self.longer + papers


@dataclass(frozen=True)
class Run:
    """One training of a network of the table, with its AP in percent. `seconds` are of one process,
    `train_seconds` of them without start, data and validation, and `processor` may be a GPU; where
    the loss was not finite, AP is 0 and no time is known.
    """

    network: str
    part: Part
    seed: int
    ap: float
    seconds: float
    train_seconds: float
    run_id: str
    diverged: bool = False
    commit: str = ""
    processor: str = ""


@dataclass(frozen=True)
class Table:
    """Networks, and the runs that there are of them. `environment` is that in which the file was
    written; `bases` has for each part the run that its recipe would be without another genotype,
    by which a part is known whose recipe or profile has changed.
    """

    config: TableConfig
    environment: dict[str, Any]
    networks: tuple[Network, ...]
    runs: tuple[Run, ...] = field(default=())
    bases: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = {one.hash for one in self.networks}
        for place, run in enumerate(self.runs):
            if run.network not in known:
                raise ValueError(f"runs.{place}.network: {run.network} is no network of the table")

    def ap(self, part: Part) -> dict[str, dict[int, float]]:
        """Network's hash → seed → AP, for networks that have a run of the part."""
        found: dict[str, dict[int, float]] = {}
        for run in self.runs:
            if run.part == part:
                found.setdefault(run.network, {})[run.seed] = run.ap
        return found


@dataclass(frozen=True)
class Entry:
    """A cell of the table, and which training of which network it is."""

    network: Network
    part: Part
    cell: Cell


@dataclass(frozen=True)
class Plan:
    """All that a table shall hold, in an order of which every beginning is a smaller table, and
    what the file has of it.
    """

    config: TableConfig
    networks: tuple[Network, ...]
    entries: tuple[Entry, ...]
    known: Mapping[str, Run]
    bases: Mapping[str, str]

    def missing(self, store: Store) -> list[Cell]:
        """Cells whose run neither the file nor the store has."""
        new = [e.cell for e in self.entries if e.cell.run_id not in self.known]
        return [cell for cell in new if settled(store, cell) is None]

    def table(self, store: Store, path: Path | None = None) -> Table:
        """What there is by now, in `path` too, where another process may have written meanwhile."""
        written = None if path is None else read(path)
        known = {**self.known, **({} if written is None else _by_id(written.runs))}
        found = (known.get(e.cell.run_id) or _run(e, store) for e in self.entries)
        runs = tuple(run for run in found if run is not None)
        return Table(self.config, environment(), self.networks, runs, dict(self.bases))


def plan(config: TableConfig, path: Path = TABLE, networks_of: Path | None = None) -> Plan:
    """What there is to do for a table, given its file if there is one. A new one has the networks
    of the table in `networks_of`, whatever those cost by its own proxy, or else a sample.

    Raises UserError where the file is of other settings, or of recipes that have changed since, and
    where `networks_of` has no table, or one of another sample.
    """
    before, bases = read(path), _bases(config)
    identities: dict[str, str] = {p: run_id(recipe, of) for p, (recipe, of) in bases.items()}
    if before is not None:
        stored.refuse_other_settings(path, before.config, config)
        for part, identity in identities.items():
            if before.bases.get(part) != identity:
                profile = config.profile if part == "proxy" else config.long_profile
                raise UserError(
                    f"{path}: bases.{part} is {before.bases.get(part)}, not {identity}: profile "
                    f"{profile!r} or what it sizes has changed since, so its runs are others; "
                    "restore it, or write another file with --out"
                )
    networks = before.networks if before else tuple(_networks(config, networks_of))
    known = _by_id(before.runs) if before else {}
    return Plan(config, networks, tuple(_entries(config, networks, bases)), known, identities)


def read(path: Path = TABLE) -> Table | None:
    """The table in a file, validated; None where there is none."""
    return stored.read(path, Table, WAY_OUT)


def asked(path: Path = TABLE) -> set[str]:
    """Ids of the runs that the table in a file asks for; none where there is no file."""
    before = read(path)
    if before is None:
        return set()
    bases = _bases(before.config)
    return {entry.cell.run_id for entry in _entries(before.config, before.networks, bases)}


def _networks(config: TableConfig, of: Path | None) -> list[Network]:
    base = base_recipe(config.recipe, config.profile)
    if of is None:
        return sample(config.samples, config.seed, base)
    other = read(of)
    if other is None:
        raise UserError(f"--networks {of}: there is no such table")
    for name in ("samples", "seed"):
        if (theirs := getattr(other.config, name)) != getattr(config, name):
            raise UserError(
                f"--networks {of}: {name} is {theirs}, not {getattr(config, name)}; give "
                f"--{name} {theirs}"
            )
    return costed(other.networks, base)


def _bases(config: TableConfig) -> dict[Part, tuple[Recipe, str]]:
    """The recipe of each part, and the fingerprint of its data."""
    recipes: dict[Part, Recipe] = {
        "proxy": base_recipe(config.recipe, config.profile),
        "longer": base_recipe(config.long_recipe, config.long_profile),
    }
    return {part: (r, open_data(r.data.source).fingerprint) for part, r in recipes.items()}


def _by_id(runs: Sequence[Run]) -> dict[str, Run]:
    return {run.run_id: run for run in runs}


def _entries(
    config: TableConfig,
    networks: Sequence[Network],
    bases: Mapping[Part, tuple[Recipe, str]],
) -> Iterator[Entry]:
    """Every training of each network in turn."""
    profiles = {"proxy": config.profile, "longer": config.long_profile}
    sampled = networks[len(PAPERS) :]
    repeated, longer = (_chosen(n, sampled) for n in (config.repeated, config.longer))
    for place, network in enumerate(networks, start=-len(PAPERS)):
        seeds = config.repeats if place < 0 or place in repeated else 1
        wanted: list[tuple[Part, int]] = [("proxy", seed) for seed in range(seeds)]
        wanted += [("longer", 0)] if place < 0 or place in longer else []
        for part, seed in wanted:
            base, fingerprint = bases[part]
            recipe = with_genotype(base, network.genotype, seed)
            identity = run_id(recipe, fingerprint)
            cell = Cell(f"table-{part}", profiles[part], network.label, seed, recipe, identity)
            yield Entry(network, part, cell)


def _chosen(number: int, networks: Sequence[Network]) -> set[int]:
    """The places of so many networks, of each space its share: every so many of those of a space,
    whose order is by chance already. Of all of them every so many would meet the same spaces again
    and again, since these take turns.
    """
    places = sorted(range(len(networks)), key=lambda place: networks[place].space)
    return {places[(2 * i + 1) * len(places) // (2 * number)] for i in range(number)}


def _run(entry: Entry, store: Store) -> Run | None:
    """What the table keeps of a run; None while its worth is not known."""
    record = settled(store, entry.cell)
    if record is None:
        return None
    result, cell = record.result, entry.cell
    if result is None:
        known = (entry.network.hash, entry.part, cell.seed)
        return Run(*known, LOST, 0.0, 0.0, cell.run_id, diverged=True)
    return Run(
        network=entry.network.hash,
        part=entry.part,
        seed=cell.seed,
        ap=round(result.metrics[METRIC], 4),
        seconds=round(result.seconds, 2),
        train_seconds=round(result.train_seconds, 2),
        run_id=result.run_id,
        commit=str(result.environment["commit"])[:10],
        processor=trained_on(result.environment),
    )
