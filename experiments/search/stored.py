"""Results of searching as files: JSON with a row per line, so that a changed row is a changed line,
read back into the dataclass that it was written from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from experiments.errors import UserError, first_problem
from experiments.store import write_atomically

STORED_VERSION = 1

T = TypeVar("T")


def write(path: Path, made: Any) -> None:
    """Write a dataclass, whole or not at all."""
    body = {"schema_version": STORED_VERSION, **asdict(made)}
    write_atomically(path, as_lines(body))


def read(path: Path, kind: type[T], way_out: str) -> T | None:
    """What was written, or None where there is no file. `way_out` says what makes another.

    Raises UserError that names the field which is not as it should be.
    """
    if not path.is_file():
        return None
    try:
        body = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}; {way_out}") from None
    version = body.pop("schema_version", None) if isinstance(body, dict) else None
    if version != STORED_VERSION:
        raise UserError(
            f"{path}: schema_version: {version}, this version reads {STORED_VERSION}; {way_out}"
        )
    try:
        return TypeAdapter(kind).validate_python(body)
    except ValidationError as error:
        key, told = first_problem(error)
        raise UserError(f"{path}: {key or 'file'}: {told}; {way_out}") from None


def refuse_other_settings(path: Path, before: Any, now: Any) -> None:
    """Raise UserError that names the first setting in which two of a kind differ, the one in a file
    and the one that is asked for.
    """
    for name, value in asdict(before).items():
        if getattr(now, name) != value:
            raise UserError(
                f"{path}: {name} is {value!r}, not {getattr(now, name)!r}; go on with the same "
                "settings, or write another file with --out"
            )


def as_lines(body: Mapping[str, Any]) -> str:
    """JSON of a mapping, in which each row of a list or mapping is on a line of its own; a list of
    numbers is one row.
    """
    return "{\n" + ",\n".join(f" {json.dumps(k)}: {_inner(v)}" for k, v in body.items()) + "\n}\n"


def _inner(value: Any) -> str:
    if isinstance(value, list | tuple) and any(isinstance(v, list | tuple | dict) for v in value):
        return "[\n" + ",\n".join(f"  {json.dumps(item)}" for item in value) + "\n ]"
    if isinstance(value, Mapping) and value:
        items = (f"  {json.dumps(str(k))}: {json.dumps(v)}" for k, v in value.items())
        return "{\n" + ",\n".join(items) + "\n }"
    return json.dumps(value)
