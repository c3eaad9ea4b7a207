"""The paper's training protocols A, B and C by name (section 4.1), for studies to refer to.

`protocols.yaml` holds what each differs in from the recipe `retinanet`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from experiments.compose import Changes, read_yaml
from experiments.errors import UserError, did_you_mean

PROTOCOLS = Path(__file__).parent / "protocols.yaml"


@cache
def protocols() -> dict[str, Changes]:
    """Every protocol's changes by its name."""
    return {
        name: Changes(values, f"protocol {name}") for name, values in read_yaml(PROTOCOLS).items()
    }


def check_protocol(name: object, where: str) -> str:
    """`name` if there is such a protocol. Raises UserError, at the place `where`, if not."""
    if not isinstance(name, str) or name not in protocols():
        raise UserError(
            f"{where}: unknown protocol {name!r}; {did_you_mean(str(name), protocols())}"
        )
    return name
