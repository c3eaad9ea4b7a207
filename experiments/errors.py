"""The error that a user can mend: one sentence with file, key, value and the way out."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

LONGEST = 1500  # characters of a message
MISSING = "is missing"  # what is said of a field without a value


class UserError(ValueError):
    """Shown without a traceback by the command line."""


def one_line(text: str) -> str:
    """A message as it is shown: what a user's file put into it cannot break the line, move the
    terminal's cursor or fill the screen.
    """
    if len(text) > LONGEST:
        text = f"{text[: LONGEST * 2 // 3]} … {text[-LONGEST // 3 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Dotted key and words of the first thing that pydantic complains of; no key where it is the
    whole.
    """
    first = error.errors()[0]
    told = MISSING if first["type"] == "missing" else first["msg"]
    return ".".join(map(str, first["loc"])), told.removeprefix("Value error, ")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that ends a message about an unknown name: the nearest known one, and all of them."""
    known = sorted(known)
    near = get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(known)}"
