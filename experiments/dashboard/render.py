"""Templates to HTML. Everything that a store says is escaped: autoescape is on, and no template
marks a value as safe.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from experiments.dashboard.charts import MINUS, STYLES, number, signed
from experiments.study_grids import slug
from experiments.tables import p_value

SYMBOLS = {
    "replicated": "✓",
    "counted": "✓",
    "exact": "✓",
    "within 1 %": "✓",
    "confirmed": "✓",
    "contradicted": "✗",
    "differs": "✗",
    "not confirmed": "✗",
    "inconclusive": "?",
    "complete": "✓",
    "running": "▸",
    "failed": "✗",
    "damaged": "✗",
    "stopped": "‖",
    "waiting": "…",
}


def render(template: str, given: dict[str, Any]) -> str:
    """The page of a template."""
    return _environment().get_template(template).render(given)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader(__package__ or ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., str]] = {
        "fixed": fixed,
        "signed": signed,
        "number": number,
        "duration": duration,
        "percent": lambda share: f"{100 * share:.0f}",
        "slug": slug,
        "p_value": p_value,
        "shown": shown,
    }
    made.filters |= filters
    made.globals |= {"symbols": SYMBOLS, "styles": STYLES}
    return made


def fixed(value: float | None, digits: int = 1) -> str:
    """A number with so many digits; nothing for none."""
    return "" if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def duration(seconds: float | None) -> str:
    """`40 s`, `12 min`, `3 h 20 min`, `6 days`."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest:02d} min" if hours < 48 else f"{hours / 24:,.0f} days"


def shown(value: Any) -> str:
    """A recipe's value as one line."""
    return "–" if value is None else str(value)
