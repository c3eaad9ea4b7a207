"""Counts of the studies' networks at the paper's size, kept on disk.

Eighty networks take many seconds to count and follow from this code alone, so they are counted once
for each state of it: the file's name is a hash of the sources that decide a count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import spinenet
from datamodules.drawn import cache_folder
from experiments.counting import count_full_size, free_cores, full_size
from experiments.recipe import to_tree
from experiments.store import write_atomically
from experiments.study import Study
from spinenet.complexity import Complexity

CODE = (
    *Path(spinenet.__file__).parent.rglob("*.py"),
    *(Path(__file__).with_name(name) for name in ("grid.py", "networks.py")),
)


def full_size_counts(
    studies: Mapping[str, Study], on_miss: Callable[[int], None] = lambda count: None
) -> dict[str, Complexity]:
    """Every published variant as STUDY/VARIANT. `on_miss` hears how many have to be counted."""
    models = [(study, variant) for study in studies.values() for variant in study.published]
    keys = [_key(to_tree(full_size(*model)), model[0].classes) for model in models]
    path = cache_folder() / f"counts-{_code_hash()}.json"
    known = _read(path)
    missing = {key: model for key, model in zip(keys, models, strict=True) if key not in known}
    if missing:
        on_miss(len(missing))
        counted = count_full_size(list(missing.values()), free_cores())
        known |= dict(zip(missing, counted, strict=True))
        with suppress(OSError):  # counted again next time
            write_atomically(path, json.dumps({k: asdict(v) for k, v in known.items()}))
    names = [f"{study.id}/{variant.id}" for study, variant in models]
    return {name: known[key] for name, key in zip(names, keys, strict=True)}


def _key(tree: dict[str, object], classes: int | None) -> str:
    return hashlib.sha256(json.dumps([tree, classes]).encode()).hexdigest()[:16]


def _code_hash() -> str:
    parts = [version("timm").encode(), *(path.read_bytes() for path in sorted(CODE))]
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def _read(path: Path) -> dict[str, Complexity]:
    try:
        return {key: Complexity(**value) for key, value in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
