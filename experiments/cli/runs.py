"""runs gc, export, import: a store made smaller, and runs carried to another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.options import RUNS, SEARCHES, RunsOption
from experiments.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from experiments.tidying import Leftover


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    runs = typer.Typer(no_args_is_help=True, help="Tidy a store; carry runs to another.")
    runs.command()(gc)
    runs.command(name="export")(export)
    runs.command(name="import")(import_)
    app.add_typer(runs, name="runs")


def gc(
    runs: RunsOption = RUNS,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="checkpoints, failed, unasked or drafts. Repeatable."),
    ] = None,
    study: Annotated[
        list[str] | None,
        typer.Option("--study", help="A study file whose runs are wanted too. Repeatable."),
    ] = None,
    searches: Annotated[
        Path, typer.Option("--searches", help="Folder of the searches whose runs are wanted.")
    ] = SEARCHES,
    table: Annotated[
        list[Path] | None,
        typer.Option("--table", help="A table of networks whose runs are wanted. Repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what could go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove what a store no longer needs: checkpoints of complete runs, failed runs, runs that
    nobody asks for, and drafts of killed processes. Lists it, and asks.

    Example: spinenet runs gc --dry-run
    """
    from experiments.store import Store
    from experiments.tidying import KINDS, asked_runs, leftovers, remove

    if unknown := [kind for kind in only or () if kind not in KINDS]:
        raise UserError(f"--only {unknown[0]}: {did_you_mean(unknown[0], KINDS)}")
    kinds = [kind for kind in KINDS if not only or kind in only]
    store = Store(runs)
    for path in table or ():
        if not path.is_file():
            raise UserError(f"--table {path}: there is no such file")
    files = (study or (), table or ())
    asked = asked_runs(store, searches, *files) if "unasked" in kinds else set()
    found = leftovers(store, kinds, asked)
    for item in found:
        typer.echo(
            f"{item.kind:<12} {megabytes(item.size_bytes):>10}  {item.path.relative_to(runs)}"
        )
    for kind in kinds:
        typer.echo(f"{_sum([item for item in found if item.kind == kind])}: {KINDS[kind]}")
    if dry_run or not found:
        return
    if not yes and not typer.confirm(f"Remove {_sum(found)}?", default=False):
        raise typer.Exit(1)
    gone = remove(found)
    typer.echo(f"removed {_sum(gone)}")
    if left := len(found) - len(gone):
        typer.echo(f"{left} left: their runs are being trained by now, or done", err=True)


def export(
    target: Annotated[Path, typer.Argument(help="The archive (.tar.gz) or folder to write.")],
    chosen: Annotated[
        list[str] | None, typer.Argument(help="Runs by id or name, with * (default: all complete).")
    ] = None,
    runs: RunsOption = RUNS,
    weights: Annotated[bool, typer.Option("--weights", help="With the weights.")] = False,
) -> None:
    """Write complete runs to one archive or folder, with checksums.

    Example: spinenet runs export ladder.tar.gz 'spinenet-49-*' --runs results/embedded
    """
    from experiments.archive import choose, export_runs
    from experiments.store import Store

    folders = choose(Store(runs), chosen or ())
    size = export_runs(folders, target, weights=weights)
    typer.echo(f"{target}: {len(folders)} runs, {megabytes(size)} of files")


def import_(
    source: Annotated[Path, typer.Argument(help="An archive or folder of runs.")],
    runs: RunsOption = RUNS,
) -> None:
    """Take runs in from an archive or folder; each file is checked, and no complete run replaced.

    Example: spinenet runs import results/embedded
    """
    from experiments.archive import import_runs
    from experiments.store import Store

    taken = []
    for one in import_runs(source, Store(runs)):
        taken.append(one)
        typer.echo(f"{one.outcome:<8}  {one.folder}{f': {one.why}' if one.why else ''}")
    refused = [one.folder for one in taken if one.outcome == "refused"]
    imported = sum(one.outcome == "imported" for one in taken)
    typer.echo(f"{imported} of {len(taken)} runs imported into {runs}")
    if refused:
        raise UserError(f"{source}: {len(refused)} runs refused: {', '.join(refused)}")


def megabytes(size: float) -> str:
    """Bytes for people."""
    return f"{size / 1e6:.1f} MB"


def _sum(found: list[Leftover]) -> str:
    return f"{megabytes(sum(item.size_bytes for item in found))} in {len(found)} places"
