"""wandb report, wandb sync: a study's views on Weights & Biases, and runs sent there later."""

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.options import RUNS, Asked, RunsOption, for_studies, runnable

EntityOption = Annotated[
    str | None, typer.Option("--entity", help="User or team (default: that of the key).")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    group = typer.Typer(no_args_is_help=True, help="Runs and studies on Weights & Biases.")
    group.command()(for_studies(report))
    group.command()(sync)
    app.add_typer(group, name="wandb")


def report(
    asked: Asked,
    *,
    runs: RunsOption = RUNS,
    entity: EntityOption = None,
    project: Annotated[str, typer.Option("--project", help="W&B's project.")] = "spinenet",
) -> None:
    """Build a workspace and a report of a study on W&B, new ones each time.

    Example: spinenet wandb report ladder --entity my-team
    """
    from experiments.planning import grids_of
    from experiments.store import Store
    from experiments.wandb_views import default_place, publish

    place = default_place(entity, project)
    for study, grid in grids_of(runnable(asked)):
        workspace, written = publish(study, grid, Store(runs), place)
        typer.echo(f"workspace: {workspace}\nreport: {written}")


def sync(
    runs: RunsOption = RUNS,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be sent.")
    ] = False,
) -> None:
    """Send the runs of a folder that W&B does not have yet.

    Example: spinenet wandb sync --runs runs
    """
    from experiments.uploading import records, send

    raise typer.Exit(send(records(Path(runs)), dry=dry_run))
