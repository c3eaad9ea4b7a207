"""Options that several commands share, and what they select.

`for_studies` gives a command the options of every study command and hands it the studies, each with
its selection; the command itself declares only what is its own.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from experiments.errors import UserError

if TYPE_CHECKING:
    from experiments.study import Selection, Study

Folders = TypeVar("Folders", Path, list[Path] | None)


def _no_file(runs: Folders) -> Folders:
    """A value of --runs. Raises UserError for a file, of which no run can be a part."""
    for folder in [runs] if isinstance(runs, Path) else runs or []:
        if folder.is_file():
            raise UserError(f"--runs {folder}: a file; name the folder that holds the runs")
    return runs


def tell_missing(*runs: Path) -> None:
    """A line on each folder of runs that is not there, since it reads as an empty one."""
    for folder in runs:
        if not folder.is_dir():
            typer.echo(f"{folder}: no such folder yet", err=True)


ProfileOption = Annotated[
    str,
    typer.Option("--profile", "-p", help="smoke, embedded, embedded-long, gpu, paper, or a file."),
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="Your own data: coco:FOLDER, folder:FOLDER, csv:FOLDER, …"),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a field: KEY=VALUE. Repeatable.")
]
RunsOption = Annotated[
    Path,
    typer.Option("--runs", envvar="SPINENET_RUNS", help="Folder of the runs.", callback=_no_file),
]
FoldersOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--runs", envvar="SPINENET_RUNS", help="Folder of runs. Repeatable.", callback=_no_file
    ),
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
WorkersOption = Annotated[
    int, typer.Option("--workers", min=0, help="Processes that load data, for each run.")
]
OtherCodeOption = Annotated[
    Literal["refuse", "continue", "restart"],
    typer.Option("--other-code", help="What to do with unfinished runs that other code began."),
]
CheckpointOption = Annotated[
    str, typer.Option("--checkpoint-every", help="Time between checkpoints within an epoch.")
]
JobsOption = Annotated[
    int | None, typer.Option("--jobs", "-j", min=1, help="Runs at once (default: by cores).")
]
BudgetOption = Annotated[
    str | None,
    typer.Option("--budget", help="Only what fits into so long (2h), to judge most claims."),
]

ExecutorName = Literal["local", "ray", "slurm"]
ExecutorOption = Annotated[
    ExecutorName | None,
    typer.Option("--executor", help="Where runs are carried out (default: local)."),
]
ClusterOption = Annotated[
    Path | None, typer.Option("--cluster", help="A YAML file on the Ray or SLURM cluster.")
]
DevicesOption = Annotated[
    int,
    typer.Option("--devices", min=1, help="Processes that share a run, with a GPU each if any."),
]

WeightsOption = Annotated[
    Path | None,
    typer.Option("--weights", help="Start from a weights file or a run's folder."),
]

Asked = list[tuple["Study", "Selection"]]
RUNS, SEARCHES = Path("runs"), Path("searches")
CHECKPOINT_EVERY = "5m"


def _shared(
    study: Annotated[
        str | None, typer.Argument(help="A study by name, or a YAML file (default: ladder).")
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every study of the package.")] = False,
    profile: ProfileOption = "embedded",
    seeds: Annotated[
        int | None, typer.Option("--seeds", "-n", min=1, help="Seeds (default: the profile's).")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", help="Your own data: coco:FOLDER, folder:FOLDER, … Repeatable."),
    ] = None,
    set_: SetOption = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Only this variant. Repeatable.")
    ] = None,
    weights: WeightsOption = None,
) -> "list[tuple[Study, Selection]]":
    """The studies, each with what of it the options ask for."""
    from experiments.compose import Changes, parse_assignments
    from experiments.study import Selection, own_source
    from experiments.study_file import load_profile, load_study, parse_source, shipped_studies

    if all_ and (study is not None or only):
        raise UserError("--all takes every study whole; name a study, or leave out --all")
    names = shipped_studies() if all_ else [study or "ladder"]
    size = load_profile(profile)
    sources = [source for text in data or [] if (source := parse_source(text))]
    changes: tuple[Changes, ...] = (Changes(parse_assignments(set_ or []), "--set"),)
    if weights is not None:
        from experiments.starting import start_changes

        changes = (*changes, *start_changes(weights))
    selection = Selection(
        profile=size,
        seeds=seeds or size.seeds,
        changes=changes,
        only=tuple(only or ()),
        weights=weights,
        any_seeds=seeds is None,
    )
    asked = []
    for name in names:
        loaded = load_study(name)
        source = own_source(loaded, sources)
        if source is None and sources and not all_:
            source = sources[0]  # what does not fit about it is said when the recipe is made
        asked.append((loaded, replace(selection, source=source)))
    return asked


@contextmanager
def interruptible() -> Iterator[None]:
    """Of commands that train: what is finished, and a checkpoint of the rest, is on disk when they
    are stopped.
    """
    from experiments.stopping import Stopped, stoppable

    try:
        with stoppable():
            yield
    except Stopped as stopped:
        typer.echo("stopped; what is done is kept, the same command goes on", err=True)
        raise typer.Exit(stopped.exit_code) from None


def for_studies(
    handler: Callable[..., None], *, all_by_default: bool = False
) -> Callable[..., None]:
    """A command of `handler(asked, *, own options)` after the shared options.

    Without a study it is about the ladder; about all of them with `--budget`, or by default.
    """
    shared = inspect.signature(_shared).parameters
    own = [
        p
        for p in inspect.signature(handler).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    ]

    @wraps(handler)
    def command(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in shared}
        names_none = chosen["study"] is None and not chosen["only"]
        chosen["all_"] |= names_none and (all_by_default or bool(given.get("budget")))
        handler(_shared(**chosen), **given)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*shared.values(), *own)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def runnable(asked: Asked) -> Asked:
    """Of several studies those that have data, and a line on the others."""
    from experiments.study import needs_data

    left_out = [study.id for study, selection in asked if needs_data(study, selection)]
    if len(left_out) == len(asked):
        return asked  # what the first lacks is said when its grid is made
    if left_out:
        typer.echo(f"without data, so left out: {', '.join(left_out)}", err=True)
    return [(study, selection) for study, selection in asked if study.id not in left_out]
