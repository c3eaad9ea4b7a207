"""Labels in a CSV file: one row per picture, with its path, its split and its class."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datamodules.errors import DataError, MissingSplitError
from datamodules.labels import Listing, Row

Entry = tuple[int, list[str]]
"""Number of the line, and its path, split and class."""


@dataclass(frozen=True)
class LabelsCsvConfig:
    """A folder with a CSV file and the pictures that it names."""

    kind: Literal["csv"] = "csv"
    root: str = ""
    """Folder with the file; the pictures' paths count from here."""
    file: str = "labels.csv"
    path_column: str = "path"
    split_column: str = "split"
    class_column: str = "class"
    """Names or numbers; ordered as numbers if all are whole numbers."""
    train: str = "train"
    """What the training split is called in the split column."""
    val: str = "val"
    """What the validation split is called there. Rows of other splits are left out."""


def list_labels_csv(config: LabelsCsvConfig, split: str) -> Listing:
    """The pictures of ``split``, "train" or "val", in the order of the file."""
    root = Path(config.root).expanduser()
    file = root / config.file
    entries = _entries(file, (config.path_column, config.split_column, config.class_column))
    _refuse_repeats(file, config.path_column, entries)
    wanted = config.train if split == "train" else config.val
    rows = [Row(path, key) for _, (path, said, key) in entries if said == wanted]
    if not rows:
        found = ", ".join(repr(said) for said in sorted({e[1] for _, e in entries})) or "nothing"
        raise MissingSplitError(
            f"{file}: column {config.split_column!r} never says {wanted!r}, so split {split!r} is "
            f"missing; it says {found}; correct the column, or set train and val to what it says"
        )
    return Listing(file, root, rows, {key: key for key in _ordered({row.key for row in rows})})


def _entries(file: Path, columns: Iterable[str]) -> list[Entry]:
    if not file.is_file():
        raise DataError(f"{file}: no such file; check the data's root and file")
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            header = list(reader.fieldnames or [])
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: not a CSV file in UTF-8 ({error}); save it as one") from error
    for column in columns:
        if column not in header:
            raise DataError(
                f"{file}: there is no column {column!r}; the first line names "
                f"{', '.join(map(repr, header)) or 'none'}; rename one of these, or set "
                f"path_column, split_column or class_column to it"
            )
        for line, row in rows:
            if not row[column]:
                raise DataError(
                    f"{file}: line {line} has no {column!r}; fill it in or remove the line"
                )
    return [(line, [row[column] for column in columns]) for line, row in rows]


def _refuse_repeats(file: Path, column: str, entries: Iterable[Entry]) -> None:
    lines: dict[str, int] = {}
    for line, (path, _, _) in entries:
        if path in lines:
            raise DataError(
                f"{file}: {column} {path!r} is in line {lines[path]} and again in line {line}; "
                f"keep one of them"
            )
        lines[path] = line


def _ordered(keys: Iterable[str]) -> list[str]:
    keys = sorted(keys)
    return sorted(keys, key=int) if all(key.isdecimal() for key in keys) else keys
