"""SpineNet's networks in PyTorch, usable on their own: genotypes, backbones, detectors, counts.

`import spinenet` loads nothing heavy. Where timm is imported as well, before or after it, timm's
registry has the paper's models (`spinenet.timm_registry`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

REGISTRY = "spinenet.timm_registry"


class _TimmFinder:
    """Lets the finders behind it find timm, and has its registry filled when timm has run."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "timm":
            return None
        behind = sys.meta_path[sys.meta_path.index(self) + 1 :]
        specs = (finder.find_spec(name, path, target) for finder in behind)
        spec = next(filter(None, specs), None)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            run(module)
            importlib.import_module(REGISTRY)
            sys.meta_path.remove(self)

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec


if sys.modules.get("timm"):
    importlib.import_module(REGISTRY)
else:
    sys.meta_path.insert(0, _TimmFinder())
