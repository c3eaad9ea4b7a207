"""Options that several commands share, and how they become a selection of cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from experiments.study import Selection, Study

StudyArgument = Annotated[
    str, typer.Argument(help="A study by name (ladder) or a YAML file of your own.")
]
ProfileOption = Annotated[
    str, typer.Option("--profile", "-p", help="How big: embedded, smoke, embedded-long, or a file.")
]
SeedsOption = Annotated[
    int | None,
    typer.Option("--seeds", "-n", min=1, help="Seeds per variant [default: the profile's]."),
]
DataOption = Annotated[str | None, typer.Option("--data", help="Your own data: coco:FOLDER.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a field: KEY=VALUE. Repeatable.")
]
OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", help="Only this variant. Repeatable.")
]
RunsOption = Annotated[
    Path, typer.Option("--runs", envvar="SPINENET_RUNS", help="Folder of the runs.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
WandbOption = Annotated[str, typer.Option("--wandb", help="auto, online, offline or disabled.")]

RUNS = Path("runs")


def select(
    study: str,
    profile: str,
    seeds: int | None,
    data: str | None,
    changes: list[str] | None,
    only: list[str] | None = None,
) -> tuple[Study, Selection]:
    """The study and what of it the options ask for."""
    from experiments.compose import Changes, parse_assignments
    from experiments.study import Selection, load_profile, load_study, parse_source

    loaded, size = load_study(study), load_profile(profile)
    selection = Selection(
        profile=size,
        seeds=seeds or size.seeds,
        source=parse_source(data),
        changes=(Changes(parse_assignments(changes or []), "--set"),),
        only=tuple(only or ()),
    )
    return loaded, selection
