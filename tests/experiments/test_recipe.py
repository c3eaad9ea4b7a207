"""Recipes and run ids."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules import (
    CocoFolderConfig,
    CropConfig,
    DigitsConfig,
    ImageFolderConfig,
    TransformConfig,
)
from experiments.compose import default_tree, from_tree, override
from experiments.recipe import (
    AUGMENTED_VERSION,
    RECIPE_VERSION,
    RESIZED_VERSION,
    RESNET_VERSION,
    DataConfig,
    OptimConfig,
    Recipe,
    _version,
    run_id,
    semantic_fields,
    to_tree,
)
from spinenet import genotype as genotypes
from spinenet.classification import ClassifierConfig
from spinenet.detection.mask_rcnn import MaskRCNNConfig
from spinenet.detection.retinanet import RetinaNetConfig
from spinenet.resnet import ResNetConfig, ResNetFPNConfig


def test_the_defaults_are_pinned_since_ids_are_differences_from_them():
    # A changed default would give old results to new recipes: raise RECIPE_VERSION instead.
    assert run_id(Recipe(), "data") == "eaae3e595b49"
    assert semantic_fields(Recipe()) == {}


def test_a_kinds_own_defaults_are_no_part_of_the_id_but_the_choice_of_kind_is():
    pyramid = Recipe(model=RetinaNetConfig(backbone=ResNetFPNConfig()))
    assert semantic_fields(pyramid) == {"model.backbone.kind": "resnet-fpn"}
    shallow = Recipe(model=RetinaNetConfig(backbone=ResNetFPNConfig(depth=34)))
    assert semantic_fields(shallow) == {
        "model.backbone.kind": "resnet-fpn",
        "model.backbone.depth": 34,
    }
    assert semantic_fields(Recipe(model=MaskRCNNConfig())) == {"model.kind": "mask-rcnn"}


@pytest.mark.parametrize(
    ("model", "data", "message"),
    [
        (ClassifierConfig(), DataConfig(), "model.kind classifier does not go with .*kind coco"),
        (
            ClassifierConfig(),
            DataConfig(source=ImageFolderConfig()),
            "model.kind classifier does not go with data.transform.kind pad",
        ),
        (
            MaskRCNNConfig(),
            DataConfig(source=ImageFolderConfig(), transform=CropConfig()),
            "model.kind mask-rcnn does not go with .*kind folder; give one of coco, digits",
        ),
    ],
)
def test_a_task_on_data_of_another_task_is_refused(model, data, message):
    with pytest.raises(ValueError, match=message):
        Recipe(model=model, data=data)


def test_the_defaults_are_protocol_a():
    recipe = Recipe()
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.lr) == (250, 256, 0.28)
    assert recipe.data.transform.scale_jitter == (0.8, 1.2)
    assert recipe.data.transform.side == 640
    assert recipe.optim.decay_before_end == (30, 10)


def test_the_id_is_blind_to_paths_and_names():
    recipe = Recipe()
    moved = replace(recipe, data=replace(recipe.data, source=CocoFolderConfig(root="/elsewhere")))
    backbone = replace(
        recipe.model.backbone, genotype=replace(recipe.model.backbone.genotype, name="mine")
    )
    renamed = replace(recipe, model=replace(recipe.model, backbone=backbone))
    assert run_id(recipe, "x") == run_id(moved, "x") == run_id(renamed, "x")


def test_the_id_is_blind_to_how_one_looks():
    recipe = Recipe()
    looked = replace(recipe, eval=replace(recipe.eval, every_epochs=1, scorer="hotcoco"))
    assert run_id(recipe, "x") == run_id(looked, "x")


def test_the_id_sees_the_data_the_seed_and_the_genotypes_content():
    recipe = Recipe()
    other = replace(recipe.model.backbone, genotype=genotypes.load("r0-sp53"))
    changed = [
        run_id(recipe, "y"),
        run_id(replace(recipe, seed=1), "x"),
        run_id(replace(recipe, model=replace(recipe.model, backbone=other)), "x"),
        run_id(replace(recipe, train=replace(recipe.train, threads=2)), "x"),
    ]
    assert len({run_id(recipe, "x"), *changed}) == 5


def test_a_changed_batch_scales_the_learning_rate():
    recipe = Recipe()
    assert replace(recipe, train=replace(recipe.train, batch_size=64)).lr == pytest.approx(0.07)


@given(width=st.floats(0.1, 2), epochs=st.integers(31, 500), digits=st.booleans())
def test_any_recipe_survives_its_tree(width, epochs, digits):
    recipe = Recipe()
    source = DigitsConfig() if digits else CocoFolderConfig(root="somewhere")
    recipe = replace(
        recipe,
        data=replace(recipe.data, source=source),
        train=replace(recipe.train, epochs=epochs),
        model=replace(recipe.model, backbone=replace(recipe.model.backbone, width=width)),
    )
    assert from_tree(to_tree(recipe), origin="test") == recipe


def test_choosing_another_backbone_replaces_the_subtree():
    tree = override(default_tree(), {"model.backbone.resample_alpha": 1.0}, origin="test")
    tree = override(tree, {"model.backbone": {"kind": "resnet-fpn", "width": 0.5}}, origin="test")
    assert tree["model"]["backbone"] == {
        "kind": "resnet-fpn",
        "depth": 50,
        "width": 0.5,
        "endpoint_filters": 256,
        "neck": "fpn",
        "neck_repeats": 7,
        "fusion": "add",
        "spp": False,
    }


AS_IT_IS = TransformConfig(side=128, flip=False, scale_jitter=(1.0, 1.0))


@pytest.mark.parametrize(
    ("model", "source", "transform", "version"),
    [
        (RetinaNetConfig(), DigitsConfig(side=128), AS_IT_IS, RECIPE_VERSION),
        (RetinaNetConfig(), DigitsConfig(side=128), replace(AS_IT_IS, side=96), RESIZED_VERSION),
        (RetinaNetConfig(), CocoFolderConfig(), AS_IT_IS, RESIZED_VERSION),
        (RetinaNetConfig(), CocoFolderConfig(), replace(AS_IT_IS, flip=True), AUGMENTED_VERSION),
        (
            RetinaNetConfig(),
            DigitsConfig(side=128),
            replace(AS_IT_IS, scale_jitter=(0.5, 2.0)),
            AUGMENTED_VERSION,
        ),
        (ClassifierConfig(), ImageFolderConfig(), CropConfig(flip=False), AUGMENTED_VERSION),
        (
            ClassifierConfig(backbone=ResNetConfig()),
            ImageFolderConfig(),
            CropConfig(),
            RESNET_VERSION,
        ),
        (
            RetinaNetConfig(backbone=ResNetFPNConfig()),
            DigitsConfig(side=128),
            AS_IT_IS,
            RESNET_VERSION,
        ),
    ],
)
def test_a_recipe_has_the_version_of_what_last_changed_its_numerics(
    model, source, transform, version
):
    recipe = Recipe(model, DataConfig(source, transform), OptimConfig(name="adamw"))
    assert _version(recipe) == version
