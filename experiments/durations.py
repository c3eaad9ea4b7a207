"""Times as people write them, `2h`, `90m`, `1h30m`, `45s`, `3d`, and as they read them."""

from __future__ import annotations

import re

from experiments.errors import UserError

DURATION = re.compile("".join(rf"(?:(\d+(?:\.\d+)?){unit})?" for unit in "dhms"))


def parse_duration(text: str, option: str) -> float:
    """`2h`, `90m`, `1h30m`, `45s` as seconds. Raises UserError for another form."""
    found = DURATION.fullmatch(text.strip())
    if not found or not any(found.groups()):
        raise UserError(f"{option} {text}: expected a time such as 45s, 90m, 2h, 1h30m or 3d")
    units = (86_400, 3600, 60, 1)
    return sum(float(n or 0) * unit for n, unit in zip(found.groups(), units, strict=True))


def duration(seconds: float) -> str:
    """Seconds for people: `42 s`, `12 min`, `3.4 h`, `12 days`, `7 years`."""
    units = (("years", 31_557_600, 0), ("days", 86_400, 0), ("h", 3600, 1), ("min", 60, 0))
    for unit, size, digits in units:
        if seconds >= 2 * size:
            return f"{seconds / size:,.{digits}f} {unit}"
    return f"{seconds:.0f} s"
