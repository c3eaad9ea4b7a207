"""Every network compiles as one graph, in training too, and computes what it did before.

AOTAutograd traces every kind of layer and edge; the networks that only have more of them are
captured as one graph, which is where a break would show. Inductor's own code takes minutes of a C++
compiler, so that case is run on demand: `pytest -m inductor`.
"""

from dataclasses import replace

import pytest
import torch
from torch import nn

from spinenet import zoo
from spinenet.backbone import SpineNetConfig
from spinenet.detection.head import HeadConfig
from spinenet.detection.retinanet import RetinaNetConfig, build_backbone, build_retinanet
from spinenet.genotype import BlockSpec, Genotype
from spinenet.layers import LayerConfig
from spinenet.resnet import ResNetFPNConfig

# Edges up, down by one level and by more; an orphan; an output that others read.
SMALL = Genotype(
    name="small",
    stem=(2,),
    blocks=(
        BlockSpec(5, "residual", (0,)),
        BlockSpec(3, "bottleneck", (0, 1)),
        BlockSpec(3, "bottleneck", (0, 1), True),
        BlockSpec(6, "bottleneck", (0, 3), True),
    ),
)
BACKBONES = {
    "spinenet-49": SpineNetConfig(width=0.0625, endpoint_filters=8),
    "small": SpineNetConfig(genotype=SMALL, width=0.0625, endpoint_filters=8),
    "concat": SpineNetConfig(genotype=SMALL, width=0.0625, endpoint_filters=8, fusion="concat"),
    "mobile": zoo.model("mobile-spinenet-49xs").backbone,
    "fpn": ResNetFPNConfig(width=0.0625, endpoint_filters=8),
    "nas-fpn": ResNetFPNConfig(
        depth=34, width=0.0625, endpoint_filters=8, neck="nas-fpn", neck_repeats=2
    ),
    "pan": ResNetFPNConfig(width=0.0625, endpoint_filters=8, neck="pan", fusion="concat", spp=True),
}


# The other models of the paper, at a sixteenth of their widths but for the narrowest.
DEEPER = ["spinenet-96", "spinenet-143", "spinenet-190", "r0-sp53", "r23-sp30", "r50-nas-fpn"]
WHOLE = "spinenet-49s"


def one_graph(network: nn.Module, backend: str = "aot_eager") -> nn.Module:
    torch._dynamo.reset()
    compiled: nn.Module = torch.compile(network, fullgraph=True, backend=backend)  # type: ignore[assignment]
    return compiled


def images(side: int = 128) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def assert_compiles(network: nn.Module, backend: str, side: int = 128) -> None:
    """`network`, in evaluation, gives the same maps as one graph."""
    compiled = one_graph(network.eval(), backend)
    with torch.no_grad():
        plain, fast = network(images(side)), compiled(images(side))
    for level, features in plain.items():
        torch.testing.assert_close(fast[level], features, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "flavor"),
    [
        ("spinenet-49", "tf1"),
        ("small", "tf2"),
        ("concat", "tf1"),
        ("mobile", "tf2"),
        ("fpn", "tf1"),
        ("nas-fpn", "tf2"),
        ("pan", "tf1"),
    ],
)
def test_a_backbone_compiles_without_a_graph_break(name: str, flavor: str):
    network = build_backbone(BACKBONES[name], LayerConfig(flavor=flavor))  # type: ignore[arg-type]
    assert_compiles(network, "aot_eager")


@pytest.mark.parametrize("name", [WHOLE, *DEEPER])
def test_every_model_of_the_paper_is_captured_as_one_graph(name: str):
    backbone = zoo.model(name).backbone
    if name != WHOLE:
        backbone = replace(backbone, width=0.0625, endpoint_filters=8)
    assert_compiles(build_backbone(backbone, LayerConfig()), "eager", side=64)


@pytest.mark.inductor
def test_inductors_code_gives_the_same_maps():
    network = build_backbone(BACKBONES["spinenet-49"], LayerConfig(activation="swish"))
    assert_compiles(network, "inductor")


def test_a_detector_in_training_compiles_and_has_the_same_gradients():
    layers = LayerConfig(stochastic_depth=0.2, drop_block=0.1, drop_block_size=3)
    config = RetinaNetConfig(BACKBONES["small"], layers=layers, head=HeadConfig(1, 8))  # type: ignore[arg-type]
    network = build_retinanet(config, num_classes=3).train()
    gradients = []
    for form in (network, one_graph(network)):
        torch.manual_seed(0)  # the blocks and cells to drop
        network.zero_grad()
        logits, codes = form(images())
        (logits.mean() + codes.square().mean()).backward()
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})
    plain, fast = gradients
    for name, gradient in plain.items():
        torch.testing.assert_close(fast[name], gradient, rtol=1e-4, atol=1e-6, msg=name)
