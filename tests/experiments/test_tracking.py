"""W&B offline: what is written can be read back; and W&B never harms a run."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from PIL import Image
from wandb.proto import wandb_internal_pb2

from experiments.callbacks import BestWeights
from experiments.leases import LeaseLostError
from experiments.module import NonFiniteLossError, TaskModule
from experiments.recipe import to_tree
from experiments.runtime import Runtime
from experiments.scoring import Scores
from experiments.single import compose_recipe, evaluate_weights
from experiments.store import read_result
from experiments.study import PaperValue
from experiments.tracking import HistoryLogger, choose_mode
from experiments.training import train

BLOCK = 32768
LAST = 4
FULL = 1


def read_records(path: Path) -> list[Any]:
    """Records of a .wandb file: protobufs in LevelDB's log framing after a seven-byte header."""
    data, position, records, parts = path.read_bytes(), 7, [], b""
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:
            position += BLOCK - position % BLOCK
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            records.append(record)
            parts = b""
    return records


def items(entries: Any) -> dict[str, Any]:
    return {
        entry.key or "/".join(entry.nested_key): json.loads(entry.value_json) for entry in entries
    }


@pytest.fixture(scope="module")
def offline_run(coco_folder, tmp_path_factory):
    from tests.experiments.conftest import TINY

    changes = [*TINY, "train.epochs=5", "train.batch_size=8", "eval.every_epochs=2"]
    changes.append("train.ema_decay=0.9")  # so that the validated weights are not the trained ones
    data = f"coco:{coco_folder}"
    recipe = compose_recipe("retinanet", profile="smoke", data=data, changes=changes, seed=0)
    folder = tmp_path_factory.mktemp("offline") / "run"
    paper = {"ladder": {"AP": PaperValue(40.8, "figure 4"), "macs_b": PaperValue(85.4, "table 2")}}
    runtime = Runtime(
        accelerator="cpu",
        wandb="offline",
        wandb_artifacts=True,
        group="smoke",
        cells=("ladder/spinenet-49@smoke",),
        paper=paper,
    )
    train(recipe, "feedfacecafe", folder, runtime)
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    return recipe, read_result(folder), folder, read_records(path)


def test_the_offline_folder_holds_identity_and_config(offline_run):
    recipe, _, _, records = offline_run
    run = next(r.run for r in records if r.HasField("run"))
    assert run.run_id == "feedfacecafe"
    assert run.run_group == "smoke"
    assert list(run.tags) == ["ladder"]
    config = items(run.config.update)
    for key, value in json.loads(json.dumps(to_tree(recipe))).items():
        assert config[key] == value
    assert config["variant"] == {"ladder": "spinenet-49"}
    assert run.host == ""
    assert not any(r.HasField("environment") for r in records)  # who, where, with which command


def test_the_offline_folder_holds_the_history(offline_run):
    _, _, folder, records = offline_run
    lines = [json.loads(x) for x in (folder / "history.jsonl").read_text().splitlines()]
    expected = [x["loss/total"] for x in lines if "loss/total" in x]
    history = [items(r.history.item) for r in records if r.HasField("history")]
    found = [x["loss/total"] for x in history if "loss/total" in x]
    assert found == pytest.approx(expected)
    assert len(found) >= 1
    assert any("val/AP" in x for x in history)


def test_the_offline_folder_holds_the_summary_with_the_papers_values(offline_run):
    _, result, _, records = offline_run
    summary: dict[str, Any] = {}
    for record in records:
        if record.HasField("summary"):
            summary |= items(record.summary.update)
    assert summary["AP"] == pytest.approx(result.metrics["AP"])
    assert summary["macs_b"] == pytest.approx(result.macs_b)
    paper = {k: v for k, v in summary.items() if k.startswith("paper")}
    assert paper["paper/ladder/AP"] == 40.8
    assert paper["paper/ladder/AP_difference"] == pytest.approx(result.metrics["AP"] - 40.8)


def artifact_files(records: list[Any], name: str) -> dict[str, Path]:
    """The files of an artifact that waits to be sent, by their name inside."""
    (found,) = [r.artifact for r in records if r.HasField("artifact") and name in r.artifact.name]
    return {c.path: Path(c.local_path) for c in found.manifest.contents}


def test_curves_stand_on_the_runs_own_steps(offline_run):
    _, _, folder, records = offline_run
    axes = [r.metric for r in records if r.HasField("metric")]
    assert [a.step_metric for a in axes if a.glob_name == "*"] == ["step"]
    lines = [json.loads(x) for x in (folder / "history.jsonl").read_text().splitlines()]
    history = [items(r.history.item) for r in records if r.HasField("history")]
    ours = {x["step"] for x in history if "loss/total" in x}
    assert ours == {x["step"] for x in lines if "loss/total" in x}


def test_the_table_of_predictions_has_the_pictures_and_both_kinds_of_boxes(offline_run):
    _, _, folder, records = offline_run
    files = artifact_files(records, "predictions")
    table = json.loads(files["predictions.table.json"].read_text())
    found = json.loads((folder / "detections.json").read_text())
    data = Path(read_result(folder).recipe["data"]["source"]["root"])
    truth = json.loads((data / "annotations" / "instances_val.json").read_text())
    assert len(table["data"]) == 6
    for image_id, picture, count, shown in table["data"]:
        pixels = Image.open(files[picture["path"]]).convert("RGB")
        assert pixels == Image.open(data / "images" / f"{image_id}.png").convert("RGB")
        rows = [d for d in found if d["image_id"] == image_id]
        best = sorted((d["score"] for d in rows), reverse=True)[:30]
        scores = [box["scores"]["score"] for box in picture["boxes"]["found"]]
        assert scores == pytest.approx(best)
        assert len(scores) == shown
        x, y, side, _ = next(a for a in truth["annotations"] if a["image_id"] == image_id)["bbox"]
        corners = {"minX": x, "minY": y, "maxX": x + side, "maxY": y + side}
        assert picture["boxes"]["annotated"][0]["position"] == corners
        assert picture["boxes"]["annotated"][0]["box_caption"] == "red"
        assert count == 2


def test_what_waits_to_be_sent_lies_in_the_runs_folder(offline_run):
    _, _, folder, records = offline_run
    for name in ("predictions", "precision", "spinenet-49-coco-s0"):
        for path in artifact_files(records, name).values():
            assert path.is_relative_to(folder)
            assert path.is_file()


def test_the_curves_of_precision_have_the_average_precision_below_them(offline_run):
    _, result, _, records = offline_run
    file = artifact_files(records, "precision")["precision_table.table.json"]
    table = json.loads(file.read_text())
    heights: dict[str, list[float]] = {}
    for row in table["data"]:
        cells = dict(zip(table["columns"], row, strict=True))
        heights.setdefault(cells["lineKey"], []).append(cells["lineVal"])
    assert {name: len(values) for name, values in heights.items()} == dict.fromkeys(heights, 101)
    means = {name: 100 * sum(values) / 101 for name, values in heights.items()}
    assert means == pytest.approx({k: result.metrics[k] for k in ("AP50", "AP75", "AP")})
    assert means["AP50"] > 0


def test_the_network_is_drawn_once(offline_run):
    _, _, folder, records = offline_run
    history = [items(r.history.item) for r in records if r.HasField("history")]
    (picture,) = [x["architecture/path"] for x in history if "architecture/path" in x]
    (path,) = folder.glob(f"wandb/offline-run-*/files/{picture}")
    assert path.read_bytes() == (folder / "wandb" / "architecture.png").read_bytes()


def test_the_artifact_has_the_last_and_the_best_weights(offline_run):
    _, result, folder, records = offline_run
    files = artifact_files(records, "spinenet-49-coco-s0-feedfacecafe")
    assert {path.name for path in files.values()} == {"weights.safetensors", "best.safetensors"}
    metrics, _ = evaluate_weights(folder / "best.safetensors", None, folder / "eval", 4)
    lines = [json.loads(x) for x in (folder / "history.jsonl").read_text().splitlines()]
    best = max(x["val/AP"] for x in lines if "val/AP" in x)
    assert metrics["AP"] == pytest.approx(best, abs=1e-6)
    assert best >= result.metrics["AP"] - 1e-6


def test_the_best_weights_of_a_resumed_run_are_not_replaced_by_worse(tmp_path):
    best = BestWeights(tmp_path, lambda path: path.write_text("new"))
    best.path.write_text("old")
    best.load_state_dict({"best": 30.0})
    module = Mock(spec=TaskModule, metric="AP", scores=Scores({"AP": 29.0}, {}))
    for value, kept in ((29.0, "old"), (31.0, "new")):
        module.scores = Scores({"AP": value}, {})
        best.on_validation_epoch_end(Mock(), module)
        best.on_validation_end(Mock(), module)
        assert [p.name for p in tmp_path.iterdir()] == ["best.safetensors"]
        assert best.path.read_text() == kept
    assert best.state_dict() == {"best": 31.0}


@pytest.mark.parametrize("step", [0, 8])
def test_the_best_of_a_run_that_began_without_it_is_not_known(tmp_path, step):
    best = BestWeights(tmp_path, lambda path: path.write_text("new"))
    best.path.write_text("old")
    best.on_train_start(Mock(global_step=step), Mock())
    module = Mock(spec=TaskModule, metric="AP", scores=Scores({"AP": 29.0}, {}))
    best.on_validation_epoch_end(Mock(), module)
    best.on_validation_end(Mock(), module)
    assert [p.read_text() for p in tmp_path.iterdir()] == ([] if step else ["new"])


def test_what_is_called_best_is_of_an_attempt_that_kept_it(tiny_recipe, tmp_path):
    (tmp_path / "best.safetensors").write_text("of an attempt that was killed")
    train(tiny_recipe, "0" * 12, tmp_path, Runtime(accelerator="cpu", wandb="disabled"))
    assert not (tmp_path / "best.safetensors").exists()


def test_a_run_that_was_taken_over_writes_no_validation(tmp_path):
    def lost() -> None:
        raise LeaseLostError("taken over")

    history = HistoryLogger(tmp_path, keep=lost)
    best = BestWeights(tmp_path, lambda path: path.write_text("new"), lost)
    for write in (
        lambda: history.log_metrics({"val/AP": 1.0}, 9),
        lambda: best.on_validation_epoch_end(Mock(), Mock()),
        lambda: best.on_validation_end(
            Mock(), Mock(spec=TaskModule, metric="AP", scores=Scores({"AP": 1.0}, {}))
        ),
    ):
        with pytest.raises(LeaseLostError):
            write()
    assert [path.name for path in tmp_path.iterdir()] == ["history.jsonl"]
    assert (tmp_path / "history.jsonl").read_text() == ""


def test_a_classifier_shows_pictures_with_the_rank_of_the_right_class(tmp_path):
    changes = ["model.backbone.width=0.0625", "model.backbone.endpoint_filters=8"]
    recipe = compose_recipe("classifier", profile="smoke", data=None, changes=changes, seed=0)
    train(recipe, "c" * 12, tmp_path, Runtime(accelerator="cpu", wandb="offline"))
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    files = artifact_files(read_records(path), "predictions")
    table = json.loads(files["predictions.table.json"].read_text())
    ranks = json.loads((tmp_path / "ranks.json").read_text())
    of_sample = dict(zip(ranks["sample"], ranks["rank"], strict=True))
    places = [0, 1, 3, 5, 6, 8]  # six of ten, spread evenly
    assert table["columns"] == ["picture", "label", "classes above it"]
    assert [row[2] for row in table["data"]] == [of_sample[i] for i in places]


def test_a_run_that_fails_is_closed_as_failed(tiny_recipe, tmp_path):
    recipe = replace(tiny_recipe, optim=replace(tiny_recipe.optim, lr=1e30, clip_norm=0.0))
    with pytest.raises(NonFiniteLossError):
        train(recipe, "d" * 12, tmp_path, Runtime(accelerator="cpu", wandb="offline"))
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    (exit_,) = [r.exit for r in read_records(path) if r.HasField("exit")]
    assert exit_.exit_code == 1


def test_a_refusing_wandb_does_not_harm_the_run(tiny_recipe, tmp_path, monkeypatch):
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no route to anywhere")

    monkeypatch.setattr("wandb.init", refuse)
    result = train(
        tiny_recipe, "0" * 12, tmp_path / "a", Runtime(accelerator="cpu", wandb="offline")
    )
    assert read_result(tmp_path / "a").metrics == result.metrics
    assert (
        "W&B is off for the rest of this run: ConnectionError"
        in (tmp_path / "a" / "train.log").read_text()
    )


def test_a_wandb_that_breaks_later_is_dropped_and_the_run_goes_on(
    tiny_recipe, tmp_path, monkeypatch
):
    def breaks(self: Any, *arguments: Any, **named: Any) -> None:
        raise OSError("disk of the service is full")

    monkeypatch.setattr("wandb.sdk.wandb_run.Run.log", breaks)
    recipe = replace(tiny_recipe, train=replace(tiny_recipe.train, epochs=6))
    train(recipe, "1" * 12, tmp_path / "a", Runtime(accelerator="cpu", wandb="offline"))
    log = (tmp_path / "a" / "train.log").read_text()
    assert log.count("W&B is off for the rest of this run: OSError") == 1


def test_the_mode_follows_the_key(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert choose_mode("auto") == "offline"
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password key\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert choose_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert choose_mode("auto") == "disabled"
    assert choose_mode("offline") == "offline"


def test_the_history_of_a_resumed_run_drops_what_it_repeats(tmp_path):
    first = HistoryLogger(tmp_path)
    for step in (9, 19, 29):
        first.log_metrics({"loss": 1.0}, step)
    again = HistoryLogger(tmp_path, resume_step=20)
    again.log_metrics({"loss": 2.0}, 29)
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [(x["step"], x["loss"]) for x in lines] == [(9, 1.0), (19, 1.0), (29, 2.0)]
