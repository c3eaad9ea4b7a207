"""A recipe: all that decides a run's result, typed; and the run id that follows from it.

The defaults are the paper's: protocol A on COCO at 640 pixels (section 4.1). The id is a hash over
the fields that differ from these defaults, the genotype's content and the data's fingerprint.
Names, paths, devices, worker counts and how often one validates are no part of it, so the same
recipe met in two studies is one run. A new field whose default keeps the old behaviour keeps all
ids; whoever changes a default or the numerics raises RECIPE_VERSION, or, where only some recipes
are touched, the version of those.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from typing import Any, Literal, get_args

from datamodules import (
    ClassSource,
    ClassSourceConfig,
    CocoFolderConfig,
    CropConfig,
    DataSourceConfig,
    DigitsConfig,
    OnError,
    Source,
    SourceConfig,
    TransformConfig,
    open_data,
)
from spinenet.config import ClassifierConfig, ResNetConfig, SpineNetConfig
from spinenet.detection.config import MaskRCNNConfig, RetinaNetConfig
from spinenet.genotype import Genotype

RECIPE_VERSION = 2
CLIPPED_L2_VERSION = 3  # before it, these recipes added weight decay after clipping
RESIZED_VERSION = 4  # before it, detectors' training pictures were resized in float32
AUGMENTED_VERSION = 5  # before it, augmentation and the drawing of digits had random streams alike
RESNET_VERSION = 6  # before it, the last norm of a ResNet's block started at 0

ModelConfig = RetinaNetConfig | MaskRCNNConfig | ClassifierConfig


@dataclass(frozen=True)
class DataConfig:
    """Which pictures, and how they reach the network. `on_error` says whether a damaged picture or
    annotation ends the run, or is left out and counted in the result; to find them all, every
    picture is then decoded before training.
    """

    source: DataSourceConfig = field(default_factory=CocoFolderConfig)
    transform: TransformConfig | CropConfig = field(default_factory=TransformConfig)
    on_error: OnError = "raise"


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser and schedule.

    `lr` is meant for a batch of `lr_batch` pictures and scales linearly with the batch in use. The
    step schedule multiplies it by 0.1 at each of `decay_before_end` epochs from the end; cosine
    ends at zero. Weight decay acts on convolution kernels only; SGD's is clipped with the rest of
    the gradient. `clip_norm` 0 does not clip.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.28
    lr_batch: int = 256
    momentum: float = 0.9
    weight_decay: float = 4e-5
    schedule: Literal["step", "cosine"] = "step"
    decay_before_end: tuple[float, ...] = (30, 10)
    warmup_epochs: float = 5
    clip_norm: float = 10.0

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.lr_batch < 1:
            raise ValueError(f"lr {self.lr} and lr_batch {self.lr_batch} must be positive")
        for name in ("momentum", "weight_decay", "warmup_epochs", "clip_norm"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")

    @property
    def clips_l2(self) -> bool:
        """Whether weight decay is a part of a gradient that is clipped."""
        return self.name == "sgd" and self.clip_norm > 0 and self.weight_decay > 0


@dataclass(frozen=True)
class TrainConfig:
    """How long, how many at once, and in which arithmetic.

    `threads` per process is part of a recipe because sums in another order differ in the last bit,
    and so is `compile`, which fuses operators: a minute or two to start with, and worth it on a
    GPU. Over the last `frozen_norms` of the steps, a share, the norms keep their running statistics
    and normalise by them, so that the network is trained as it is evaluated. `start` is the digest
    of the weights that the network starts from (`experiments.starting`), empty for the seed's own.

    `accumulate` parts of a batch go through the network one after the other before a step of the
    optimiser, for memory that a whole batch does not fit into. It is no mere means: norms see, and
    losses are normalised over, a part.
    """

    epochs: int = 250
    batch_size: int = 256
    precision: Literal["32", "bf16"] = "32"
    threads: int = 1
    ema_decay: float = 0.0
    frozen_norms: float = 0.0
    compile: bool = False
    start: str = ""
    accumulate: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "threads", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate {self.accumulate} must divide batch_size {self.batch_size} into "
                "equal parts"
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay {self.ema_decay} must be in [0, 1); 0 is off")
        if not 0 <= self.frozen_norms <= 1:
            raise ValueError(
                f"frozen_norms {self.frozen_norms} must be in [0, 1], a share of the steps"
            )
        if self.start and not re.fullmatch("[0-9a-f]{64}", self.start):
            raise ValueError(f"start {self.start!r} is no digest; give the file with --weights")


@dataclass(frozen=True)
class EvalConfig:
    """Validation every so many epochs, and always after the last.

    Detections are scored at the end by the reference, or for speed by `scorer` hotcoco, which is as
    good: tests hold the two equal.
    """

    every_epochs: int = 10
    batch_size: int = 32
    scorer: Literal["pycocotools", "hotcoco"] = "pycocotools"

    def __post_init__(self) -> None:
        if self.every_epochs < 1 or self.batch_size < 1:
            raise ValueError("every_epochs and batch_size must be at least 1")


@dataclass(frozen=True)
class Recipe:
    """One run, completely described."""

    model: ModelConfig = field(default_factory=RetinaNetConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        _check_task(self.model, self.data)
        epochs, optim = self.train.epochs, self.optim
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} must not be negative")
        if optim.warmup_epochs >= epochs:
            raise ValueError(
                f"optim.warmup_epochs {optim.warmup_epochs} must be below train.epochs {epochs}"
            )
        if optim.schedule == "step" and max(optim.decay_before_end, default=0) >= epochs:
            raise ValueError(
                f"optim.decay_before_end {list(optim.decay_before_end)} starts before the first of "
                f"train.epochs {epochs}; shorten it, or set optim.schedule=cosine"
            )

    @property
    def lr(self) -> float:
        """The learning rate of the batch in use."""
        return self.optim.lr * self.train.batch_size / self.optim.lr_batch

    @property
    def deviates(self) -> tuple[str, ...]:
        """What of the schedule is not as it was meant: `batch`, where another size than that of
        the learning rate is in use, and `accumulate`, where it goes through in parts.
        """
        batch = ("batch",) if self.train.batch_size != self.optim.lr_batch else ()
        return (*batch, "accumulate") if self.train.accumulate > 1 else batch

    @property
    def learns_masks(self) -> bool:
        """Whether the data's masks are trained on, and so are part of the data's identity."""
        return isinstance(self.model, MaskRCNNConfig)

    @property
    def name(self) -> str:
        """A short name for people: network, data, seed."""
        backbone = self.model.backbone
        if isinstance(backbone, SpineNetConfig):
            repeats = f"-x{backbone.block_repeats}" if backbone.block_repeats > 1 else ""
            network = f"{backbone.genotype.name.replace('+', '-')}{repeats}"
        elif isinstance(backbone, ResNetConfig):
            network = f"r{backbone.depth}"
        else:
            network = f"r{backbone.depth}-{backbone.neck}"
        task = "" if isinstance(self.model, RetinaNetConfig) else f"{self.model.kind}-"
        return f"{task}{network}-{self.data.source.kind}-s{self.seed}"


def _check_task(model: ModelConfig, data: DataConfig) -> None:
    """A classifier needs labelled pictures, cropped; a detector needs boxes, and whole pictures."""
    classifies = isinstance(model, ClassifierConfig)
    if classifies != isinstance(data.source, ClassSourceConfig):
        kinds = [_kind(c) for c in get_args(ClassSourceConfig if classifies else SourceConfig)]
        raise ValueError(
            f"model.kind {model.kind} does not go with data.source.kind {data.source.kind}; "
            f"give one of {', '.join(kinds)}"
        )
    if classifies != isinstance(data.transform, CropConfig):
        raise ValueError(
            f"model.kind {model.kind} does not go with data.transform.kind {data.transform.kind}; "
            f"set it to {'crop' if classifies else 'pad'}"
        )


def _kind(config: type) -> str:
    return str(next(f.default for f in fields(config) if f.name == "kind"))


def to_tree(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain mappings, lists and numbers; `compose.from_tree` reads it back."""
    tree: dict[str, Any] = plain(recipe)
    return tree


def _version(recipe: Recipe) -> int:
    """The version of the numerics that a recipe is trained by."""
    source, transform = recipe.data.source, recipe.data.transform
    if not isinstance(recipe.model.backbone, SpineNetConfig):
        return RESNET_VERSION
    if isinstance(transform, CropConfig) or transform.flip or transform.scale_jitter != (1.0, 1.0):
        return AUGMENTED_VERSION
    if not isinstance(source, DigitsConfig) or source.side != transform.side:
        return RESIZED_VERSION
    return CLIPPED_L2_VERSION if recipe.optim.clips_l2 else RECIPE_VERSION


def open_data_of(recipe: Recipe) -> Source | ClassSource:
    """The data that the recipe is trained on."""
    data = recipe.data
    return open_data(data.source, on_error=data.on_error, masks=recipe.learns_masks)


def run_id(recipe: Recipe, fingerprint: str) -> str:
    """Twelve hexadecimal digits that name the result of `recipe` on data of this `fingerprint`."""
    return run_ids(recipe, [recipe.seed], fingerprint)[0]


def run_ids(recipe: Recipe, seeds: Iterable[int], fingerprint: str) -> list[str]:
    """The names of the results of `recipe` with each of these seeds: what else it says is looked at
    once for all of them.
    """
    different = semantic_fields(replace(recipe, seed=Recipe().seed))
    body = {"version": _version(recipe), "data": fingerprint, "fields": different}
    found = []
    for seed in seeds:
        decided = different if seed == Recipe().seed else {**different, "seed": seed}
        canonical = json.dumps({**body, "fields": decided}, sort_keys=True, separators=(",", ":"))
        found.append(hashlib.sha256(canonical.encode()).hexdigest()[:12])
    return found


def semantic_fields(recipe: Recipe) -> dict[str, Any]:
    """Dotted fields that decide the result and differ from the defaults; the data's identity is
    apart.

    Where a recipe chooses another kind of model, backbone or transform, that kind's own defaults
    count, so that a new field of any kind keeps the ids of what does not use it.
    """
    model, data = recipe.model, recipe.data
    mine, default = flatten(_content(recipe)), _paper_defaults()
    kinds = type(model), type(model.backbone), data.source, type(data.transform)
    own = _defaults_of(*kinds)  # type: ignore[arg-type]  # classes are hashable
    usual = {k: (default if k.endswith(".kind") else own).get(k, _ABSENT) for k in mine}
    return {key: value for key, value in mine.items() if usual[key] != value}


@cache  # with the next one: what every cell of a grid is compared with
def _paper_defaults() -> dict[str, Any]:
    return flatten(_content(Recipe()))


@cache
def _defaults_of(
    model: type, backbone: type, source: DataSourceConfig, transform: type
) -> dict[str, Any]:
    data = DataConfig(source=source, transform=transform())
    return flatten(_content(Recipe(model=model(backbone=backbone()), data=data)))


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings → dotted keys; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def plain(value: Any) -> Any:
    """Configuration dataclasses as mappings, tuples as lists, genotypes as their tables."""
    if isinstance(value, Genotype):
        return value.to_mapping()
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return value


_ABSENT = object()


def _content(recipe: Recipe) -> dict[str, Any]:
    tree = to_tree(recipe)
    del tree["data"]["source"]  # its fingerprint stands for it
    del tree["eval"]  # looking does not change what is looked at
    backbone = recipe.model.backbone
    if isinstance(backbone, SpineNetConfig):
        content = json.dumps(backbone.genotype.content(), sort_keys=True)
        tree["model"]["backbone"]["genotype"] = content
    return tree
