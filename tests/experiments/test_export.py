"""An exported file gives PyTorch's numbers in onnxruntime and carries what is needed to use it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from experiments import export
from experiments.errors import UserError
from experiments.export import export_onnx
from experiments.weights import read_weights


@pytest.fixture(scope="module")
def exported(weights_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "new" / "model.onnx"
    assert export_onnx(read_weights(weights_file), path) <= 1e-4
    return path


@pytest.mark.parametrize("batch", [1, 3])
def test_onnxruntime_gives_pytorchs_outputs_at_any_batch(
    exported: Path, weights_file: Path, batch: int
):
    images = torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    session = onnxruntime.InferenceSession(exported)
    logits, codes = session.run(["logits", "codes"], {"images": images.numpy()})
    with torch.no_grad():
        expected = read_weights(weights_file).network()(images)
    for found, wanted in zip((logits, codes), expected, strict=True):
        assert np.ptp(wanted.numpy()) > 1e-2  # not all one number
        assert np.abs(found - wanted.numpy()).max() <= 1e-4 * wanted.abs().max()


def test_a_classifier_is_exported_with_its_logits_at_any_batch(
    classifier_file: Path, tmp_path: Path
):
    weights, path = read_weights(classifier_file), tmp_path / "classifier.onnx"
    assert export_onnx(weights, path) <= 1e-5
    session, network = onnxruntime.InferenceSession(path), weights.network()
    for batch in (1, 3):
        images = torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(5))
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        with torch.no_grad():
            expected = network(images).numpy()
        assert logits.shape == (batch, 11)
        assert np.ptp(expected) > 1e-2
        assert np.abs(logits - expected).max() <= 1e-5 * np.abs(expected).max()
    facts = {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}
    assert facts["labels"]["1"] == {"category": 1, "name": "0"}


def test_the_file_is_valid_and_says_how_to_use_it(exported: Path):
    model = onnx.load(exported)
    onnx.checker.check_model(model)
    facts = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert facts["labels"] == {
        "1": {"category": 3, "name": "red"},
        "2": {"category": 7, "name": "orange"},
    }
    assert facts["side"] == 64
    assert facts["mean_rgb"] == pytest.approx([123.675, 116.28, 103.53])
    assert facts["recipe"]["model"]["anchors"]["size"] == 2.0
    assert list(exported.parent.iterdir()) == [exported]


def test_an_export_that_differs_is_not_written(weights_file: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(export, "_write", lambda *given: given[3].write_text("x"))
    monkeypatch.setattr(export, "_difference", lambda *given: 1e-3)
    with pytest.raises(UserError, match=r"differ from PyTorch's by 1\.0e-03"):
        export_onnx(read_weights(weights_file), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_no_number_is_not_passed_over(weights_file: Path, tmp_path, monkeypatch):
    errors = iter([1e-6, float("nan")])  # of two pictures, and of one
    monkeypatch.setattr(export, "_write", lambda *given: given[3].write_text("x"))
    monkeypatch.setattr(export, "_difference", lambda *given: next(errors))
    with pytest.raises(UserError, match="differ from PyTorch's by nan"):
        export_onnx(read_weights(weights_file), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_file_to_export_to(weights_file: Path, tmp_path, run):
    code, _, err = run("export", weights_file, "-o", tmp_path)
    assert code == 2
    assert f"{tmp_path}: is a folder; name a file, such as {tmp_path}/network" in err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_with_the_way_out(
    weights_file: Path, tmp_path, monkeypatch, run
):
    real = importlib.util.find_spec
    absent = {"onnxscript", "onnxruntime"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in absent else real(name, *a)
    )
    code, _, err = run("export", weights_file, "-o", tmp_path / "model.onnx")
    assert code == 2
    assert "export needs onnxscript, onnxruntime; install with: pip install '.[export]'" in err


def test_the_command_reports_size_and_error(run, weights_file: Path, tmp_path: Path):
    target = tmp_path / "m.onnx"
    code, out, _ = run("export", weights_file.parent, "-o", target, "--side", 32, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["size_mb"] == pytest.approx(target.stat().st_size / 1e6)
    assert facts["relative_error"] <= 1e-4
    shape = onnxruntime.InferenceSession(target).get_inputs()[0].shape
    assert shape == ["batch", 3, 32, 32]
