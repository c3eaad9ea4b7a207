"""The paper's models through timm's own functions."""

import subprocess
import sys
from dataclasses import replace

import pytest
import timm
import torch
from timm.models import group_parameters

from spinenet import zoo
from spinenet.backbone import SpineNet, SpineNetConfig
from spinenet.classification import ClassifierConfig, build_classifier
from spinenet.complexity import complexity
from spinenet.genotype import load
from spinenet.timm_models import LAYERS, MOBILE_LAYERS, TimmSpineNet
from spinenet.timm_registry import NAMES

# A dependency of timm's that cannot be imported at first.
FAILING_FIRST = """import spinenet
sys.modules['torchvision'] = None
try:
    import timm
except ImportError:
    del sys.modules['torchvision']
import timm"""
TINY = {"width": 0.0625, "endpoint_filters": 8}


def images(channels: int = 3, side: int = 64) -> torch.Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(0))


def test_every_model_is_listed():
    assert set(timm.list_models("*spinenet*")) == set(NAMES)
    assert set(NAMES.values()) <= set(zoo.MODELS)
    assert timm.list_models("*spinenet*", pretrained=True) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_model_gives_its_five_levels_and_says_so(name: str):
    with torch.device("meta"):
        model = timm.create_model(name, features_only=True)
        features = model(torch.empty(1, 3, 224, 224))
    channels = zoo.model(NAMES[name]).backbone.endpoint_filters
    sides = [28, 14, 7, 4, 2]
    assert [tuple(f.shape) for f in features] == [(1, channels, side, side) for side in sides]
    assert model.feature_info.channels() == [channels] * 5
    assert model.feature_info.reduction() == [8, 16, 32, 64, 128]
    inside = dict(model.model.named_modules())
    assert all(module in inside for module in model.feature_info.module_name())


@pytest.mark.parametrize("name", ["spinenet49", "spinenet_mobile49xs"])
def test_features_are_those_of_the_projects_network(name: str):
    size = TINY if name == "spinenet49" else {}
    model = timm.create_model(name, features_only=True, **size).eval()
    layers = MOBILE_LAYERS if "mobile" in name else LAYERS
    network = SpineNet(replace(zoo.model(NAMES[name]).backbone, **size), layers).eval()
    network.load_state_dict(model.model.backbone.state_dict())
    with torch.no_grad():
        expected, found = network(images()), model(images())
    assert all(torch.equal(a, b) for a, b in zip(expected.values(), found, strict=True))


@pytest.mark.parametrize("indices", [(0,), (3,), (4,), (1, -1), (0, 1, 2)])
def test_chosen_levels_are_those_of_the_whole_network_without_the_blocks_they_do_not_need(
    indices: tuple[int, ...],
):
    whole = timm.create_model("spinenet49", features_only=True, **TINY).eval()
    part = timm.create_model("spinenet49", features_only=True, out_indices=indices, **TINY)
    part.model.backbone.load_state_dict(
        {k: whole.model.backbone.state_dict()[k] for k in part.model.backbone.state_dict()}
    )
    with torch.no_grad():
        features, chosen = whole(images()), part.eval()(images())
    assert all(torch.equal(features[i], f) for i, f in zip(indices, chosen, strict=True))
    assert part.feature_info.reduction() == [2 ** (3 + i % 5) for i in indices]
    part.train()
    sum(f.sum() for f in part(images(side=128))).backward()
    assert [name for name, p in part.named_parameters() if p.grad is None] == []


def test_a_finest_level_alone_is_cheaper():
    costs = []
    for indices in [(0,), (0, 1, 2, 3, 4)]:
        with torch.device("meta"):
            model = timm.create_model("spinenet49", features_only=True, out_indices=indices)
        costs.append(complexity(model, 128).params_m)
    assert costs[0] < 0.75 * costs[1]


def test_a_classifier_has_the_papers_size_and_can_be_given_other_classes():
    with torch.device("meta"):
        model = timm.create_model("spinenet49", num_classes=1001)
        counts = complexity(model, 224)
    # Table 7: 3.5 B multiply-adds, 22.1 M parameters.
    assert counts.macs_b == pytest.approx(3.5, abs=0.05)
    assert counts.params_m == pytest.approx(22.1, abs=0.05)
    model = timm.create_model("spinenet49", num_classes=7, **TINY)
    assert model(images()).shape == (2, 7)
    model.reset_classifier(3)
    assert (model(images()).shape, model.num_classes) == ((2, 3), 3)
    model.reset_classifier(0)
    assert model(images()).shape == (2, model.num_features)


def test_a_trained_classifier_of_the_project_is_taken_over_as_it_is():
    config = ClassifierConfig(backbone=SpineNetConfig(**TINY))
    ours = build_classifier(config, num_classes=5).eval()
    model = timm.create_model("spinenet49", num_classes=5, **TINY).eval()
    model.load_state_dict(ours.state_dict())
    with torch.no_grad():
        assert torch.equal(model(images()), ours(images()))


def test_pooling_then_the_linear_layer_is_the_whole_head():
    model = timm.create_model("spinenet49", num_classes=4, **TINY).eval()
    with torch.no_grad():
        pooled = model.forward_head(model.forward_features(images()), pre_logits=True)
        assert torch.allclose(model.get_classifier()(pooled), model(images()))
    levels = [
        f.mean((-2, -1)) for f in model.forward_intermediates(images(), intermediates_only=True)
    ]
    assert torch.allclose(pooled, sum(levels) / 5, atol=1e-5)  # at 64 pixels every size divides


def test_intermediate_features_come_after_those_that_the_head_takes():
    model = timm.create_model("spinenet49", num_classes=4, **TINY).eval()
    with torch.no_grad():
        features, levels = model.forward_intermediates(images())
        assert torch.equal(features, model.forward_features(images()))
        assert torch.equal(model.forward_head(features), model(images()))
    assert [f.shape[-1] for f in levels] == [8, 4, 2, 1, 1]


@pytest.mark.parametrize(("indices", "places"), [([0, 1], [0, 1]), ([3, 1], [1, 0]), (2, [0, 1])])
def test_a_pruned_model_has_the_levels_that_are_left(indices: int | list[int], places: list[int]):
    model = timm.create_model("spinenet49", **TINY).eval()
    with torch.no_grad():
        wanted = model.forward_intermediates(images(), indices, intermediates_only=True)
        assert model.prune_intermediate_layers(indices, prune_head=False) == places
        features, levels = model.forward_intermediates(images())
        assert torch.equal(features, model.forward_features(images()))
    assert all(torch.equal(levels[i], f) for i, f in zip(places, wanted, strict=True))
    assert [f.shape[-1] for f in levels] == [-(-64 // i["reduction"]) for i in model.feature_info]
    assert model.num_classes == 0  # the mean of other levels is nothing to the old classifier


def test_timms_own_arguments_are_heeded():
    model = timm.create_model("spinenet49", in_chans=5, drop_rate=0.5, drop_path_rate=0.2, **TINY)
    assert model(images(channels=5)).shape == (2, 1000)
    assert model.dropout.p == 0.5
    assert model.backbone.blocks["16"][0].drop_branch.drop_prob == pytest.approx(0.2)
    assert model.default_cfg["first_conv"] in dict(model.named_modules())
    assert model.default_cfg["classifier"] in dict(model.named_modules())


def test_the_names_of_timms_training_script_are_heeded():
    model = timm.create_model(
        "spinenet49",
        genotype="r0-sp53",
        global_pool="avg",
        drop_block_rate=0.1,
        bn_eps=0.25,
        bn_momentum=0.5,
        **TINY,
    )
    assert model.backbone.genotype == load("r0-sp53")
    norm = model.backbone.stem.norm
    assert (norm.eps, norm.momentum) == (0.25, 0.5)
    assert model.backbone.blocks["2"][0].drop.drop_prob == 0.1


def test_activations_can_be_recomputed_and_kept_again():
    model = timm.create_model("spinenet49", num_classes=2, **TINY)
    blocks = [m for group in model.backbone.blocks.values() for m in group]
    for enable, recomputed in [(True, True), (True, True), (False, False)]:
        model.set_grad_checkpointing(enable)
        assert ["forward" in vars(block) for block in blocks] == [recomputed] * len(blocks)
        model(images()).sum().backward()


def test_parameters_are_grouped_from_the_stem_to_the_classifier():
    model = timm.create_model("spinenet49", **TINY)
    groups = list(group_parameters(model, model.group_matcher()).values())
    assert len(groups) == 1 + 17 + 1  # stem, nodes, classifier
    assert {name for group in groups for name in group} == dict(model.named_parameters()).keys()
    firsts = [group[0] for group in groups]
    assert firsts[0].startswith("backbone.stem.")
    assert [".5." in name for name in groups[6]] == [True] * len(groups[6])
    assert firsts[-1].startswith("linear.")


@pytest.mark.parametrize("flavor", ["tf1", "tf2"])
def test_more_channels_leave_the_padding_of_the_stem(flavor: str):
    three, four = (
        timm.create_model("spinenet49", features_only=True, flavor=flavor, in_chans=n, **TINY)
        for n in (3, 4)
    )
    shapes = [[f.shape for f in m(images(channels=n, side=70))] for m, n in ((three, 3), (four, 4))]
    assert shapes[0] == shapes[1]
    convs = [m.model.backbone.stem.conv for m in (three, four)]
    assert type(convs[0]) is type(convs[1])
    assert convs[0].padding == convs[1].padding


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"widht": 0.5}, TypeError, "widht"),
        ({"flavor": "tf3"}, ValueError, "known: tf1, tf2"),
        ({"pretrained": True, **TINY}, RuntimeError, "No pretrained weights"),
        ({"global_pool": "max", **TINY}, ValueError, "use avg"),
        ({"kind": "resnet", **TINY}, TypeError, "kind"),
        ({"genotype": "spinenet49"}, ValueError, "did you mean 'spinenet-49'"),
    ],
)
def test_what_is_not_there_is_refused(arguments: dict, error: type[Exception], named: str):
    with pytest.raises(error, match=named):
        timm.create_model("spinenet49", **arguments)


def test_other_layouts_and_poolings_are_refused():
    model = timm.create_model("spinenet49", **TINY)
    assert isinstance(model, TimmSpineNet)
    with pytest.raises(ValueError, match="use NCHW"):
        model.forward_intermediates(images(), output_fmt="NLC")
    with pytest.raises(ValueError, match="use avg"):
        model.reset_classifier(3, global_pool="max")


def test_importing_the_package_alone_stays_light():
    code = (
        "import sys, spinenet; sys.exit(bool({'torch', 'timm', 'matplotlib'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    "imports",
    [
        "import timm, spinenet",
        "import spinenet.backbone, timm",  # the first imports timm itself
        "import importlib.util, spinenet; importlib.util.find_spec('timm'); import timm",
        FAILING_FIRST,
    ],
)
def test_timm_knows_the_models_in_any_order_of_import(imports: str):
    code = (
        f"import sys, warnings; warnings.simplefilter('error', UserWarning); {imports}\n"
        "names = timm.list_models('spinenet*')\n"
        "model = timm.create_model('spinenet49', features_only=True, width=0.0625)\n"
        "watching = [f for f in sys.meta_path if type(f).__module__ == 'spinenet']\n"
        "print(len(names), len(model.feature_info), len(watching))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == [str(len(NAMES)), "5", "0"], done.stderr
