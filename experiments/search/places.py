"""Where results of searching are kept, unless a command is told otherwise; under the folder that it
is given in.
"""

from __future__ import annotations

from pathlib import Path

RESULTS = Path("results/search")
TABLE = RESULTS / "table.json"
FOUND = RESULTS / "found"  # a file for each search
