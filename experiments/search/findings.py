"""What a search has found, as one value: told on the screen, kept in a file, drawn, and set beside
other searches.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.provenance import environment
from experiments.search import stored
from experiments.search.candidates import Search
from experiments.search.config import SearchConfig
from experiments.search.finals import verdicts, winner
from experiments.search.pace import Pace, read_pace
from experiments.search.places import FOUND
from experiments.search.report import Standing, best_so_far, front, level_shares, standings

WAY_OUT = "`spinenet search-report NAME --out` writes it again"


@dataclass(frozen=True)
class Findings:
    """A search after `tried` samples: its networks, the best first, the largest reward after each
    sample, the runs on the front of reward and multiply-adds, and the shares of the levels early
    and late. `finals` has by sample the mean reward over other seeds of those trained again;
    `environment` is that of the first that was trained.
    """

    name: str
    config: SearchConfig
    environment: dict[str, Any]
    pace: Pace | None
    tried: int
    finals: dict[int, float]
    level_shares: dict[int, tuple[float, float]]
    front: list[str]
    best_so_far: list[float]
    networks: list[Standing]

    @property
    def chosen(self) -> Standing | None:
        """The network that one would take; None where nothing has been trained."""
        return winner(self.networks, self.finals) if self.networks else None


def findings(name: str, made: Search, folder: Path) -> Findings:
    """What is known of a search by the runs that it has taken in."""
    found = standings(made.tried)
    first = next((one for one in made.tried if one.result is not None), None)
    return Findings(
        name=name,
        config=made.config,
        environment=dict(first.result.environment) if first and first.result else environment(),
        pace=read_pace(folder),
        tried=len(made.tried),
        finals=verdicts(made, found),
        level_shares=level_shares(made.tried) if made.tried else {},
        front=[one.run_id for one in front(found)],
        best_so_far=best_so_far(made.tried),
        networks=found,
    )


def read_all(folder: Path = FOUND) -> list[Findings]:
    """The searches whose findings are kept in a folder, by name; none where there is no folder.

    Raises UserError for a file that is not as it should be, or that nothing was found in.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        one = stored.read(path, Findings, WAY_OUT)
        if one is None or one.chosen is None:
            raise UserError(f"{path}: networks: no sample has been trained; {WAY_OUT}")
        found.append(one)
    return found
