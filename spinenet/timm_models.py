"""SpineNet in timm's registry: after `import spinenet.timm_models`, timm makes the paper's models.

    timm.create_model("spinenet49", features_only=True)  # [P3, P4, P5, P6, P7]
    timm.create_model("spinenet96", num_classes=10)      # a classifier

The module has to be imported by name: `import spinenet` alone stays free of torch and timm, and
timm offers no way to be told of models before it is asked for one.

Beside timm's own arguments (`num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`,
`out_indices`), every field of SpineNetConfig and LayerConfig may be given, such as `width=0.25` or
`flavor="tf2"`. There are no pretrained weights; the classifier's state is that of
`spinenet.classification.Classifier`.

Shapes: B batch, C channels, K classes, H W spatial.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, cast

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from spinenet import zoo
from spinenet.backbone import SpineNet
from spinenet.classification import merge_levels
from spinenet.config import ClassifierConfig, LayerConfig, SpineNetConfig
from spinenet.layers import init_backbone

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
LAYERS = ClassifierConfig().layers
MOBILE_LAYERS = replace(LAYERS, activation="swish")  # as all mobile networks of the paper

__all__ = ["TimmSpineNet"]
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


class TimmSpineNet(nn.Module):
    """A SpineNet with what timm expects of a model; the head is the paper's (section 4.2): the mean
    of all levels, pooled, through one linear layer.

    forward: (B, in_chans, H, W) → (B, K), or (B, C) where `num_classes` is 0.
    """

    def __init__(
        self,
        *,
        cfg: SpineNetConfig,
        layers: LayerConfig = LAYERS,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
    ) -> None:
        super().__init__()
        self.backbone = SpineNet(cfg, layers)
        if in_chans != 3:
            conv = cast(nn.Conv2d, self.backbone.stem.conv)
            self.backbone.stem.conv = _with_inputs(conv, in_chans)
        self.levels = list(self.backbone.channels)
        self.num_features = self.head_hidden_size = cfg.endpoint_filters
        self.feature_info = [
            {"num_chs": channels, "reduction": 2**level, "module": f"backbone.endpoints.{level}"}
            for level, channels in self.backbone.channels.items()
        ]
        self.dropout = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) → (B, C, H / 8, W / 8): the mean of all levels."""
        return merge_levels(self.backbone(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, C, H, W) → (B, K); with `pre_logits`, the pooled features (B, C)."""
        pooled = x.mean(dim=(-2, -1))
        return pooled if pre_logits else self.linear(self.dropout(pooled))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of the levels at `indices` (0 is P3), alone or after the last one (timm's
        protocol). The coarsest level is computed with the others, so `stop_early` changes nothing,
        and the maps are normalised already.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt {output_fmt!r} is not supported; use NCHW")
        taken, _ = feature_take_indices(len(self.levels), indices)
        features = self.backbone(x)
        maps = [features[self.levels[i]] for i in taken]
        return maps if intermediates_only else (features[max(features)], maps)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Give up the levels not at `indices`, the blocks that only they depend on, and the
        classifier. Returns the indices, counted from the finest level.
        """
        taken, _ = feature_take_indices(len(self.levels), indices)
        self.backbone.keep([self.levels[i] for i in taken])
        if prune_head:
            self.reset_classifier(0)
        return taken

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.linear

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A fresh last layer for `num_classes`, or none for 0; pooling is always the mean."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool {global_pool!r} is not supported; use avg")
        self.num_classes = num_classes
        self.linear = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        if isinstance(self.linear, nn.Linear):
            nn.init.normal_(self.linear.weight, std=0.01)
            nn.init.zeros_(self.linear.bias)


def _with_inputs(conv: nn.Conv2d, inputs: int) -> nn.Conv2d:
    """A fresh convolution like `conv`, padding included, for another number of input channels."""
    kernel, stride, padding = conv.kernel_size, conv.stride, conv.padding
    fresh = type(conv)(inputs, conv.out_channels, kernel, stride, padding, bias=False)  # type: ignore[arg-type]
    init_backbone(fresh)
    return fresh


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        backbone = zoo.model(NAMES[name]).backbone
        if "drop_path_rate" in kwargs:
            kwargs["stochastic_depth"] = kwargs.pop("drop_path_rate")
        model: nn.Module = build_model_with_cfg(
            TimmSpineNet,
            name,
            pretrained,
            model_cfg=_override(backbone, kwargs),
            layers=_override(LAYERS if "mobile" not in name else MOBILE_LAYERS, kwargs),
            feature_cfg={"feature_cls": "getter", "out_indices": (0, 1, 2, 3, 4)},
            **kwargs,
        )
        return model

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"{NAMES[name]} of the paper."
    return create


def _override(config: Any, kwargs: dict[str, Any]) -> Any:
    """`config` with its fields among `kwargs`, which are taken out of them."""
    own = {f.name: kwargs.pop(f.name) for f in fields(config) if f.name in kwargs}
    return replace(config, **own)


for _name in NAMES:
    globals()[_name] = register_model(_entrypoint(_name))
