"""Tables of what was measured: for the terminal, and as Markdown for docs/speed.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from experiments import tables
from experiments.bench.measure import Outcome, Times
from experiments.bench.record import Record

HEADER = ["contest", "ours", "theirs", "times as fast (95 %)"]
BLOCK = "speed"
NOTHING = (
    "No measurement is stored. `spinenet bench --out results/bench` makes one of your machine."
)


def rows(record: Record) -> list[list[str]]:
    """A row for each contest: its name, both speeds, the ratio; a reason for one that was
    skipped.
    """
    held = [[o.name, _speed(o, o.ours), _speed(o, o.theirs), _ratio(o)] for o in record.outcomes]
    return held + [[s.name, "", "", f"skipped: {s.reason}"] for s in record.skipped]


def notes(record: Record) -> list[str]:
    """What the contests have to say beside their ratio."""
    return [f"{o.name}: {o.facts['note']}" for o in record.outcomes if o.facts.get("note")]


def where(record: Record) -> str:
    """The machine, the versions that matter, and the command."""
    facts, packages = record.environment, record.environment["packages"]
    processor = facts["gpu"] if record.settings.device == "cuda" else facts["processor"]
    return (
        f"{processor}, {record.settings.threads} of {facts['cores']} cores; torch "
        f"{packages['torch']}, torchvision {packages['torchvision']}, oneDNN {facts['onednn']}; "
        f"commit {facts['commit'][:10]}{' with changes' if facts['dirty'] else ''}: "
        f"`{record.command}`"
    )


def to_markdown(records: Sequence[Record]) -> str:
    """All records as Markdown."""
    if not records:
        return NOTHING + "\n"
    return "\n".join(_section(record) for record in records)


def _section(record: Record) -> str:
    parts = [f"### {_title(record)}", where(record), tables.markdown(HEADER, rows(record))]
    said = "\n".join(f"- {note}" for note in notes(record))
    return "\n\n".join([*parts, said] if said else parts) + "\n"


def _title(record: Record) -> str:
    settings = record.settings
    title = record.title + " in bf16" * (settings.precision == "bf16")
    return title + ", compiled" * settings.compiled + ", on a GPU" * (settings.device == "cuda")


def write_into(path: Path, records: Sequence[Record]) -> None:
    """Replace the block of speeds in a Markdown file."""
    tables.replace_block(path, BLOCK, to_markdown(records))


def _speed(outcome: Outcome, side: Times) -> str:
    """Seconds, or units of work per second."""
    seconds = outcome.seconds(side)
    if outcome.unit == "s":
        return f"{seconds:.3g} s"
    return f"{side.work / seconds:.3g} {outcome.unit}/s"


def _ratio(outcome: Outcome) -> str:
    if outcome.low is None or outcome.high is None:
        return f"{outcome.ratio:.2f}"
    return f"{outcome.ratio:.2f} ({outcome.low:.2f} to {outcome.high:.2f})"
