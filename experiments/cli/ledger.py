"""ledger: every number that the paper printed, and what can be said of it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.options import RUNS, FoldersOption, JsonOption, tell_missing

if TYPE_CHECKING:
    from experiments.ledger.entries import Entry
    from experiments.ledger.report import Ledger


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command()(ledger)


def ledger(
    runs: FoldersOption = None,
    scores: Annotated[
        list[Path] | None,
        typer.Option("--scores", help="scores.json of an imported checkpoint. Repeatable."),
    ] = None,
    status: Annotated[
        str | None, typer.Option("--status", help="Only lines with this status, written out.")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Write every number out.")] = False,
    short: Annotated[bool, typer.Option("--short", help="Only what it comes to.")] = False,
    into: Annotated[
        Path | None, typer.Option("--into", help="Replace the ledger's block in a Markdown file.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say of every printed number whether it holds here, or why that is not known.

    Example: spinenet ledger --runs results/embedded --runs results/embedded-long
    """
    from experiments.counting import free_cores
    from experiments.errors import UserError, did_you_mean
    from experiments.ledger.checkpoints import read_scores
    from experiments.ledger.report import STATUSES, in_short, make_ledger, to_markdown
    from experiments.store import Store
    from experiments.tables import replace_block

    if status is not None and status not in STATUSES:
        raise UserError(f"--status {status}: unknown; {did_you_mean(status, STATUSES)}")
    folders = runs or [RUNS]
    tell_missing(*folders)
    stores = [Store(folder) for folder in folders]
    read = [read_scores(path) for path in scores or []]
    made = make_ledger(stores, read, free_cores())
    if into is not None and short:
        replace_block(into, "ledger in short", in_short(made) + "\n")
    elif into is not None:
        replace_block(into, "ledger", to_markdown(made))
    elif short:
        typer.echo(in_short(made))
    elif as_json:
        lines = [asdict(entry) for entry in made.entries if status in (None, entry.status)]
        typer.echo(json.dumps(lines, indent=1))
    elif markdown:
        typer.echo(to_markdown(made))
    else:
        _print(made, status, all_)


def _print(made: Ledger, status: str | None, is_whole: bool) -> None:
    from experiments.cli.render import console
    from experiments.ledger.report import by_place, summary

    if status is None:
        for name, count, meaning in summary(made.entries):
            console.print(f"{count:>5}  [bold]{name:18}[/] {meaning}", highlight=False)
    shown = made.entries if is_whole or status else made.claims + made.sentences
    for place, entries in by_place([e for e in shown if status in (None, e.status)]):
        console.print(f"\n[bold]{place}[/]", highlight=False)
        for entry in entries:
            _print_entry(entry)
    if status is None and not is_whole:
        console.print("\n--all writes out every number, --status those of one status.", style="dim")


def _print_entry(entry: Entry) -> None:
    from rich.markup import escape
    from rich.padding import Padding

    from experiments.cli.render import COLOURS, console

    colour = COLOURS.get(entry.status, "default")
    console.print(f"  [{colour}]{entry.status:18}[/] {escape(entry.subject)}", highlight=False)
    facts = [
        f"printed {entry.printed}" if entry.printed else "",
        f"found {entry.found}" if entry.found else "",
        entry.quantity,
        entry.detail,
    ]
    told = escape("; ".join(fact for fact in facts if fact))
    console.print(Padding(told, (0, 0, 0, 21)), style="dim", highlight=False)
