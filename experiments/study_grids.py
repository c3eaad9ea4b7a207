"""Which runs a study asks for, at each profile and on each data set that the store has runs of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from pydantic import TypeAdapter, ValidationError

from datamodules import DataError, DataSourceConfig
from experiments.compose import Tree
from experiments.errors import UserError
from experiments.inspection import readable_difference
from experiments.recipe import to_tree
from experiments.snapshot import Snapshot
from experiments.study import MOST_SEEDS, Cell, Profile, Selection, Study, cells, needs_data
from experiments.study_file import load_profile, load_study, shipped_profiles, shipped_studies

Changed = dict[str, tuple[Any, Any]]  # a recipe's key → (there, here)
OwnData = tuple[DataSourceConfig, str]  # a user's data set and its fingerprint
FIRST = "ladder"  # a run that several studies share is named as in this one
USUAL = "embedded"  # the profile that a study without runs is shown at


@dataclass(frozen=True)
class StudyGrid:
    """A study at a profile, on the profile's data or on a user's: its cells, seed by seed."""

    study: Study
    profile: Profile
    own_data: OwnData | None
    cells: tuple[Cell, ...]

    @property
    def source(self) -> DataSourceConfig | None:
        """The user's data, if it is on them."""
        return None if self.own_data is None else self.own_data[0]

    @property
    def anchor(self) -> str:
        """Its place on the study's page."""
        return slug(self.title)

    @property
    def path(self) -> str:
        """Its study's page and its place there, below `study/`."""
        return f"{slug(self.study.id)}.html#{self.anchor}"

    @property
    def title(self) -> str:
        """The profile, and the data where they are not its own."""
        if self.own_data is None:
            return self.profile.id
        source, fingerprint = self.own_data
        root = getattr(source, "root", "")
        return f"{self.profile.id} on {source.kind} {root}, data {fingerprint[:8]}"

    def asked(self, snapshot: Snapshot) -> list[Cell]:
        """The cells of as many seeds as the profile asks for, or as were begun."""
        begun = [cell.seed for cell in self.cells if cell.run_id in snapshot.runs]
        seeds = max(self.profile.seeds, 1 + max(begun, default=0))
        return [cell for cell in self.cells if cell.seed < seeds]

    @cached_property
    def by_run(self) -> dict[str, Cell]:
        """Cells by the run that fills them."""
        return {cell.run_id: cell for cell in self.cells}

    @cached_property
    def trees(self) -> dict[str, Tree]:
        """Each variant's recipe with the first seed, as a tree."""
        return {c.variant: to_tree(c.recipe) for c in self.cells if c.seed == 0}

    def has_runs(self, snapshot: Snapshot) -> bool:
        """Whether any of its cells was ever begun."""
        return any(cell.run_id in snapshot.runs for cell in self.cells)


class StudyGrids:
    """Every grid of the shipped studies and of files that a user named."""

    def __init__(self, study_files: Sequence[str] = ()) -> None:
        shipped, own = _shipped(), [load_study(name) for name in study_files]
        every = [*shipped.studies, *own]
        self.studies = {slug(study.id): study for study in every}
        if len(self.studies) < len(every):
            raise UserError(
                f"--study {', '.join(study_files)}: two studies have one name; rename a file"
            )
        self.profiles = shipped.profiles
        usual = [*shipped.grids, *_grids(own, self.profiles, None)]
        self._on: dict[OwnData | None, list[StudyGrid]] = {None: usual}
        self._sources_of: tuple[int | None, list[OwnData]] = (None, [])
        self._usual = {(g.study.id, g.profile.id): g for g in usual}

    def all(self, snapshot: Snapshot) -> list[StudyGrid]:
        """StudyGrids on the profiles' own data, then on each user's data set among the results."""
        if snapshot.version != self._sources_of[0]:
            self._sources_of = (snapshot.version, _sources(snapshot))
        sources = (None, *self._sources_of[1])
        return [grid for source in sources for grid in self._grids_on(source)]

    def of_study(self, study: Study, snapshot: Snapshot) -> list[StudyGrid]:
        """The study's grids that have runs; without any, the one of the usual profile."""
        grids = [grid for grid in self.all(snapshot) if grid.study is study]
        usual = next(g for g in grids if g.profile.id == USUAL)
        return [grid for grid in grids if grid.has_runs(snapshot)] or [usual]

    def cells_of(self, study: Study, profile: Profile) -> tuple[Cell, ...]:
        """All cells on the profile's own data; none where it brings none."""
        grid = self._usual.get((study.id, profile.id))
        return () if grid is None else grid.cells

    def uses(self, run_id: str, snapshot: Snapshot) -> list[tuple[StudyGrid, Cell]]:
        """The cells that this run fills."""
        found = ((grid, grid.by_run.get(run_id)) for grid in self.all(snapshot))
        return [(grid, cell) for grid, cell in found if cell is not None]

    def nearest(self, tree: Tree, snapshot: Snapshot) -> tuple[str, Changed] | None:
        """The cell whose recipe differs in the fewest keys, for people, and the difference: a run
        of no study is most often one of a study with something set otherwise.
        """
        best: tuple[str, Changed] | None = None
        for grid in self.all(snapshot):
            for variant, theirs in grid.trees.items():
                if theirs["model"]["kind"] == tree["model"]["kind"]:
                    changed = readable_difference({**tree, "seed": theirs["seed"]}, theirs)
                    if best is None or len(changed) < len(best[1]):
                        label = grid.study.variants[variant].label
                        best = (f"{label} of {grid.study.id}, {grid.title}", changed)
        return best

    def _grids_on(self, source: OwnData | None) -> list[StudyGrid]:
        if source not in self._on:
            self._on[source] = _grids(self.studies.values(), self.profiles, source)
        return self._on[source]


@dataclass(frozen=True)
class _Shipped:
    studies: list[Study]
    profiles: list[Profile]
    grids: list[StudyGrid]


@cache  # the same for every site, and takes seconds
def _shipped() -> _Shipped:
    """What comes with this package, the study first that names what several share."""
    studies = [load_study(name) for name in dict.fromkeys([FIRST, *shipped_studies()])]
    profiles = [load_profile(name) for name in shipped_profiles()]
    return _Shipped(studies, profiles, _grids(studies, profiles, None))


def _grids(
    studies: Iterable[Study], profiles: Sequence[Profile], given: OwnData | None
) -> list[StudyGrid]:
    made = (_grid(study, profile, given) for study in studies for profile in profiles)
    return [grid for grid in made if grid is not None]


def _grid(study: Study, profile: Profile, given: OwnData | None) -> StudyGrid | None:
    source = None if given is None else given[0]
    selection = Selection(profile=profile, seeds=MOST_SEEDS, source=source)
    if needs_data(study, selection):
        return None  # its runs are found by the data that they were made of
    try:
        found = cells(study, selection, dict([given] if given else []))
        return StudyGrid(study, profile, given, tuple(found))
    except (UserError, DataError):
        if given is None:
            raise
        return None  # a classification study has no cells on boxes


def _sources(snapshot: Snapshot) -> list[OwnData]:
    """The users' data sets that complete runs name, in the order of their descriptions; one that is
    no more is known by its results.
    """
    found: dict[str, OwnData] = {}
    for result in snapshot.results():
        tree = result.recipe["data"]["source"]
        key = f"{tree} {result.data_fingerprint}"
        if "root" in tree and key not in found:
            with suppress(ValidationError):
                source = TypeAdapter(DataSourceConfig).validate_python(tree)
                found[key] = (source, result.data_fingerprint)
    return [found[key] for key in sorted(found)]


def slug(text: str) -> str:
    """A name as a file's or an anchor's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")
