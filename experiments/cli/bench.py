"""bench, speed: measure this machine against what one would use instead; the tables of it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import typer

from experiments.cli.options import JsonOption

if TYPE_CHECKING:
    from experiments.bench.contest import Settings
    from experiments.bench.record import Record

OUT = Path("runs/bench")
STORED = Path("results/bench")


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(bench)
    app.command()(speed)


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(help="Benchmarks by name (default: all).")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Only say what there is.")] = False,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option("--device", help="auto is CUDA if there.")
    ] = "auto",
    precision: Annotated[
        Literal["32", "bf16"], typer.Option("--precision", help="bf16 is mixed, by autocast.")
    ] = "32",
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Of torch (default: all cores).")
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=2, help="Each gives one ratio; an interval needs two.")
    ] = 12,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Our networks compiled, of step and inference.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Two rounds at toy size, to see that it runs.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", help="Folder of the JSON files.")] = OUT,
    as_json: JsonOption = False,
) -> None:
    """Time parts of this project against what one would use instead, in turn, on this machine.

    Example: spinenet bench step inference --threads 2
    """
    from experiments.bench.suite import TITLES, benchmark

    chosen = {name: benchmark(name) for name in names or TITLES}
    if list_:
        _list({name: one.title for name, one in chosen.items()}, as_json)
        return
    from experiments.bench.record import hold, write

    settings = replace(
        _settings(device, precision, threads),
        rounds=2 if quick else rounds,
        quick=quick,
        compiled=compiled,
    )
    records = []
    for name, one in chosen.items():
        with _Progress(name, settings.rounds) as progress:
            records.append(hold(name, one, settings, progress.watch))
        path = write(out, records[-1])
        _draw(records[-1], path)
        if not as_json:
            _print(records[-1])
            typer.echo(f"written to {path}")
    if as_json:
        typer.echo(json.dumps([asdict(record) for record in records], indent=1))


def speed(
    folder: Annotated[Path, typer.Argument(help="Folder of the JSON files of bench.")] = STORED,
    into: Annotated[
        Path | None, typer.Option("--into", help="Replace the block of speeds in a Markdown file.")
    ] = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Draw how a step grows: .svg or .png.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print what bench measured before, or write it into a document.

    Example: spinenet speed results/bench --into docs/speed.md
    """
    from experiments.bench import report
    from experiments.bench.record import read_all

    records = list(read_all(folder))
    if figure is not None:
        _draw_growth(records, figure)
    if into is not None:
        report.write_into(into, records)
    elif figure is not None:
        return
    elif as_json:
        typer.echo(json.dumps([asdict(record) for record in records], indent=1))
    else:
        _print_all(records)


def _settings(device: str, precision: Literal["32", "bf16"], threads: int | None) -> Settings:
    """The options as settings. Raises UserError for a device that is not there."""
    import os

    import torch

    from experiments.bench.contest import Settings
    from experiments.errors import UserError

    there = torch.cuda.is_available()
    if device == "cuda" and not there:
        raise UserError("--device cuda: torch sees no CUDA device here; use --device cpu")
    return Settings(
        device="cuda" if there and device != "cpu" else "cpu",
        precision=precision,
        threads=threads or os.cpu_count() or 1,
    )


def _list(titles: dict[str, str], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(titles, indent=1))
        return
    for name, title in titles.items():
        typer.echo(f"{name:10} {title}")


def _print_all(records: list[Record]) -> None:
    from experiments.bench.report import NOTHING

    for record in records:
        _print(record)
    if not records:
        typer.echo(NOTHING)


def _print(record: Record) -> None:
    """A record's table and what its contests say beside it."""
    from rich.markup import escape

    from experiments.bench import report
    from experiments.cli.render import console, table

    console.print(f"\n[bold]{record.title}[/]", highlight=False)
    held = report.rows(record)[: len(record.outcomes)]
    console.print(table(report.HEADER, [list(map(escape, row)) for row in held]))
    skipped = [f"{one.name}: skipped: {one.reason}" for one in record.skipped]
    for note in [*report.notes(record), *skipped]:
        console.print(note, style="dim", markup=False)


def _draw_growth(records: list[Record], path: Path) -> None:
    from experiments.bench.growth import figure
    from experiments.cli.render import save_figure
    from experiments.errors import UserError

    grown = [record for record in records if record.benchmark == "growth"]
    if not grown:
        raise UserError("--figure: growth was not measured; `spinenet bench growth` does")
    save_figure(figure(grown[0]), path)
    typer.echo(f"drawn to {path}")


def _draw(record: Record, path: Path) -> None:
    """The figure of a record that has one, beside its file."""
    if record.benchmark == "growth":
        from experiments.bench.growth import figure

        figure(record).savefig(path.with_suffix(".png"), dpi=150)


class _Progress:
    """A bar that counts the rounds of the contest that is being held."""

    def __init__(self, name: str, rounds: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        from experiments.cli.render import progress_console

        self.rounds = rounds
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            console=progress_console,
            transient=True,
        )
        self.task = self.progress.add_task(name, total=rounds)

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.progress.stop()

    def watch(self, contest: str, done: int) -> None:
        """Take the contest's name and the rounds that are done."""
        self.progress.update(self.task, description=contest, completed=done)
