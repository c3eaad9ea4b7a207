"""models, check: what a network or a study is, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.cli.options import RUNS, JsonOption, ProfileOption, RunsOption


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.command()(models)
    app.command()(check)


def models(
    as_json: JsonOption = False,
    into: Annotated[
        Path | None, typer.Option("--into", help="Replace the block of counts in a Markdown file.")
    ] = None,
) -> None:
    """List every model with its multiply-adds and parameters beside the printed ones.

    Example: spinenet models
    """
    from experiments.counting import free_cores
    from experiments.inspection import COUNT_HEADER, model_tables

    listed = model_tables(free_cores())
    if as_json:
        rows = [
            {"table": t.title, "id": id_, **row}
            for t in listed
            for id_, row in zip(t.ids, t.rows, strict=True)
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    if into is not None:
        from experiments import tables

        tables.replace_block(into, "models", "\n".join(t.markdown() for t in listed))
        return
    from experiments.cli.render import console, table

    for found in listed:
        console.print(f"\n[bold]{found.title}[/]", highlight=False)
        console.print(table(COUNT_HEADER, found.cells_by_id()))
    console.print(
        "\nMACs B: 1e9 multiply-adds (the paper's FLOPs) with the official heads. `spinenet show` "
        "takes the names in small letters.",
        style="dim",
    )


def check(
    file: Annotated[
        str, typer.Argument(help="A study or a recipe: a YAML file or a shipped name.")
    ],
    profile: ProfileOption = "embedded",
    runs: RunsOption = RUNS,
    as_json: JsonOption = False,
) -> None:
    """Validate a study or recipe; show each variant's difference to the base, its multiply-adds,
    and what the runs will take that are not there yet.

    Example: spinenet check my_ablation.yaml
    """
    from experiments.inspection import check_recipe, check_study
    from experiments.study_file import is_study

    report: dict[str, Any] = (
        check_study(file, profile, runs) if is_study(file) else check_recipe(file)
    )
    if as_json:
        typer.echo(json.dumps(report, indent=1, default=str))
    else:
        _print_check(report, Path(file).name, profile)


def _print_check(report: dict[str, Any], file: str, profile: str) -> None:
    from experiments.cli.render import console, table

    console.print(f"[bold]{file}[/]: {report['title']}: valid", highlight=False)
    for part in report["variants"]:
        console.print(f"\n[bold]{part['variant']}[/] {part['from']}", highlight=False)
        if not part["difference"]:
            console.print("  no difference")
        for key, (before, after) in part["difference"].items():
            console.print(f"  {key}: {before} → {after}", highlight=False, markup=False)
        for key, values in part.get("full_difference", {}).items():
            told = "no difference" if values is None else f"{values[0]} → {values[1]}"
            line = f"  at the paper's size: {key}: {told}"
            console.print(line, highlight=False, markup=False)
    for name, reason in report.get("unpublished", {}).items():
        console.print(f"\n[bold]{name}[/] is not run: {reason}", highlight=False)
    console.print()
    header = ["variant", "MACs M", "params M", "full MACs B", "params M", "own"]
    rows = [
        [
            p["variant"],
            *(f"{p[k]:.2f}" for k in ("macs_m", "params_m", "full_macs_b", "full_params_m")),
            p["own"],
        ]
        for p in report["variants"]
    ]
    console.print(table(header, rows))
    console.print(
        f"First counts in profile {profile}, full counts at the paper's size.", style="dim"
    )
    if price := report.get("price"):
        basis = f" ({price['basis']})" if price["basis"] else ""
        seeds = f"{report['seeds']} seed{'s' * (report['seeds'] > 1)}"
        console.print(f"\nWith {seeds}: {price['summary']}{basis}", highlight=False, markup=False)
