"""The paper's models in timm's registry, each loaded when it is asked for.

    import spinenet, timm

    timm.create_model("spinenet49", features_only=True)  # [P3, P4, P5, P6, P7]
    timm.create_model("spinenet96", num_classes=10)      # a classifier

`import spinenet` has this module run together with timm, whichever comes first, so it may import
nothing of spinenet itself: timm is also what spinenet's own modules import.

Beside timm's own arguments (`num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`,
`drop_block_rate`, `bn_eps`, `global_pool="avg"`, `out_indices`), every field of SpineNetConfig and
LayerConfig may be given, such as `width=0.25`, `flavor="tf2"` or a genotype, also by name. There
are no pretrained weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import register_model

if TYPE_CHECKING:
    from torch import nn

# timm's name of a model → the zoo's.
NAMES = {
    "spinenet49s": "spinenet-49s",
    "spinenet49": "spinenet-49",
    "spinenet96": "spinenet-96",
    "spinenet143": "spinenet-143",
    "spinenet143l": "spinenet-143l",
    "spinenet190": "spinenet-190",
    "spinenet_mobile49xs": "mobile-spinenet-49xs",
    "spinenet_mobile49s": "mobile-spinenet-49s",
    "spinenet_mobile49": "mobile-spinenet-49",
}

__all__ = ["NAMES"]
default_cfgs = {
    name: {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (28, 28),
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "backbone.stem.conv",
        "classifier": "linear",
    }
    for name in NAMES
}


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        from spinenet.timm_models import build

        return build(name, NAMES[name], pretrained, kwargs)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"{NAMES[name]} of the paper."
    return create


for _name in NAMES:
    globals()[_name] = register_model(_entrypoint(_name))
