"""A SpineNet as timm builds and uses its models: what `spinenet.timm_registry` names.

The classifier's state is that of `spinenet.classification.Classifier`. It cannot be scripted, since
its maps are looked up by level: use `torch.export`, or `torch.compile`.

Shapes: B batch, C channels, K classes, H W spatial.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, cast

from timm.models import build_model_with_cfg
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from spinenet import genotype as genotypes
from spinenet import zoo
from spinenet.backbone import SpineNet
from spinenet.classification import merge_levels
from spinenet.config import ClassifierConfig, LayerConfig, SpineNetConfig
from spinenet.layers import init_backbone
from spinenet.recompute import recompute_blocks

LAYERS = ClassifierConfig().layers
MOBILE_LAYERS = replace(LAYERS, activation="swish")  # as all mobile networks of the paper
# timm's names of what LayerConfig calls otherwise.
OURS = {
    "drop_path_rate": "stochastic_depth",
    "drop_block_rate": "drop_block",
    "bn_eps": "bn_epsilon",
}


class TimmSpineNet(nn.Module):
    """A SpineNet with what timm expects of a model; the head is the paper's (section 4.2): the mean
    of all levels, pooled, through one linear layer.

    forward: (B, in_chans, H, W) → (B, K), or (B, C) where `num_classes` is 0. Raises ValueError
    for a `global_pool` other than avg.
    """

    def __init__(
        self,
        *,
        cfg: SpineNetConfig,
        layers: LayerConfig = LAYERS,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
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
        self.reset_classifier(num_classes, global_pool)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, in_chans, H, W) → (B, C, ceil(H / 8), ceil(W / 8)): the mean of all levels."""
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
        """The maps of the levels at `indices` (0 is the finest), alone or after what
        `forward_features` gives (timm's protocol). All levels are computed together, so
        `stop_early` changes nothing, and the maps are normalised already.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt {output_fmt!r} is not supported; use NCHW")
        taken, _ = feature_take_indices(len(self.levels), indices)
        features = self.backbone(x)
        maps = [features[self.levels[i]] for i in taken]
        return maps if intermediates_only else (merge_levels(features), maps)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Give up the levels not at `indices`, the blocks that only they depend on, and the
        classifier, which without `prune_head` stays where all levels do. Returns the places of the
        kept levels among those that are left, in the order of `indices`.
        """
        taken, _ = feature_take_indices(len(self.levels), indices)
        kept = sorted(set(taken))
        if prune_head or len(kept) < len(self.levels):
            self.reset_classifier(0)
        self.levels = [self.levels[i] for i in kept]
        self.feature_info = [self.feature_info[i] for i in kept]
        self.backbone.keep(self.levels)
        return [kept.index(i) for i in taken]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass instead of keeping its activations, or stop."""
        recompute_blocks(self.backbone, enable=enable)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns by which timm groups parameters from the stem on, for learning rates by layer: a
        group per node with its edges, in order of computation, the endpoints in the last node's.
        `coarse` changes nothing.
        """
        return {
            "stem": r"^backbone\.stem",
            "blocks": [
                (r"^backbone\.(?:blocks|resample|fuse)\.(\d+)", None),
                (r"^backbone\.endpoints", (99999,)),  # timm's sign for: with the last block
            ],
        }

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


def build(name: str, zoo_name: str, pretrained: bool, kwargs: dict[str, Any]) -> nn.Module:
    """timm's model `name`, which is the zoo's `zoo_name`, with the arguments given to timm."""
    backbone = zoo.model(zoo_name).backbone
    kwargs = {OURS.get(name, name): value for name, value in kwargs.items()}
    if isinstance(kwargs.get("genotype"), str):
        kwargs["genotype"] = genotypes.load(kwargs["genotype"])
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


def _override(config: Any, kwargs: dict[str, Any]) -> Any:
    """`config` with its fields but its kind among `kwargs`, which are taken out of them."""
    names = {f.name for f in fields(config)} - {"kind"}
    own = {name: kwargs.pop(name) for name in names & kwargs.keys()}
    return replace(config, **own)
