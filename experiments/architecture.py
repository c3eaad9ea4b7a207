"""What `show` prints of an architecture: its blocks in order, each with what it costs.

An architecture is a model of the paper by name, a genotype by name or file, or a study's variant as
STUDY:VARIANT. A model is counted with its official head of 91 classes, as the paper counts; a
genotype alone, unscaled, at 640 pixels; a variant's backbone alone, at the paper's size.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, cast

from torch import nn

from experiments.counting import OFFICIAL_CLASSES, full_size
from experiments.errors import UserError, did_you_mean
from experiments.study import Study
from experiments.study_file import load_study
from spinenet import genotype as genotypes
from spinenet import zoo
from spinenet.comparison import compare, edges
from spinenet.complexity import Complexity, complexity, without_values
from spinenet.config import LayerConfig, ResNetConfig, SpineNetConfig
from spinenet.detection.retinanet import build_backbone, build_retinanet
from spinenet.genotype import EXPANSION, Genotype
from spinenet.resnet import ResNetFPN
from spinenet.yaml_text import is_yaml

SIDE = 640

Row = dict[str, Any]


@dataclass(frozen=True)
class Architecture:
    """A named backbone at the side it is counted at; `model` is set for the paper's models."""

    name: str
    backbone: zoo.BackboneConfig
    side: int
    model: zoo.Model | None = None

    @property
    def genotype(self) -> Genotype:
        """The genotype, named as the architecture; a ResNet has none, which is a UserError."""
        if not isinstance(self.backbone, SpineNetConfig):
            raise UserError(
                f"{self.name}: a ResNet has no genotype to draw or compare; drop -o and --diff"
            )
        return replace(self.backbone.genotype, name=self.name)


def find(name: str) -> Architecture:
    """A model of the paper, a study's variant, a shipped genotype, or a genotype file, in this
    order.
    """
    if name in zoo.MODELS:
        model = zoo.model(name)
        return Architecture(name, model.backbone, model.side, model)
    if ":" in name:
        study, _, variant = name.rpartition(":")
        return _of_variant(load_study(study), variant)
    if is_yaml(name) or name in genotypes.shipped():
        genotype = genotypes.load(name)
        return Architecture(genotype.name, SpineNetConfig(genotype=genotype), SIDE)
    raise UserError(
        f"no model {name!r}; {_nearest(name)}; or give a genotype's .yaml, or STUDY:VARIANT"
    )


def _nearest(name: str) -> str:
    """The id that a name is nearest to, by its own letters or by the model's title in tables."""
    from experiments.inspection import model_titles  # reads studies, which only a mistake needs

    ids = sorted({*zoo.MODELS, *genotypes.shipped()})
    words = {title.lower(): id_ for title, id_ in model_titles().items()} | {i: i for i in ids}
    near = get_close_matches(name.lower(), words, n=1, cutoff=0.5)
    hint = f"did you mean {words[near[0]]!r}? " if near else ""
    return f"{hint}known: {', '.join(ids)}"


def _of_variant(study: Study, name: str) -> Architecture:
    """The backbone of a study's variant at the paper's size."""
    if name not in study.variants:
        hint = did_you_mean(name, study.variants)
        raise UserError(f"{study.origin}: unknown variant {name!r}; {hint}")
    variant = study.variants[name]
    if variant.unpublished:
        raise UserError(f"{study.origin}: variant {name!r} cannot be shown: {variant.unpublished}")
    recipe = full_size(study, variant)
    if isinstance(recipe.model.backbone, ResNetConfig):
        raise UserError(
            f"{study.origin}: variant {name!r} is a ResNet without a neck, which is not shown; "
            "its stages are those of a model under one, such as r50-fpn"
        )
    return Architecture(variant.label, recipe.model.backbone, recipe.data.transform.side)


def describe(architecture: Architecture) -> dict[str, Any]:
    """Name, side, rows of the table, and the counts of backbone and detector."""
    config = architecture.backbone
    with without_values():
        backbone = build_backbone(config, LayerConfig())
    counts = complexity(backbone, architecture.side)
    if isinstance(config, SpineNetConfig):
        rows = _blocks(config, counts)
    else:
        rows = _stages(cast(ResNetFPN, backbone), config.neck, counts)
    facts: dict[str, Any] = {"name": architecture.name, "side": architecture.side, "rows": rows}
    facts |= {"backbone_macs_b": counts.macs_b, "backbone_params_m": counts.params_m}
    if architecture.model is not None:
        with without_values():
            detector = build_retinanet(
                architecture.model.retinanet(), OFFICIAL_CLASSES["retinanet"]
            )
        whole = complexity(detector, architecture.side)
        facts |= {"macs_b": whole.macs_b, "params_m": whole.params_m}
    return facts


def differences(a: Architecture, b: Architecture) -> dict[str, Any]:
    """What two SpineNets differ in: `scaling`, field → its two values, and `blocks`, pairs of rows,
    with None where one of the two has no such block.
    """
    blocks = _different_blocks(a.genotype, b.genotype)
    scaling = {
        field.name: [getattr(a.backbone, field.name), getattr(b.backbone, field.name)]
        for field in fields(SpineNetConfig)
        if field.name != "genotype"
    }
    different = {name: pair for name, pair in scaling.items() if pair[0] != pair[1]}
    return {"scaling": different, "blocks": blocks}


def _different_blocks(a: Genotype, b: Genotype) -> list[tuple[Row | None, Row | None]]:
    both, rows_a, rows_b = compare(a, b), _rows(a), _rows(b)
    edges_a, edges_b = edges(a), edges(b)
    found: list[tuple[Row | None, Row | None]] = []
    for i, j in both.matched.items():
        into_a = {both.edges.get(e) for e in edges_a if e[1] == i}
        into_b = {e for e in edges_b if e[1] == j}
        if i not in both.blocks or into_a != into_b:
            found.append((rows_a[i], rows_b[j]))
    found += [(row, None) for i, row in enumerate(rows_a) if i not in both.matched]
    found += [(None, row) for j, row in enumerate(rows_b) if j not in both.matched.values()]
    return found


def _rows(genotype: Genotype) -> list[Row]:
    merged = genotype.merged()
    return [
        {
            "block": index,
            "level": node.level,
            "kind": node.kind,
            "parents": list(node.parents),
            "orphans": list(merged.get(index, ())),
            "output": node.is_output,
        }
        for index, node in enumerate(genotype.nodes)
    ]


def _blocks(config: SpineNetConfig, counts: Complexity) -> list[Row]:
    """A row per block: what the genotype says, and the multiply-adds of all that makes it up, which
    are none for a block that no output depends on.
    """
    by_module, genotype = counts.macs_b_by_module, config.genotype
    rows: list[Row] = [{"block": "stem", "macs_b": by_module["stem"]}]
    for row, node in zip(_rows(genotype), genotype.nodes, strict=True):
        index = row["block"]
        parts = [f"resample.{index}.{k}" for k in range(len(node.parents))]
        parts += [f"fuse.{index}", f"blocks.{index}"]
        if node.is_output:
            parts.append(f"endpoints.{node.level}")
        macs = sum(by_module.get(part, 0.0) for part in parts)
        channels = EXPANSION[node.kind] * int(genotype.widths[node.level] * config.width)
        rows.append(row | {"channels": channels, "macs_b": macs})
    return rows


def _stages(network: ResNetFPN, neck: str, counts: Complexity) -> list[Row]:
    """A row per stage of the ResNet, and one each for spatial pyramid pooling, if any, and neck."""
    by_module = counts.macs_b_by_module
    rows: list[Row] = [{"stage": "stem", "level": 2, "macs_b": by_module["body.conv1"]}]
    for k in range(1, 5):
        stage: Any = getattr(network.body, f"layer{k}")
        last = [m for m in stage[-1].modules() if isinstance(m, nn.Conv2d)][-1]
        shape = {"stage": f"C{k + 1}", "level": k + 1, "blocks": len(stage)}
        macs = by_module[f"body.layer{k}"]
        rows.append(shape | {"channels": last.out_channels, "macs_b": macs})
    if "spp" in by_module:
        rows.append(shape | {"stage": "SPP", "blocks": None, "macs_b": by_module["spp"]})
    (channels,) = set(network.channels.values())
    whole = {"stage": neck, "level": "3-7", "channels": channels, "macs_b": by_module["fpn"]}
    return [*rows, whole]
