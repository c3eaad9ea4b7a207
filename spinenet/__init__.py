"""SpineNet's networks in PyTorch, usable on their own: genotypes, backbones, detectors, counts.

`import spinenet` loads nothing heavy: a name of `__all__` brings its module when it is first asked
for, as in

    config = spinenet.zoo.model("spinenet-49").retinanet()
    network = spinenet.build_retinanet(config, num_classes=91)

Where timm is imported as well, before or after it, timm's
registry has the paper's models (`spinenet.timm_registry`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spinenet import zoo as zoo
    from spinenet.backbone import SpineNet as SpineNet
    from spinenet.classification import build_classifier as build_classifier
    from spinenet.config import ClassifierConfig as ClassifierConfig
    from spinenet.config import LayerConfig as LayerConfig
    from spinenet.config import ResNetFPNConfig as ResNetFPNConfig
    from spinenet.config import SpineNetConfig as SpineNetConfig
    from spinenet.detection.config import MaskRCNNConfig as MaskRCNNConfig
    from spinenet.detection.config import RetinaNetConfig as RetinaNetConfig
    from spinenet.detection.mask_rcnn import build_mask_rcnn as build_mask_rcnn
    from spinenet.detection.retinanet import build_retinanet as build_retinanet
    from spinenet.genotype import Genotype as Genotype
    from spinenet.resnet import ResNetFPN as ResNetFPN

DISTRIBUTION, REGISTRY = "spinenet-reproduction", "spinenet.timm_registry"

# Where each name of the library's surface is defined.
HOMES = {
    "ClassifierConfig": "config",
    "Genotype": "genotype",
    "LayerConfig": "config",
    "MaskRCNNConfig": "detection.config",
    "ResNetFPN": "resnet",
    "ResNetFPNConfig": "config",
    "RetinaNetConfig": "detection.config",
    "SpineNet": "backbone",
    "SpineNetConfig": "config",
    "build_classifier": "classification",
    "build_mask_rcnn": "detection.mask_rcnn",
    "build_retinanet": "detection.retinanet",
}
__all__ = ["__version__", "zoo", *HOMES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # slow to import, and seldom asked for

        return version(DISTRIBUTION)
    if name == "zoo":
        return importlib.import_module("spinenet.zoo")
    if name not in HOMES:
        raise AttributeError(f"module 'spinenet' has no attribute {name!r}")
    return getattr(importlib.import_module(f"spinenet.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


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
