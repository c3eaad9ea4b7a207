"""Searches: settings in folders of their own, candidates among the store's runs.

A search is replayed as `spinenet search-report` replays it. What was replayed is kept, so a run
that ends costs one step of the controller; all is replayed anew where the settings changed, or
where a run that the controller was told of is not what it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from datamodules import DataError
from experiments.dashboard.outlook import FEWEST, Outlook, dealt
from experiments.errors import UserError
from experiments.search.asynchronous import opened
from experiments.search.candidates import Candidate, RunMissingError, Search
from experiments.search.config import SearchConfig, read_config
from experiments.search.finals import verdicts, winner
from experiments.search.report import best_so_far, front, standings
from experiments.snapshot import Run, Snapshot
from experiments.store import Result
from experiments.study_grids import slug
from spinenet.genotype import Genotype

OF_CONTROLLER = ("controller", "seed", "samples", "lag")
USUAL = asdict(SearchConfig())


@dataclass(frozen=True)
class Sample:
    """A candidate with what became of it. `state` is its run's, or
    `waiting`. A network that was asked for before, as sample `first`, is not run again. `reward` is
    none until the controller is told, and so is `told`, its place in the order of telling, from 1.
    """

    candidate: Candidate
    state: str
    reward: float | None
    told: int | None
    run: Run | None
    first: int | None

    @property
    def result(self) -> Result | None:
        """Of its run, once that is complete."""
        return None if self.run is None else self.run.record.result

    @property
    def levels(self) -> str:
        """Of the blocks in order, the stem left out."""
        return "".join(str(block.level) for block in self.candidate.genotype.blocks)


@dataclass(frozen=True)
class Group:
    """What searches share whose rewards can be compared: all settings but those of a controller."""

    space: str
    profile: str
    reward: str
    others: tuple[tuple[str, Any], ...]

    @property
    def title(self) -> str:
        """For people: space, profile, and what is not as usual."""
        unusual = [f"{name} {value}" for name, value in self.others if value != USUAL[name]]
        return ", ".join([self.space, f"profile {self.profile}", *unusual])


def group_of(config: SearchConfig) -> Group:
    """Which searches this one can be set beside."""
    shared = {k: v for k, v in asdict(config).items() if k not in OF_CONTROLLER}
    space, profile, reward = (shared.pop(name) for name in ("space", "profile", "reward"))
    return Group(space, profile, reward, tuple(shared.items()))


class Found:
    """One search as a snapshot has it. `path` names its page; `finals` has by sample the mean
    reward over other seeds of those trained again.
    """

    def __init__(self, name: str, path: str, search: Search, snapshot: Snapshot) -> None:
        self.name, self.path, self.config = name, path, search.config
        self.tried = tuple(search.tried)
        self.standings = standings(self.tried)
        self.finals = verdicts(search, self.standings)
        self.samples = _samples(search, snapshot.runs)

    @cached_property
    def trained(self) -> list[Sample]:
        """Samples whose networks were trained, each network once, the best first."""
        return [self.samples[one.number] for one in self.standings]

    @cached_property
    def front(self) -> list[Sample]:
        """Those of them that no cheaper one beats, the cheapest first."""
        return [self.samples[one.number] for one in front(self.standings)]

    def is_on_front(self, sample: Sample) -> bool:
        """Whether it is one of those, under the number that it was first asked for."""
        return any(sample is one for one in self.front)

    @property
    def best(self) -> Sample | None:
        """The one with the largest reward so far."""
        return next(iter(self.trained), None)

    @property
    def chosen(self) -> Sample | None:
        """The one whose network one would take, as `spinenet search-report --export` does."""
        if not self.standings:
            return None
        return self.samples[winner(self.standings, self.finals).number]

    @cached_property
    def best_so_far(self) -> list[float]:
        """The largest reward after each sample, as they were told."""
        return best_so_far(self.tried)

    @property
    def genotype(self) -> Genotype | None:
        """The chosen network, under the search's name."""
        chosen = self.chosen
        return None if chosen is None else replace(chosen.candidate.genotype, name=self.name)

    @cached_property
    def seconds(self) -> list[float]:
        """Of each run."""
        return [sample.result.all_seconds for sample in self.trained if sample.result]

    def outlook(self, snapshot: Snapshot) -> Outlook:
        """How far it is, and how long it still takes if what is left is as what was tried."""
        under_way = [s.run.run_id for s in self.samples if s.run and s.state == "running"]
        now = [snapshot.runs[run_id].progress for run_id in dict.fromkeys(under_way)]
        workers, share = max(1, len(now)), len(self.tried) / self.config.samples
        if not self.seconds:
            return Outlook(share, None, workers, bool(now))
        mean = fmean(self.seconds)
        begun = [mean * (1 - (progress.share if progress else 0.0)) for progress in now]
        trained = len(self.seconds) / len(self.tried)
        waiting = round(trained * (self.config.samples - len(self.tried) - len(now)))
        off = pstdev(self.seconds) / mean if len(self.seconds) >= FEWEST else None
        return Outlook(share, dealt(begun, [mean] * waiting, workers), workers, bool(now), off)


def _samples(search: Search, runs: Mapping[str, Run]) -> list[Sample]:
    """Every candidate that was asked for, in order."""
    numbers: dict[str, int] = {}
    rewards = {
        tried.candidate.number: (tried.reward, told)
        for told, tried in enumerate(search.tried, start=1)
    }
    made = []
    for candidate in search.asked:
        number, cell = candidate.number, candidate.cell
        reward, told = rewards.get(number, (None, None))
        first, run = numbers.setdefault(cell.run_id, number), runs.get(cell.run_id)
        state = "waiting" if run is None else str(run.state)
        asked_before = None if first == number else first
        made.append(Sample(candidate, state, reward, told, run, asked_before))
    return made


class Searches:
    """Every search whose settings a snapshot has seen."""

    def __init__(self) -> None:
        self._kept: dict[Path, Search] = {}

    def look(self, snapshot: Snapshot) -> tuple[dict[str, Found], dict[str, str]]:
        """Searches by their page's name; and why others cannot be read, by their own."""
        found: dict[str, Found] = {}
        damaged: dict[str, str] = {}
        for folder, path in _named(snapshot.searches):
            try:
                search = self._replayed(folder, snapshot)
            except (UserError, DataError) as error:
                damaged[folder.name] = str(error).replace(f"{folder}/", "")
            else:
                found[path] = Found(folder.name, path, search, snapshot)
        return found, damaged

    def _replayed(self, folder: Path, snapshot: Snapshot) -> Search:
        config, kept = read_config(folder), self._kept.get(folder)
        if kept is None or kept.config != config or not _holds(kept, snapshot):
            kept = opened(folder, snapshot)
        kept.store = snapshot
        with suppress(RunMissingError):  # it ended after the snapshot was taken
            kept.replay()
        self._kept[folder] = kept
        return kept


def _holds(search: Search, snapshot: Snapshot) -> bool:
    """Whether every result that the controller was told of is the store's."""
    told = {t.candidate.cell.run_id: t.result for t in search.tried}
    records = snapshot.records(told)
    return all(records[run_id].result is result for run_id, result in told.items())


def _named(folders: Iterable[Path]) -> list[tuple[Path, str]]:
    """Folders with the names of their pages; two that would share one are numbered."""
    named: list[tuple[Path, str]] = []
    taken: set[str] = set()
    for folder in folders:
        stem = name = slug(folder.name) or "search"
        numbers = count(2)
        while name.lower() in taken:  # some file systems do not tell case
            name = f"{stem}-{next(numbers)}"
        taken.add(name.lower())
        named.append((folder, name))
    return named


def grouped(found: Iterable[Found]) -> dict[Group, list[Found]]:
    """Searches that can be compared, together."""
    groups: dict[Group, list[Found]] = defaultdict(list)
    for one in found:
        groups[group_of(one.config)].append(one)
    return groups
