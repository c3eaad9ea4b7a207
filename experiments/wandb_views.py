"""W&B's views of a study, made by wandb-workspaces: a workspace to look around in, and a report to
read and share.

Both show exactly the study's grid, its runs by their ids, with seeds of a variant drawn together.
The report's tables are those of `spinenet table`, from the runs on disk: W&B is a view of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from experiments.errors import UserError
from experiments.store import Store
from experiments.study import Cell, Study
from experiments.tables import make_report, to_markdown
from experiments.tracking import PROJECT, STEP

HOW_TO_READ = (
    "Bands are the spread over seeds. A verdict needs an interval, not a picture: the tables give "
    "it, corrected for judging all claims together."
)


@dataclass(frozen=True)
class Place:
    """Where on W&B."""

    entity: str
    project: str = PROJECT


def publish(study: Study, cells: Sequence[Cell], store: Store, place: Place) -> tuple[str, str]:
    """Save a new workspace view and a new report; their addresses. Raises UserError where W&B
    refuses.
    """
    import wandb

    workspaces, reports, expr = _library()
    grid = _grid(workspaces, reports, expr, study, cells, place)
    text = to_markdown(make_report(study, cells, store))
    try:
        workspace = _workspace(workspaces, reports, study, grid, place).save()
        report = _report(reports, study, text, grid, place).save()
    except (wandb.errors.Error, ValueError, OSError) as error:
        raise UserError(
            f"W&B did not take the views of {place.entity}/{place.project}: {error}; send the runs "
            "first by `spinenet wandb sync`, and name the team by --entity"
        ) from error
    return workspace.url, report.url


def default_place(entity: str | None, project: str) -> Place:
    """Where the views go. Raises UserError without a key."""
    import wandb

    try:
        entity = entity or wandb.Api().default_entity
    except wandb.errors.Error as error:
        raise UserError(f"W&B: {error}; log in by `wandb login`, or set WANDB_API_KEY") from error
    if entity is None:
        raise UserError("W&B: the key names no user or team; give one by --entity")
    return Place(entity, project)


@dataclass(frozen=True)
class _Grid:
    """The study's runs in the libraries' terms."""

    runset: Any
    filters: Any
    groupby: str


def _library() -> tuple[ModuleType, ModuleType, ModuleType]:
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
        from wandb_workspaces import expr
    except ImportError:
        raise UserError(
            "wandb-workspaces is not installed; pip install 'spinenet-reproduction[wandb]', or in "
            "a checkout pip install '.[wandb]'"
        ) from None
    return workspaces, reports, expr


def _grid(
    workspaces: ModuleType,
    reports: ModuleType,
    expr: ModuleType,
    study: Study,
    cells: Sequence[Cell],
    place: Place,
) -> _Grid:
    run_ids = sorted({cell.run_id for cell in cells})
    filters = expr.And(expr.Metric("ID").isin(run_ids))
    groupby = f"variant.{study.id}"
    runset = reports.Runset(
        entity=place.entity,
        project=place.project,
        name=f"{study.id}, {cells[0].profile}",
        filters=filters,
        groupby=[f"config.{groupby}"],
    )
    return _Grid(runset, filters, groupby)


def _workspace(
    workspaces: ModuleType, reports: ModuleType, study: Study, grid: _Grid, place: Place
) -> Any:
    sections = [
        workspaces.Section(name=name, panels=panels, is_open=True)
        for name, panels in _panels(reports, study, grid).items()
    ]
    return workspaces.Workspace(
        entity=place.entity,
        project=place.project,
        name=f"{study.id}: {grid.runset.name}",
        sections=sections,
        settings=workspaces.WorkspaceSettings(x_axis=STEP, max_runs=100),
        runset_settings=workspaces.RunsetSettings(
            filters=grid.filters, groupby=[workspaces.Config(grid.groupby)]
        ),
    )


def _report(reports: ModuleType, study: Study, text: str, grid: _Grid, place: Place) -> Any:
    title, _, tables = text.partition("\n")
    blocks = [reports.P(study.source), reports.MarkdownBlock(text=tables.strip())]
    for name, panels in _panels(reports, study, grid).items():
        blocks += [reports.H2(name), reports.PanelGrid(runsets=[grid.runset], panels=panels)]
    return reports.Report(
        entity=place.entity,
        project=place.project,
        title=title.lstrip("# ")[:128],
        description=HOW_TO_READ,
        blocks=blocks,
        width="fluid",
    )


def _panels(reports: ModuleType, study: Study, grid: _Grid) -> dict[str, list[Any]]:
    """What both views show, by heading."""
    group = {"groupby": grid.groupby, "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    results = [reports.BarPlot(title=m, metrics=[m], **group) for m in study.metrics]
    results += [
        reports.ScatterPlot(
            title=f"{m} beside multiply-adds as trained",
            x=reports.SummaryMetric("macs_b"),
            y=reports.SummaryMetric(m),
        )
        for m in study.metrics
    ]
    curves = [
        reports.LinePlot(title=name, x=STEP, y=[name], **group)
        for name in ("loss/total", *(f"val/{m}" for m in study.metrics))
    ]
    found = [reports.WeavePanelSummaryTable(table_name="predictions")]
    if "AP" in study.metrics:
        found.append(reports.WeavePanelSummaryTable(table_name="precision_table"))
    networks = [reports.MediaBrowser(media_keys=["architecture"])]
    return {"Results": results, "Training": curves, "What was found": found, "Networks": networks}
