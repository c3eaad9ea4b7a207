"""The printed numbers and sentences as data: `printed.yaml`, read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from experiments.compose import read_yaml

FILE = Path(__file__).with_name("printed.yaml")


@dataclass(frozen=True)
class Printed:
    """One number, or one list of block counts, as it stands in print.

    `quantity` is its unit's name: macs_b (1e9 multiply-adds), params_m (1e6 parameters), AP, top1
    and their kin (percent), stem_blocks and permuted_blocks (by level, from 2 up), v100_ms and the
    like, networks (of a part of a search space). `variant` is the network as STUDY/VARIANT.
    `activation` is given where it does not follow from the schedule. `beyond` says why the suite
    cannot settle it, `open` what has not been done about it.
    """

    table: str
    place: str
    model: str
    quantity: str
    value: float | tuple[int, ...]
    sources: tuple[str, ...]
    variant: str = ""
    data: str = ""
    protocol: str = ""
    side: int | None = None
    epochs: int | None = None
    activation: str = ""
    note: str = ""
    beyond: str = ""
    open: str = ""

    @property
    def text(self) -> str:
        """The number as it was printed."""
        return " ".join(map(str, self.value)) if isinstance(self.value, tuple) else f"{self.value}"

    @property
    def rounding(self) -> float:
        """Half of the last printed digit."""
        return 0.5 * 10 ** -len(self.text.partition(".")[2])


@dataclass(frozen=True)
class Sentence:
    """What is said in words; `judged_by` names the claims that decide it, as STUDY/CLAIM."""

    text: str
    place: str
    printed: str = ""
    judged_by: tuple[str, ...] = ()
    beyond: str = ""
    open: str = ""


@dataclass(frozen=True)
class Book:
    """All that was printed, and where it was read."""

    numbers: tuple[Printed, ...]
    sentences: tuple[Sentence, ...]
    sources: dict[str, str]
    unseen: dict[str, str]


def load_book() -> Book:
    """The file's content."""
    data = read_yaml(FILE)
    tables = data["tables"]
    return Book(
        numbers=tuple(n for key, table in tables.items() for n in _numbers(key, table)),
        sentences=tuple(
            Sentence(**{**said, "judged_by": tuple(said.get("judged_by", ()))})
            for said in data["claims"]
        ),
        sources=data["sources"],
        unseen={table["place"]: table["unseen"] for table in tables.values() if "unseen" in table},
    )


def _numbers(key: str, table: dict[str, Any]) -> Iterator[Printed]:
    """A table's numbers, row by row; what a row does not say of itself the table says for all."""
    known = {f.name for f in fields(Printed)} - {"table", "quantity", "value"}
    shared = {k: v for k, v in table.items() if k in known}
    for row in table["rows"]:
        facts = {**shared, **{k: v for k, v in row.items() if k in known}}
        facts["sources"] = tuple(facts["sources"])
        for quantity, value in row.items():
            if quantity not in known:
                stated = tuple(value) if isinstance(value, list) else value
                yield Printed(table=key, quantity=quantity, value=stated, **facts)
