"""The site: a path in, a page out. Nothing but these paths exists, and none of them is looked up on
disk as it was asked for.

    index.html  ledger.html  models.html  runs.html  searches.html
    study/<study>.html  run/<run id>.html  run/<run id>-<picture>.jpg  run/<run id>.svg
    model/<name>.html  model/<genotype>.svg  search/<name>.html  search/<name>.svg
    static/<file>

and, where pages are served, compare/<run id>-<run id>.html for any two complete runs.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from experiments.counting import full_size_counts
from experiments.dashboard import (
    compare_page,
    model_page,
    pages,
    run_page,
    search_page,
    study_page,
)
from experiments.dashboard.evidence import Unavailable
from experiments.dashboard.render import render
from experiments.dashboard.searches import Searches
from experiments.dashboard.view import Basis, View
from experiments.ledger.checkpoints import CheckpointScores
from experiments.snapshot import Lookout
from experiments.study_grids import StudyGrids
from spinenet import genotype
from spinenet.genotype import Genotype

HTML, SVG = "text/html; charset=utf-8", "image/svg+xml"
STATIC = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "icon.svg": SVG,
}
GENERAL = {
    "index": pages.overview,
    "ledger": pages.ledger,
    "models": pages.models,
    "runs": pages.runs,
    "searches": search_page.searches,
}
PICTURE = re.compile(r"(?P<run>[0-9a-f]{12})-(?P<image>\d{1,18})\.jpg")


@dataclass(frozen=True)
class Page:
    """What a path answers with."""

    body: bytes
    content_type: str = HTML


class Site:
    """Pages of the runs under some folders, and of the searches under others. `is_live` pages
    listen for changes.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        study_files: Sequence[str] = (),
        *,
        searches: Sequence[Path] = (),
        scores: Sequence[CheckpointScores] = (),
        is_live: bool = False,
        on_count: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.is_live = is_live
        self.lookout, self.grids = Lookout(roots, searches), StudyGrids(study_files)
        self.counts = full_size_counts(self.grids.studies, on_count)
        files = self.lookout.files
        self._basis = Basis(self.grids, self.counts, scores, files, Searches())
        self._lock = threading.RLock()  # pages share what was read; two at once gain nothing
        self._view: View | None = None

    def view(self) -> View:
        """The store as it is now; what was concluded is kept until a run's state changes."""
        with self._lock:
            snapshot = self.lookout.look()
            if self._view is None or self._view.snapshot.version != snapshot.version:
                self._view = View(snapshot, self._basis)
            self._view.snapshot = snapshot
            return self._view

    def replay(self) -> None:
        """Take in what searches have found, so that no page has to wait for a long one."""
        with self._lock:
            self.view().searches  # noqa: B018

    def page(self, path: str) -> Page | None:
        """What is at `path`, such as `run/b6e7c85b642f.html`; None if nothing is."""
        folder, _, name = path.rpartition("/")
        if folder == "static":
            return _static(name)
        with self._lock:
            if folder == "run" and (found := PICTURE.fullmatch(name)):
                return _picture(self.view(), found["run"], int(found["image"]))
            stem, _, kind = name.rpartition(".")
            if kind == "svg":
                drawn = _drawn(self.view(), folder, stem)
                return Page(model_page.drawing(*drawn), SVG) if drawn else None
            if kind != "html":
                return None
            view = self.view()
            content = self._content(view, folder, stem)
            return None if content is None else self._rendered(view, path, content)

    def missing(self, path: str) -> Page:
        """What to say where there is nothing."""
        with self._lock:
            return self._rendered(self.view(), "", ("missing.html", {"asked": path}))

    def news(self) -> tuple[str, int]:
        """What goes on now, as the part of every page that changes by the second; and a number
        that changes when a run's state does.
        """
        with self._lock:
            view = self.view()
            return render("running.html", _going_on(view) | {"root": "/"}), view.snapshot.version

    def paths(self) -> Iterator[str]:
        """Every page and file there is."""
        view = self.view()
        yield from (f"{name}.html" for name in GENERAL)
        yield from (f"static/{name}" for name in STATIC)
        yield from (f"study/{name}.html" for name in self.grids.studies)
        yield from (f"model/{name}.html" for name in pages.model_names())
        yield from (f"model/{name}.svg" for name in genotype.shipped())
        for run in view.snapshot.by_name:
            yield f"run/{run.run_id}.html"
            if run_page.is_exported_drawn(view, run):
                yield f"run/{run.run_id}.svg"
            yield from (f"run/{run.run_id}-{i}.jpg" for i in run_page.picture_ids(view, run))
        for name, search in view.searches.items():
            yield f"search/{name}.html"
            if search.genotype:
                yield f"search/{name}.svg"

    def _content(self, view: View, folder: str, stem: str) -> pages.Content | None:
        match folder:
            case "" if stem in GENERAL:
                return GENERAL[stem](view)
            case "study" if stem in self.grids.studies:
                return study_page.study(view, self.grids.studies[stem])
            case "run" if stem in view.snapshot.runs:
                return run_page.run(view, view.snapshot.runs[stem])
            case "model" if stem in pages.model_names():
                return model_page.model(stem)
            case "compare" if self.is_live and (found := compare_page.pair(view, stem)):
                return compare_page.compare(view, *found)
            case "search" if stem in view.searches:
                return search_page.search(view, view.searches[stem])
        return None

    def _rendered(self, view: View, path: str, content: pages.Content) -> Page:
        template, given = content
        shared: dict[str, Any] = {
            "path": path,
            "root": "/" if self.is_live else "../" * path.count("/"),
            "is_live": self.is_live,
            "study_titles": {slug: study.title for slug, study in self.grids.studies.items()},
        }
        return Page(render(template, shared | _going_on(view) | given).encode())


def _going_on(view: View) -> dict[str, Any]:
    return {"running": view.running(), "under_way": view.under_way()}


def _drawn(view: View, folder: str, stem: str) -> tuple[Genotype, ...]:
    """The network whose drawing has this path, or the two whose difference has; else none."""
    found: Genotype | None = None
    match folder:
        case "model" if stem in genotype.shipped():
            found = genotype.load(stem)
        case "search" if stem in view.searches:
            found = view.searches[stem].genotype
        case "run" if stem in view.snapshot.runs:
            found = run_page.own_genotype(view.snapshot.runs[stem])
        case "compare" if runs := compare_page.pair(view, stem):
            return compare_page.networks(*runs) or ()
    return () if found is None else (found,)


def _picture(view: View, run_id: str, image_id: int) -> Page | None:
    run = view.snapshot.runs.get(run_id)
    if run is None or run.record.result is None:
        return None
    try:
        return Page(view.evidence.jpeg(run.record.result, image_id), "image/jpeg")
    except Unavailable:
        return None


def _static(name: str) -> Page | None:
    if name not in STATIC:
        return None
    return Page((files(__package__) / "static" / name).read_bytes(), STATIC[name])
