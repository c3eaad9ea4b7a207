"""Options that several commands share, and what they select.

`for_study` gives a command the options of every study command and hands it the study, the selection
and the folder of runs; the command itself declares only what is its own.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from experiments.study import Selection, Study

ProfileOption = Annotated[
    str, typer.Option("--profile", "-p", help="embedded, embedded-long, smoke, or a file.")
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="Your own data: coco:FOLDER, folder:FOLDER, csv:FOLDER, …"),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a field: KEY=VALUE. Repeatable.")
]
RunsOption = Annotated[
    Path, typer.Option("--runs", envvar="SPINENET_RUNS", help="Folder of the runs.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
WandbOption = Annotated[
    Literal["auto", "online", "offline", "disabled"],
    typer.Option("--wandb", help="auto is online where a key is configured, else offline."),
]
WandbArtifactsOption = Annotated[
    bool, typer.Option("--wandb-artifacts", help="Give W&B the last and the best weights.")
]
RecomputeOption = Annotated[
    bool,
    typer.Option("--recompute", help="Run blocks twice instead of keeping what they compute."),
]

WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="Start from a weights file or a run's folder."),
]

RUNS = Path("runs")


def _shared(
    study: Annotated[str, typer.Argument(help="A study by name, or a YAML file.")] = "ladder",
    profile: ProfileOption = "embedded",
    seeds: Annotated[
        int | None, typer.Option("--seeds", "-n", min=1, help="Seeds (default: the profile's).")
    ] = None,
    data: DataOption = None,
    set_: SetOption = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only this variant. Repeatable.")
    ] = None,
    weights: WeightsOption = None,
) -> "tuple[Study, Selection]":
    """The study and what of it the options ask for."""
    from experiments.compose import Changes, parse_assignments
    from experiments.study import Selection
    from experiments.study_file import load_profile, load_study, parse_source

    loaded, size = load_study(study), load_profile(profile)
    changes: tuple[Changes, ...] = (Changes(parse_assignments(set_ or []), "--set"),)
    if weights is not None:
        from experiments.starting import start_changes

        changes = (*changes, *start_changes(weights))
    selection = Selection(
        profile=size,
        seeds=seeds or size.seeds,
        source=parse_source(data),
        changes=changes,
        only=tuple(only or ()),
        weights=weights,
    )
    return loaded, selection


def for_study(handler: Callable[..., None]) -> Callable[..., None]:
    """A command of `handler(study, selection, *, own options)` after the shared options."""
    shared = inspect.signature(_shared).parameters
    own = [
        p
        for p in inspect.signature(handler).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    ]

    @wraps(handler)
    def command(**given: Any) -> None:
        study, selection = _shared(**{name: given.pop(name) for name in shared})
        handler(study, selection, **given)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*shared.values(), *own)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command
