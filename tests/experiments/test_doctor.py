"""Each check of the doctor says what is there, and mends are told from notes."""

from __future__ import annotations

import json
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from experiments import doctor
from experiments.doctor import Check


class Usage(NamedTuple):
    total: int
    used: int
    free: int


class Device(NamedTuple):
    name: str
    total_memory: int


def test_this_environment_is_what_the_package_asks_for(tmp_path):
    found = {check.name: check for check in doctor.checkup(tmp_path)}
    assert {"python", "torch", "cpu", "gpu", "disk", "runs", "wandb"} <= set(found)
    assert metadata.version("torch") in found["torch"].found
    assert {check.verdict for check in found.values()} <= {"ok", "note"}


def test_old_and_missing_libraries_are_to_be_mended():
    asked = ["torch>=2", "numpy>=99", "no-such-thing>=1"]
    found = {check.name: check for check in doctor.libraries(asked)}
    assert found["torch"].verdict == "ok"
    assert found["numpy"].verdict == found["no-such-thing"].verdict == "mend"
    assert f"{metadata.version('numpy')}, and >=99 is needed" in found["numpy"].found
    assert found["no-such-thing"].line() == (
        "mend  no-such-thing: not installed; run `pip install 'no-such-thing>=1'`"
    )
    assert "libraries" not in found


def test_extras_and_other_platforms_libraries_are_not_asked_for():
    asked = ["torch>=2", "no-such-thing; extra == 'dev'", "nor-this; sys_platform == 'none'"]
    torch_itself, rest = doctor.libraries(asked)
    assert (torch_itself.name, rest.found) == ("torch", "all 1 as asked for")


def test_a_package_that_is_not_installed_is_to_be_mended(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGE", "no-such-thing")
    (check,) = doctor.installation()
    assert check.line().startswith("mend  package: no-such-thing is not installed; run `pip")


def test_an_old_python_is_to_be_mended():
    assert doctor.python(">=3.11").verdict == "ok"
    assert doctor.python(">=4").verdict == "mend"


@pytest.mark.parametrize(
    ("flags", "verdict", "said"),
    [
        ("fpu avx2 avx512f avx512_bf16", "ok", "bfloat16 in hardware"),
        ("fpu avx2 avx512f", "ok", "bf16 gains nothing"),
        ("fpu avx512f", "note", "without AVX2"),
    ],
)
def test_instruction_sets_decide_on_the_cpu(flags, verdict, said, tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor : 0\nflags\t\t: {flags}\n")
    monkeypatch.setattr(doctor, "CPU_INFO", info)
    check = doctor.cpu()
    assert check.verdict == verdict
    assert said in check.line()
    assert "avx512f" in check.found


def test_a_gpu_is_named_with_its_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: Device("H200", 141 * 2**30))
    assert doctor.gpu() == Check("gpu", "ok", "H200 with 141 GiB")


def test_a_driver_without_a_fitting_torch_is_noted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(torch.version, "cuda", None)
    check = doctor.gpu()
    assert check.verdict == "note"
    assert "torch (no CUDA) sees no GPU" in check.found


def test_a_torch_that_cannot_be_imported_is_a_verdict(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert doctor.gpu().verdict == "mend"


def test_a_full_disk_and_a_closed_folder_are_to_be_mended(tmp_path, monkeypatch):
    runs = tmp_path / "not" / "yet"
    assert doctor.disk(runs).verdict == doctor.runs_folder(runs).verdict == "ok"
    assert not runs.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**12, 10**12, 10**8))
    assert doctor.disk(runs).line().startswith("mend  disk: 0.1 GB free")

    def refuse(**given: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    assert doctor.runs_folder(runs).verdict == "mend"
    assert "Permission denied; allow writing" in doctor.runs_folder(runs).line()


@pytest.mark.parametrize("mode", ["online", "offline", "disabled"])
def test_the_way_of_tracking_is_told(mode, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", mode)
    assert doctor.tracking().found == mode


def test_the_command_judges_machine_and_data(run, coco_folder, tmp_path):
    arguments = ("doctor", "--runs", tmp_path, "-p", "smoke", "--data")
    code, out, _ = run(*arguments, f"coco:{coco_folder}", "--json")
    said = json.loads(out)
    assert (code, said["fit"]) == (0, True)
    by_name = {check["name"]: check for check in said["checks"]}
    assert by_name["data"]["found"].endswith("32 and 12 objects")
    assert by_name["anchors"]["verdict"] == "ok"
    code, out, _ = run(*arguments, f"coco:{coco_folder}", "--set", "model.anchors.size=20")
    assert code == 0
    assert "note  anchors: with model.anchors.size=20" in out
    assert out.endswith("fit to train\n")


def test_a_folder_of_another_layout_is_to_be_mended(run, tmp_path):
    (tmp_path / "train" / "cat").mkdir(parents=True)
    (tmp_path / "train" / "cat" / "1.jpg").write_bytes(b"")
    code, out, _ = run("doctor", "--runs", tmp_path, "--data", f"coco:{tmp_path}")
    assert code == 1
    assert "mend  data: " in out
    assert "it looks like a folder per class: give folder:FOLDER" in out
    assert out.endswith("to mend: data\n")


def test_labelled_pictures_are_judged_too(run, tmp_path):
    for place in ("train/cat/1.jpg", "train/dog/2.jpg", "val/cat/3.jpg"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"pixels")
    code, out, _ = run("doctor", "--runs", tmp_path, "--data", f"imagefolder:{tmp_path}")
    assert code == 0
    assert "2 training and 1 validation pictures" in out
    assert "classes: 2 by training pictures: cat 1, dog 1" in out


def test_data_prepare_says_what_it_lacks(run, tmp_path):
    code, _, err = run("data", "prepare", "imagenet", tmp_path)
    assert code == 2
    assert err.strip().startswith("error: ImageNet (ILSVRC 2012) needs an account: get ILSVRC2012")
    assert str(Path(tmp_path) / "archives") in err
