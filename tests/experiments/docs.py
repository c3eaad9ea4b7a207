"""What the documentation shows, for the tests that hold it."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


def yaml_blocks(page: str) -> list[str]:
    """Every YAML block of a page."""
    return re.findall(r"```yaml\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
