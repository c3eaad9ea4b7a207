"""Studies: the shipped ones hold together, and one's own are a few lines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from datamodules import CocoFolderConfig
from experiments.compose import from_tree
from experiments.errors import UserError
from experiments.store import Store
from experiments.study import Selection, cells, variant_tree
from experiments.study_file import (
    load_profile,
    load_study,
    parse_source,
    shipped_profiles,
    shipped_studies,
)
from experiments.tables import make_report, to_markdown
from spinenet import zoo

PROFILES = [name for name in shipped_profiles() if name != "proxy"]  # which is the search's
PUBLISHED_DATA = (None, "gpu", "paper")
MOBILE = ("mobile-49xs", "mobile-49s", "mobile-49")

FOUR_LINES = """\
base: ladder
variants:
  wide: {from: spinenet-49, model.backbone.width: 0.35}
  concrete: {from: wide, model.backbone: {kind: spinenet, block_repeats: 2}}
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", shipped_studies())
@pytest.mark.parametrize("profile", [None, *PROFILES])
def test_every_shipped_study_composes_in_every_profile(name, profile):
    study = load_study(name)
    size = load_profile(profile) if profile else None
    for variant in study.published:
        recipe = from_tree(variant_tree(study, variant, size), origin=name)
        classifies = recipe.model.kind == "classifier"
        embedded, own = ("digits-classes", "folder") if classifies else ("digits", "coco")
        own = "inaturalist" if name == "inaturalist" else own
        assert recipe.data.source.kind == (own if profile in PUBLISHED_DATA else embedded)
        for value in variant.paper.values():
            assert value.source


@pytest.mark.parametrize(
    ("study_name", "renamed"),
    [
        ("one_stage", {"spinenet-49-896": None}),
        ("two_stage", {"spinenet-190-released": "spinenet-190", "spinenet-190": None}),
        ("mobile", {name: f"mobile-spinenet-{name[7:]}" for name in MOBILE}),
        ("classification", {"r34": None} | {f"r{n}": f"r{n}-fpn" for n in (50, 101, 152)}),
    ],
)
def test_the_studies_full_size_networks_are_the_zoos(study_name, renamed):
    study = load_study(study_name)
    for variant in study.published:
        name = renamed.get(variant.id, variant.id)
        if name is None:
            continue  # a size or a network that has no name of its own
        recipe = from_tree(variant_tree(study, variant, None), origin=study_name)
        known, layers = zoo.model(name), recipe.model.layers
        side = {"retinanet": known.side, "mask-rcnn": known.two_stage.side or known.side}
        configs = {
            "retinanet": known.retinanet,
            "mask-rcnn": known.mask_rcnn,
            "classifier": known.classifier,
        }
        assert recipe.model == configs[recipe.model.kind](layers), variant.id
        assert recipe.data.transform.side == side.get(recipe.model.kind, 224), variant.id


def test_a_variant_of_ones_own_inherits_the_base_study():
    study = load_study("ladder")
    assert list(study.variants) == [
        "r50-fpn",
        "permutation-only",
        "r0-sp53",
        "spinenet-49",
        "spinenet-96",
    ]
    assert len(study.claims) == 6


def test_what_a_variant_states_outlives_the_profile(tmp_path):
    study = load_study(write(tmp_path, FOUR_LINES))
    assert list(study.variants)[-2:] == ["wide", "concrete"]
    tree = variant_tree(study, study.variants["wide"], load_profile("embedded"))
    recipe = from_tree(tree, origin="mine")
    assert recipe.model.backbone.width == 0.35
    assert recipe.model.backbone.endpoint_filters == 64
    assert recipe.model.backbone.genotype.name == "spinenet-49"


def test_from_adds_to_a_variant_instead_of_replacing_it(tmp_path):
    study = load_study(write(tmp_path, FOUR_LINES))
    tree = variant_tree(study, study.variants["concrete"], load_profile("embedded"))
    backbone = from_tree(tree, origin="mine").model.backbone
    assert (backbone.width, backbone.block_repeats) == (0.35, 2)


def test_the_base_studys_cells_are_the_same_runs(tmp_path):
    selection = Selection(profile=load_profile("smoke"), seeds=2)
    base = {c.run_id for c in cells(load_study("ladder"), selection)}
    mine = {c.run_id for c in cells(load_study(write(tmp_path, FOUR_LINES)), selection)}
    assert base < mine
    assert len(mine - base) == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bas: ladder\n", "mine.yaml: unknown key 'bas'; did you mean 'base'"),
        ("base: laddder\n", "mine.yaml: base: no study 'laddder'; did you mean 'ladder'"),
        ("title: x\n", "give recipe: NAME, or base: STUDY"),
        (
            "base: ladder\nvariants:\n  a: {from: spinenet49}\n",
            "variants.a.from: unknown variant 'spinenet49'; did you mean 'spinenet-49'",
        ),
        (
            "base: ladder\nvariants:\n  a: {paper: {AP: {vallue: 3}}}\n",
            "variants.a.paper.AP: unknown key 'vallue'; did you mean 'value'",
        ),
        (
            "base: ladder\nvariants:\n  a: {paper: {AP: {value: 3}}}\n",
            "variants.a.paper.AP.source: is missing; give one",
        ),
        (
            "base: ladder\nvariants:\n  a: {paper: {AP: {value: 3, source: ' '}}}\n",
            "variants.a.paper.AP: .*a printed number needs its source, such as 'table 2'",
        ),
        (
            "base: ladder\nvariants:\n  a: {paper: {AP: 41}}\n",
            r"mine.yaml: variants.a.paper.AP: 41 has no source; .* {value: 41, source: .table 2.}",
        ),
        ("", "mine.yaml: the file says nothing; write into it"),
        ("null", "mine.yaml: the file says nothing; write into it"),
        ("# later\n\n", "mine.yaml: the file says nothing; write into it"),
        (
            "base: ladder\nprotocol: D\n",
            "mine.yaml: protocol: unknown protocol 'D'; known: A, B, C",
        ),
        (
            "base: ladder\nvariants:\n  a: {from: r0-sp53, protocol: b}\n",
            "variants.a.protocol: unknown protocol 'b'; .*known: A, B, C",
        ),
        (
            "base: ladder\nclaims:\n  - {id: x, text: t, a: r50, b: r0-sp53, "
            "relation: greater, source: s}\n",
            r"claims\[0\].a: unknown variant 'r50'; did you mean 'r50-fpn'",
        ),
        (
            "base: ladder\nclaims:\n  - {id: x, text: t, a: r50-fpn, b: r0-sp53, "
            "relation: equal_within, source: s}\n",
            r"claims\[0\]: equal_within needs a margin above 0",
        ),
    ],
)
def test_a_mistake_names_file_key_value_and_way_out(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load_study(write(tmp_path, text))


def test_a_misspelt_override_names_the_variant(tmp_path):
    study = load_study(write(tmp_path, "base: ladder\nvariants:\n  a: {model.backbone.widht: 2}\n"))
    with pytest.raises(UserError, match=r"mine.yaml: variants.a: .*'widht'.*'width'"):
        variant_tree(study, study.variants["a"], None)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("form", "from"),
        ("tims", "times"),
        ("papr", "paper"),
        ("titel", "title"),
        ("protocoll", "protocol"),
        ("fullsize", "full_size"),
        ("paper.AP", "paper"),
        ("modle.backbone.width", "model"),
    ],
)
def test_a_misspelt_key_of_a_variant_is_answered_with_a_variants_keys(tmp_path, key, meant):
    told = f"mine.yaml: variants.a: unknown key '{key}'; did you mean '{meant}'[?] known: .*, from,"
    with pytest.raises(UserError, match=told):
        load_study(write(tmp_path, f"base: ladder\nvariants:\n  a: {{{key}: x}}\n"))


@pytest.mark.parametrize("value", ["0.75", "[a, b]", "2020-06-14", "yes"])
@pytest.mark.parametrize("key", ["title", "why", "unpublished"])
def test_what_people_read_must_be_text(tmp_path, key, value, run):
    file = write(tmp_path, f"base: ladder\nvariants:\n  a: {{train.epochs: 9, {key}: {value}}}\n")
    code, _, err = run("check", file)
    assert code == 2
    assert f"mine.yaml: variants.a.{key}: " in err
    assert "must be text; put it in quotes" in err
    with pytest.raises(UserError, match=r"mine.yaml: title: .* must be text"):
        load_study(write(tmp_path, f"base: ladder\ntitle: {value}\n"))


CLAIM = "  - {id: ID, text: t, a: r50-fpn, b: r0-sp53, relation: greater, source: s}\n"


@pytest.mark.parametrize("ids", [("x", "x"), ("scaling",)])  # the ladder has `scaling`
def test_two_claims_of_one_id_are_refused(tmp_path, ids):
    claims = "".join(CLAIM.replace("ID", name) for name in ids)
    told = f"mine.yaml: claims: two have the id '{ids[0]}'; give one another id"
    with pytest.raises(UserError, match=told):
        load_study(write(tmp_path, f"base: ladder\nclaims:\n{claims}"))


def test_a_variant_may_start_at_one_further_below(tmp_path):
    text = (
        "base: ladder\nvariants:\n"
        "  c: {from: b, train.epochs: 99}\n"
        "  b: {from: a, times: {model.backbone.width: 2}}\n"
        "  a: {from: spinenet-49, model.backbone.block_repeats: 3}\n"
    )
    study = load_study(write(tmp_path, text))
    assert list(study.variants)[-3:] == ["c", "b", "a"]
    recipe = from_tree(variant_tree(study, study.variants["c"], None), origin="mine")
    backbone = recipe.model.backbone
    assert (backbone.width, backbone.block_repeats, recipe.train.epochs) == (2.0, 3, 99)


def test_a_variant_of_the_base_may_be_changed_and_started_at(tmp_path):
    text = (
        "base: ladder\nvariants:\n"
        "  spinenet-49: {from: spinenet-49, train.epochs: 99}\n"
        "  wider: {from: spinenet-49, times: {model.backbone.width: 2}}\n"
    )
    study = load_study(write(tmp_path, text))
    recipe = from_tree(variant_tree(study, study.variants["wider"], None), origin="mine")
    assert (recipe.model.backbone.width, recipe.train.epochs) == (2.0, 99)


@pytest.mark.parametrize(
    ("text", "circle"),
    [
        ("  a: {from: a}\n", "a → a"),
        ("  a: {from: b}\n  b: {from: c}\n  c: {from: b}\n", "b → c → b"),
    ],
)
def test_variants_that_start_at_each_other_are_refused(tmp_path, text, circle):
    told = f"these start at each other: {circle}; let one start elsewhere"
    with pytest.raises(UserError, match=told):
        load_study(write(tmp_path, f"base: ladder\nvariants:\n{text}"))


def test_two_variants_of_one_name_are_refused_with_both_lines(tmp_path):
    text = "base: ladder\nvariants:\n  wider: {train.epochs: 3}\n  wider: {train.epochs: 4}\n"
    told = r"mine.yaml: not valid YAML at line 4: the key 'wider' is there already, at line 3"
    with pytest.raises(UserError, match=told):
        load_study(write(tmp_path, text))


def test_a_study_without_a_title_is_not_called_as_its_base(tmp_path):
    study = load_study(write(tmp_path, FOUR_LINES))
    assert study.title == f"mine.yaml, on {load_study('ladder').title}"
    assert load_study(write(tmp_path, "title: Mine\n" + FOUR_LINES)).title == "Mine"


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(UserError, match="no study 'lader'; did you mean 'ladder'"):
        load_study("lader")
    with pytest.raises(UserError, match="no profile 'embeded'; did you mean 'embedded'"):
        load_profile("embeded")
    selection = Selection(profile=load_profile("smoke"), seeds=1, only=("r50",))
    with pytest.raises(UserError, match="unknown variant 'r50'; did you mean 'r50-fpn'"):
        cells(load_study("ladder"), selection)
    with pytest.raises(UserError, match="expected one of coco:FOLDER"):
        parse_source("voc:somewhere")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: ladder\nvariants: [a]\n", "variants: expected a mapping .* found"),
        ("base: ladder\nvariants: {a: 0.3}\n", "variants.a: expected a mapping .* found 0.3"),
        ("base: ladder\nvariants: {a: {paper: 40}}\n", "variants.a.paper: expected a mapping"),
        ("base: ladder\nvariants: {a: {paper: {Ap: {}}}}\n", "paper"),
        ("base: ladder\nset: [1]\n", "set: expected a mapping"),
        ("base: mine.yaml\n", "mine.yaml: base: the study is its own base"),
        ("recipe: retinanet\n", "variants: there is none"),
    ],
)
def test_yaml_of_the_wrong_shape_is_a_clear_error_too(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load_study(write(tmp_path, text))


PRINTED_ROW = """\
base: ladder
variants:
  fish: {unpublished: its connections were not released, paper: {AP: {value: 37.5, source: table}}}
"""


def test_an_unpublished_row_is_shown_and_never_run(tmp_path):
    study = load_study(write(tmp_path, PRINTED_ROW))
    profile = load_profile("smoke")
    grid = cells(study, Selection(profile=profile, seeds=1))
    assert {c.variant for c in grid} == {v for v in study.variants if v != "fish"}
    report = make_report(study, grid, Store(tmp_path / "runs"))
    assert "| fish (unpublished) |  | 37.5 |  | 0 |  |  |" in to_markdown(report)
    some = cells(study, Selection(profile=profile, seeds=1, only=("r50-fpn",)))
    assert "fish" not in to_markdown(make_report(study, some, Store(tmp_path / "runs")))
    with pytest.raises(UserError, match="'fish' cannot be run: its connections were not released"):
        cells(study, Selection(profile=profile, seeds=1, only=("fish",)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            PRINTED_ROW + "  a: {from: fish}\n",
            "variants.a.from: 'fish' is an unpublished network; start elsewhere",
        ),
        (
            PRINTED_ROW + "  a: {unpublished: so, train.epochs: 1}\n",
            "variants.a: an unpublished network has no recipe; leave out train.epochs",
        ),
        (
            PRINTED_ROW
            + "claims: [{id: x, text: t, a: fish, b: r50-fpn, relation: greater, source: s}]\n",
            r"claims\[0\].a: 'fish' is an unpublished network, so nothing can be judged by it",
        ),
        (
            "base: ladder\nclaims:\n"
            "- {id: x, text: t, a: r50-fpn, b: r50-fpn, relation: greater, source: s}\n",
            r"claims\[0\].b: 'r50-fpn' is a as well; name the variant that it is compared with",
        ),
        (
            "recipe: classifier\nvariants: {a: {}}\n",
            r"metrics: AP is not what a classifier is measured by; give metrics: \[top1, top5\]",
        ),
        (
            "base: classification\nclaims:\n"
            "- {id: x, text: t, a: spinenet-49, b: spinenet-96, relation: greater, source: s}\n",
            "claims: 'x': metric: AP is not among the study's metrics; give metric: top1",
        ),
        (
            "base: ladder\nvariants: {a: {times: {train.epochs: many}}}\n",
            "variants.a.times.train.epochs: 'many' must be a factor above 0",
        ),
    ],
)
def test_a_row_that_cannot_be_says_why(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load_study(write(tmp_path, text))


def test_factors_act_on_what_the_profile_has(tmp_path):
    times = "{model.backbone.width: 0.5, train.epochs: 3}"
    text = f"base: ladder\nvariants:\n  a: {{from: spinenet-49, times: {times}}}\n"
    study = load_study(write(tmp_path, text + "  b: {from: a, times: {train.epochs: 2}}\n"))

    def sizes(variant: str, profile: str | None) -> tuple[float, int]:
        size = load_profile(profile) if profile else None
        tree = variant_tree(study, study.variants[variant], size)
        return tree["model"]["backbone"]["width"], tree["train"]["epochs"]

    assert sizes("a", "embedded") == (0.125, 6)
    assert sizes("b", "embedded") == (0.125, 4)
    assert sizes("a", None) == (0.5, 750)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ("model.backbone.widht: 2", "mine.yaml: variants.a.times: .*unknown key 'widht'.*'width'"),
        ("train.epochs: 0.3", "train.epochs: 2 times 0.3 is 0.6, and it must be a whole number"),
        ("optim.name: 2", "optim.name: 'adamw' is not a number to multiply"),
    ],
)
def test_a_factor_that_cannot_be_says_why(tmp_path, times, message):
    text = f"base: ladder\nvariants: {{a: {{from: spinenet-49, times: {{{times}}}}}}}\n"
    study = load_study(write(tmp_path, text))
    with pytest.raises(UserError, match=message):
        variant_tree(study, study.variants["a"], load_profile("embedded"))


def test_switching_the_kind_through_from_keeps_the_profiles_sizes(tmp_path):
    study = load_study(
        write(
            tmp_path,
            "base: ladder\nvariants:\n  back:\n    from: r50-fpn\n"
            "    model.backbone: {kind: spinenet, genotype: r0-sp53}\n",
        )
    )
    tree = variant_tree(study, study.variants["back"], load_profile("embedded"))
    backbone = from_tree(tree, origin="mine").model.backbone
    assert (backbone.width, backbone.endpoint_filters) == (0.25, 64)
    assert backbone.genotype.name == "r0-sp53"


@pytest.mark.parametrize(
    "choice",
    [
        "model.backbone: {kind: resnet-fpn, depth: 101}",
        "model.backbone.kind: resnet-fpn, model.backbone.depth: 101",
        "model: {backbone: {kind: resnet-fpn, depth: 101}}",
    ],
)
@pytest.mark.parametrize(("profile", "width"), [("embedded", 0.25), (None, 1.0)])
def test_another_kind_forgets_what_from_said_of_the_old_one_in_every_spelling(
    tmp_path, choice, profile, width
):
    first = "{from: spinenet-49, model.backbone.width: 0.5, model.backbone.block_repeats: 2}"
    text = f"base: ladder\nvariants:\n  a: {first}\n  b: {{from: a, {choice}}}\n"
    study = load_study(write(tmp_path, text))
    tree = variant_tree(study, study.variants["b"], load_profile(profile) if profile else None)
    backbone = from_tree(tree, origin="mine").model.backbone
    assert (backbone.kind, backbone.depth, backbone.width) == ("resnet-fpn", 101, width)


def test_a_profile_of_ones_own_is_checked_and_builds_on_another(tmp_path):
    (tmp_path / "big.yaml").write_text("base: embedded\nseeds: three\n")
    with pytest.raises(UserError, match="seeds: 'three' must be a number"):
        load_profile(str(tmp_path / "big.yaml"))
    (tmp_path / "big.yaml").write_text("base: smoke\nseeds: 2\ntrain.epochs: 3\n")
    (tmp_path / "bigger.yaml").write_text("base: big.yaml\ntrain.batch_size: 4\n")
    profile = load_profile(str(tmp_path / "bigger.yaml"))
    study = load_study("ladder")
    recipe = from_tree(variant_tree(study, study.variants["spinenet-49"], profile), origin="x")
    assert (profile.seeds, recipe.train.epochs, recipe.train.batch_size) == (2, 3, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: mine.yaml\n", "mine.yaml: base: mine.yaml: it is its own base; name another"),
        ("base: nosuch\n", "mine.yaml: base: no profile 'nosuch'"),
        ("base: smoke\nseeds: true\n", "mine.yaml: seeds: True must be a number of at least 1"),
        ("base: smoke\ntitle: 12\n", "mine.yaml: title: 12 must be text"),
    ],
)
def test_a_wrong_profile_is_named(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        load_profile(write(tmp_path, text))


def test_two_variants_of_one_recipe_are_refused_with_both_names(tmp_path, run):
    text = (
        "base: ladder\nvariants:\n  mine: {from: spinenet-49, title: forgot to change anything}\n"
    )
    file = write(tmp_path, text)
    selection = Selection(profile=load_profile("embedded"), seeds=2)
    message = (
        "mine.yaml: variants 'spinenet-49' and 'mine' are the same recipe, in profile 'embedded'"
    )
    with pytest.raises(UserError, match=message):
        cells(load_study(file), selection)
    code, _, err = run("check", file)
    assert code == 2
    assert "change one of them or leave it out" in err
    write(
        tmp_path,
        text.replace("title: forgot to change anything", "full_size: {data.transform.side: 896}"),
    )
    found = cells(load_study(file), selection)  # alike when small, and not at the paper's size
    runs = {cell.variant: cell.run_id for cell in found if cell.seed == 1}
    assert runs["mine"] == runs["spinenet-49"]
    with Path(file).open("a") as more:
        more.write("  third: {from: mine, title: another that was forgotten}\n")
    with pytest.raises(UserError, match="variants 'mine' and 'third' are the same recipe"):
        cells(load_study(file), selection)
    paper = Selection(profile=load_profile("paper"), seeds=1, only=("spinenet-49", "mine"))
    large = {
        cell.variant: cell.recipe for cell in cells(load_study(file), paper, without_data=True)
    }
    assert [large[v].data.transform.side for v in ("spinenet-49", "mine")] == [640, 896]


def test_masks_are_part_of_the_identity_of_what_learns_them(coco_folder, tmp_path):
    names = [coco_folder / f"annotations/instances_{split}.json" for split in ("train", "val")]
    bodies = {path.name: json.loads(path.read_text()) for path in names}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images").symlink_to(coco_folder / "images")

    def ids(study: str, height: int) -> set[str]:
        for name, body in bodies.items():
            for one in body["annotations"]:
                x, y, side, _ = one["bbox"]
                one["segmentation"] = [[x, y, x + side, y, x + side, y + height]]
            (tmp_path / "annotations" / name).write_text(json.dumps(body))
        source = CocoFolderConfig(root=str(tmp_path))
        selection = Selection(load_profile("smoke"), seeds=1, source=source)
        return {cell.run_id for cell in cells(load_study(study), selection)}

    assert ids("two_stage", 9).isdisjoint(ids("two_stage", 12))
    assert ids("ladder", 9) == ids("ladder", 12)


def test_a_protocol_acts_at_full_size_and_yields_to_what_a_variant_states(tmp_path):
    text = "base: scaling\nvariants:\n  a: {from: spinenet-49, train.epochs: 60}\n"
    text += (
        "  c: {from: spinenet-49, protocol: C}\n  d: {from: c, full_size: {train.epochs: 400}}\n"
    )
    study = load_study(write(tmp_path, text))

    def recipe(variant: str, profile: str | None):
        size = load_profile(profile) if profile else None
        return from_tree(variant_tree(study, study.variants[variant], size), origin="mine")

    for profile in (None, "paper"):
        epochs = {v: recipe(v, profile).train.epochs for v in ("spinenet-49", "a", "c", "d")}
        assert epochs == {"spinenet-49": 350, "a": 60, "c": 500, "d": 400}
        layers = recipe("d", profile).model.layers
        assert (layers.activation, layers.stochastic_depth) == ("swish", 0.2)
        assert recipe("a", profile).data.transform.scale_jitter == (0.5, 2.0)
    assert recipe("c", "gpu").model.layers.activation == "relu"


def test_the_gpu_profile_has_protocol_as_shape_on_a_short_schedule():
    study, profile = load_study("ladder"), load_profile("gpu")
    for variant in study.published:
        recipe = from_tree(variant_tree(study, variant, profile), origin="gpu")
        optim, epochs = recipe.optim, recipe.train.epochs
        assert recipe.train.precision == "bf16"
        assert recipe.data.transform.side <= 640
        assert recipe.deviates == ()
        assert recipe.lr / recipe.train.batch_size == pytest.approx(0.28 / 256)
        assert (optim.schedule, recipe.data.transform.scale_jitter) == ("step", (0.8, 1.2))
        shares = [before / epochs for before in optim.decay_before_end]
        assert shares == pytest.approx([30 / 250, 10 / 250], abs=0.01)
        assert optim.warmup_epochs / epochs == pytest.approx(5 / 250, abs=0.005)


def test_the_study_in_the_documentation_is_one(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "studies.md").read_text()
    study = load_study(write(tmp_path, page.partition("```yaml\n")[2].partition("```")[0]))
    grid = cells(study, Selection(profile=load_profile("embedded"), seeds=1))
    widths = {cell.variant: cell.recipe.model.backbone.width for cell in grid}
    assert (widths["r0-sp53"], widths["wide"], widths["wide-sequential"]) == (0.25, 0.375, 0.375)
    assert study.claims[-1].id == "wide"


def test_full_size_of_a_profile_is_yes_or_no(tmp_path):
    (tmp_path / "big.yaml").write_text("base: embedded\nfull_size: large\n")
    with pytest.raises(UserError, match=r"big\.yaml: full_size: 'large' must be true or false"):
        load_profile(str(tmp_path / "big.yaml"))
