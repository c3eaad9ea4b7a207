"""A run's page: what it is, what came out, what it found, and what it said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.dashboard.charts import Chart, line_chart
from experiments.dashboard.curves import mean_line
from experiments.dashboard.evidence import Shown, Unavailable
from experiments.dashboard.pages import Content, model_names
from experiments.dashboard.view import View
from experiments.inspection import complete_tree, readable_difference
from experiments.recipe import flatten, to_tree
from experiments.scoring import OCTAVES
from experiments.snapshot import Run
from experiments.store import Result
from experiments.study import Cell, Variant, variant_tree, with_source
from experiments.study_grids import StudyGrid
from spinenet.genotype import Genotype, GenotypeError, from_mapping, load, shipped

CURVES = (("loss/total", "loss"), ("val/AP", "AP"), ("val/top1", "top1"))  # of history.jsonl
LOG_LINES = 60
LOG_BYTES = 64 * 1024  # of a log's end; enough for as many lines


@dataclass(frozen=True)
class Difference:
    """What a recipe changes, and against what."""

    against: str
    changed: Mapping[str, tuple[Any, Any]]


def run(view: View, run: Run) -> Content:
    """One run in whatever state."""
    result, uses = run.record.result, view.uses(run)
    shown, why_no_pictures = _pictures(view, run)
    metrics = result.metrics if result else {}
    return "run.html", {
        "run": run,
        "label": view.label(run),
        "result": result,
        "uses": uses,
        "paper": _paper(uses),
        "difference": _difference(view, run, uses),
        "samples": view.samples(run),
        "model": _model(result),
        "genotype": own_genotype(run),
        "is_exported_drawn": is_exported_drawn(view, run),
        "metrics": {k: v for k, v in metrics.items() if k.removeprefix("AP") not in OCTAVES},
        "octaves": [(_range(n), metrics[f"AP{n}"]) for n in OCTAVES if f"AP{n}" in metrics],
        "curves": _curves(view, run),
        "precision": _precision(view, run),
        "pictures": shown,
        "no_pictures": why_no_pictures,
        "environment": flatten(result.environment) if result else {},
        "log": tail(run.folder / "train.log"),
        "output": [] if result else tail(run.folder / "output.log"),
    }


def _paper(uses: list[tuple[StudyGrid, Cell]]) -> dict[str, float]:
    """The printed values of the run's variant; of the first study that has one."""
    found: dict[str, float] = {}
    for grid, cell in uses:
        for metric, value in grid.study.variants[cell.variant].paper.items():
            found.setdefault(metric, value.value)
    return found


def _difference(view: View, run: Run, uses: list[tuple[StudyGrid, Cell]]) -> Difference | None:
    """Against the variant that this one starts from, at the same profile and data; for a run of no
    study against the nearest cell of any.
    """
    if not uses and view.samples(run):
        return None  # a network of its own is all that differs, and that is drawn
    if not uses:
        result = run.record.result
        found = view.grids.nearest(complete_tree(result.recipe), view.snapshot) if result else None
        return Difference(*found) if found else None
    grid, cell = uses[0]
    variant = grid.study.variants[cell.variant]
    origin = grid.study.variants[variant.start] if variant.start else Variant(id="base")
    tree = with_source(variant_tree(grid.study, origin, grid.profile), grid.source)
    name = origin.label if variant.start else f"the base of {grid.study.id}"
    mine = {**to_tree(cell.recipe), "seed": tree["seed"]}
    return Difference(f"{name}, {grid.title}", readable_difference(mine, tree))


def _model(result: Result | None) -> str:
    """The page of the run's architecture, if it has one."""
    if result is None:
        return ""
    backbone = result.recipe["model"]["backbone"]
    if backbone.get("kind") == "resnet-fpn":
        name = f"r{backbone.get('depth')}-{backbone.get('neck', 'fpn')}"
        return name if name in model_names() else ""
    found = genotype_of(result)
    return found.name if found is not None and _is_shipped(found) else ""


def own_genotype(run: Run) -> Genotype | None:
    """The run's genotype where it is none of those that have a page of their own."""
    found = genotype_of(run.record.result) if run.record.result else None
    return None if found is None or _is_shipped(found) else found


def is_exported_drawn(view: View, run: Run) -> bool:
    """Whether an export has a drawing of the run's own network: of a search only those that no
    cheaper one beats, as each takes a second.
    """
    samples = view.samples(run)
    is_wanted = not samples or any(search.is_on_front(sample) for search, sample in samples)
    return is_wanted and own_genotype(run) is not None


def genotype_of(result: Result) -> Genotype | None:
    """The network that a run trained, if it has a genotype that today's code can read."""
    try:
        return from_mapping(result.recipe["model"]["backbone"]["genotype"])
    except (GenotypeError, LookupError, TypeError, ValueError):
        return None  # a ResNet has none, and an old recipe may have one of another form


def _is_shipped(genotype: Genotype) -> bool:
    return genotype.name in shipped() and load(genotype.name).content() == genotype.content()


def _range(octave: str) -> str:
    low, _, high = octave.removeprefix("_").partition("to")
    return f"{low} to {high} px"


def _curves(view: View, run: Run) -> list[Chart]:
    """The loss, and what validations said where there was more than one."""
    charts = []
    for key, name in CURVES:
        line = mean_line(name, [view.history.of(run).get(key, [])])
        if line is not None and len(line.points) > 1:
            charts.append(line_chart(f"{name} over training", [line], "step", name))
    return charts


def _precision(view: View, run: Run) -> Chart | None:
    if run.record.result is None:
        return None
    try:
        lines = view.evidence.curves(run, run.record.result)
    except Unavailable:
        return None  # said where the pictures would be
    title = "Precision over recall, mean of the classes"
    return line_chart(title, lines, "recall, %", "precision, %", from_zero=True) if lines else None


def picture_ids(view: View, run: Run) -> list[int]:
    """The pictures that its page shows."""
    return [picture.image_id for picture in _pictures(view, run)[0]]


def _pictures(view: View, run: Run) -> tuple[list[Shown], str]:
    """Pictures, or why there are none."""
    if run.record.result is None:
        return [], ""
    try:
        return view.evidence.pictures(run, run.record.result), ""
    except Unavailable as why:
        return [], str(why)


def tail(path: Path) -> list[str]:
    """The last lines of a log; none where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - LOG_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-LOG_LINES:]
