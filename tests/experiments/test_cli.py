"""The command line: every command runs, explains itself, and answers mistakes in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from experiments import inspection
from experiments.study import PaperValue
from experiments.study_file import shipped_studies
from spinenet import zoo
from tests.experiments.search_helpers import finish

COMMANDS = ["reproduce", "plan", "status", "table", "models", "check", "train", "eval"]
COMMANDS += ["show", "predict", "export", "import", "bench", "speed", "ledger", "compare"]
COMMANDS += ["search", "search-report", "search-spaces", "search-table", "search-contest"]
COMMANDS += ["search-found"]
COMMANDS += ["dashboard", "data prepare", "doctor"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(run, command):
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    assert f"Example: spinenet {command}" in " ".join(out.split())


def test_models_lists_counts_beside_the_printed_ones(run):
    code, out, _ = run("models", "--json")
    rows = {(row["table"], row["model"]): row for row in json.loads(out)}
    assert code == 0
    assert len(rows) == len(json.loads(out)) == 42
    one_stage = "One-stage detection: the paper's models with RetinaNet"
    assert rows[one_stage, "SpineNet-49S, as released"]["macs_b"] == "30.78"
    assert rows[one_stage, "SpineNet-49 at 896"]["id"] == "spinenet-49"
    assert {row["id"] for row in rows.values()} - {""} <= set(zoo.MODELS)
    assert {row["model"] for row in rows.values() if not row["id"]} == {
        f"ResNet-{depth}" for depth in (34, 50, 101, 152)
    }
    assert "unresolved" not in out


def test_models_are_called_as_show_takes_them():
    counts = {"side": "640", "macs_b": "1"}
    rows = ({"model": "Mobile SpineNet-49", **counts}, {"model": "SpineNet-49 at 896", **counts})
    rows = (*rows, {"model": "ResNet-50", **counts})
    listed = inspection.CountTable("t", rows, ("mobile-spinenet-49", "spinenet-49", ""))
    assert [row[0] for row in listed.cells_by_id()] == [
        "mobile-spinenet-49",
        "spinenet-49 (SpineNet-49 at 896)",
        "ResNet-50",
    ]


def test_version_is_told_without_importing_torch():
    code = (
        "import sys; sys.argv = ['spinenet', '--version']\n"
        "from experiments.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert done.stdout.splitlines() == [
        f"{ours['name']} {ours['version']}",
        f"torch {metadata.version('torch')}",
    ]


def test_status_without_a_study_is_that_of_all(run, smoke_grid):
    _, _, store = smoke_grid
    code, out, _ = run("status", "-p", "smoke", "--runs", store.root)
    assert code == 0
    counted = {line.split()[0]: line.split()[2:] for line in out.splitlines()[1:-1]}
    assert counted.keys() >= set(shipped_studies())
    assert counted["ladder"] == ["5", "complete"]
    _, out, _ = run("status", "-p", "smoke", "--runs", store.root, "--json")
    assert list(json.loads(out)) == shipped_studies()


def test_a_count_off_by_more_than_a_percent_and_rounding_is_called_unresolved():
    printed = PaperValue(1.0, "table 10")
    assert inspection._agreement(0.98, printed) == "-2.0%"
    assert inspection._agreement(0.94, printed) == "-6.0% unresolved"
    assert inspection._agreement(102.0, PaperValue(100.0, "table 2")) == "+2.0% unresolved"


def test_table_status_and_plan_read_the_store(run, smoke_grid):
    _, _, store = smoke_grid
    shared = ("-p", "smoke", "--runs", str(store.root), "--json")
    _, out, _ = run("table", "ladder", *shared)
    assert [row["measured"]["AP"]["count"] for row in json.loads(out)["rows"]] == [1] * 5
    _, out, _ = run("status", "ladder", *shared)
    assert {row["state"] for row in json.loads(out)} == {"complete"}
    _, out, _ = run("plan", "ladder", *shared, "--seeds", "2")
    planned = json.loads(out)
    assert [row["state"] for row in planned["cells"]] == ["complete"] * 5 + ["missing"] * 5
    assert planned["price_s"] > 0


def test_reproduce_trains_nothing_when_all_is_there(run, smoke_grid):
    _, _, store = smoke_grid
    before = {p: p.stat().st_mtime_ns for p in store.root.rglob("*") if p.is_file()}
    code, out, _ = run("reproduce", "ladder", "-p", "smoke", "--runs", str(store.root))
    assert code == 0
    assert "+ scaling (SpineNet-96)" in out
    assert before == {p: p.stat().st_mtime_ns for p in store.root.rglob("*") if p.is_file()}


@pytest.mark.parametrize(("option", "waited"), [("--wait", 1), ("--no-wait", 0)])
def test_a_run_that_another_worker_took_meanwhile_is_waited_for(
    option, waited, run, tmp_path, monkeypatch
):
    looks = []

    def taken(upcoming, store, runtime_of, workers, watch):
        while (cell := upcoming()) is not None:
            watch(cell, {"kind": "start"})
            watch(cell, {"kind": "skipped"})

    def await_others(cells, store):
        looks.append(len(cells))
        for cell in cells:
            finish(store, cell)
        return []

    monkeypatch.setattr("experiments.executors.local.run_as_asked", taken)
    monkeypatch.setattr("experiments.grid.await_others", await_others)
    code, *_ = run("reproduce", "ladder", "-p", "smoke", option, "--runs", tmp_path)
    assert code == 0
    assert looks == [5] * waited


def test_check_shows_the_difference_and_the_multiply_adds(run, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "base: ladder\nvariants:\n  wide:\n    {from: spinenet-49, model.backbone.width: 0.35}\n"
    )
    code, out, _ = run("check", str(file), "--json")
    parts = {p["variant"]: p for p in json.loads(out)["variants"]}
    assert code == 0
    assert parts["wide"]["difference"] == {"model.backbone.width": [0.25, 0.35]}
    assert parts["wide"]["macs_m"] > parts["spinenet-49"]["macs_m"]
    assert (parts["wide"]["own"], parts["spinenet-49"]["own"]) == ("yes", "inherited")


def test_check_prices_what_is_not_there_yet(run, smoke_grid, tmp_path):
    _, _, store = smoke_grid
    file = tmp_path / "mine.yaml"
    file.write_text(
        "base: ladder\nvariants:\n  wide: {from: r50-fpn, model.backbone.width: 0.35}\n"
    )
    where = ("-p", "smoke", "--runs", str(store.root))
    code, out, _ = run("check", str(file), *where)
    assert code == 0
    assert "With 1 seed: 1 runs to train, 5 complete; about" in " ".join(out.split())
    _, out, _ = run("check", "ladder", *where, "--json")
    assert json.loads(out)["price"]["summary"] == "0 runs to train, 5 complete"


def test_check_tells_a_study_from_a_recipe_by_what_it_rests_on(run, tmp_path):
    (tmp_path / "mine.yaml").write_text("base: ladder\n")
    (tmp_path / "swish.yaml").write_text("base: mine.yaml\nprotocol: C\n")
    (tmp_path / "plain.yaml").write_text("base: mine.yaml\n")
    (tmp_path / "recipe.yaml").write_text("base: retinanet\nseed: 1\n")
    for name, variants in (("swish", 5), ("plain", 5), ("recipe", 1)):
        code, out, err = run("check", tmp_path / f"{name}.yaml", "--json")
        assert code == 0, err
        assert len(json.loads(out)["variants"]) == variants


def test_check_says_where_the_paper_size_differs_otherwise(run, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "base: ladder\nvariants:\n"
        "  wide: {from: spinenet-49, model.backbone.width: 0.35}\n"
        "  wider: {from: spinenet-49, times: {model.backbone.width: 1.4}}\n"
        "  quarter: {from: spinenet-49, model.backbone: {width: 1.0, endpoint_filters: 128}}\n"
    )
    code, out, _ = run("check", str(file), "--json")
    told = {p["variant"]: p["full_difference"] for p in json.loads(out)["variants"]}
    assert code == 0
    assert told["wide"] == {"model.backbone.width": [1.0, 0.35]}
    assert told["wider"] == {"model.backbone.width": [1.0, 1.4]}
    assert told["quarter"] == {
        "model.backbone.width": None,
        "model.backbone.endpoint_filters": [256, 128],
    }
    assert told["r0-sp53"] == {}
    _, out, _ = run("check", str(file))
    assert "at the paper's size: model.backbone.width: 1.0 → 0.35" in out
    assert "at the paper's size: model.backbone.width: no difference" in out


def test_only_the_new_variant_runs_beside_the_old_rows(run, smoke_grid, tmp_path):
    _, _, store = smoke_grid
    file = tmp_path / "mine.yaml"
    file.write_text(
        "base: ladder\nvariants:\n  wide:\n    {from: spinenet-49, model.backbone.width: 0.3}\n"
    )
    arguments = ("-p", "smoke", "--runs", str(store.root), "--wandb", "disabled")
    code, out, err = run("reproduce", str(file), *arguments)
    assert code == 0
    assert "1 runs to train, 5 complete" in err
    assert "done    wide seed 0" in err
    assert "R50-FPN" in out


def test_train_and_eval_on_ones_own_folder(run, coco_folder, tmp_path):
    changes = ["model.backbone.width=0.0625", "train.batch_size=8", "data.transform.side=64"]
    settings = [word for change in changes for word in ("--set", change)]
    where = ("--data", f"coco:{coco_folder}", "--runs", str(tmp_path), "--wandb", "disabled")
    code, out, _ = run("train", "retinanet", "-p", "smoke", *settings, *where, "--json")
    assert code == 0
    trained = json.loads(out[out.index("{") :])
    code, out, _ = run("eval", trained["folder"], "--json")
    assert code == 0
    assert json.loads(out)["metrics"]["AP"] == pytest.approx(trained["metrics"]["AP"], abs=1e-6)


def broken(folder: Path, target: Path, split: str, change) -> Path:
    """A copy of the data folder with one annotation file changed."""
    (target / "annotations").mkdir(parents=True)
    (target / "images").symlink_to(folder / "images")
    for name in ("train", "val"):
        text = (folder / "annotations" / f"instances_{name}.json").read_text()
        file = target / "annotations" / f"instances_{name}.json"
        file.write_text(change(text) if name == split else text)
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:200], "cut off"),
        (lambda text: text.replace('"0.png"', '"gone.png"'), "gone.png"),
        (lambda text: text.replace('"bbox": [', '"bbox": [-5, ', 1), "bbox"),
        (lambda text: "", "instances_train.json"),
    ],
)
def test_damaged_data_is_one_clear_line(run, coco_folder, tmp_path, change, message):
    folder = broken(coco_folder, tmp_path / "data", "train", change)
    runs = ("--runs", str(tmp_path / "runs"))
    code, _, err = run("train", "retinanet", "-p", "smoke", "--data", f"coco:{folder}", *runs)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("table", "lader"), "did you mean 'ladder'"),
        (("reproduce", "--only", "r50"), "did you mean 'r50-fpn'"),
        (("train", "retinanett"), "did you mean 'retinanet'"),
        (("train", "--set", "model.backbone.widht=1"), "did you mean 'width'"),
        (("check", "nowhere.yaml"), "nowhere.yaml: no such file"),
        (("eval", "nowhere"), "no such file"),
        (("train", "retinanet"), "root is empty"),
        (("reproduce", "--data", "coco:/nowhere"), "/nowhere"),
    ],
)
def test_a_mistake_is_one_line_with_the_way_out(run, arguments, message):
    code, _, err = run(*arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err


def test_help_does_not_wait_for_heavy_imports():
    code = (
        "import sys; sys.argv = ['spinenet', '--help']\n"
        "from experiments.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'pytorch_lightning', 'wandb', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
