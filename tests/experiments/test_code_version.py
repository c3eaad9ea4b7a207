"""An unfinished run is gone on with by the code that began it, or its result is marked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import code_version
from experiments.checkpoints import latest
from experiments.code_version import SOURCES, differences, take_up
from experiments.errors import UserError
from experiments.module import DetectionModule
from experiments.runtime import Runtime
from experiments.store import CHECKPOINTS, read_result
from experiments.training import train

LAST = Path(CHECKPOINTS, "00000008-0123456789abcdef.ckpt")
ROOT = Path(__file__).parents[2]
PACKAGES = ("spinenet", "datamodules", "experiments", "ablations")
TRAIN = ["train", "retinanet", "--profile", "smoke", "--wandb", "disabled"]
CHANGES = ["model.backbone.width=0.0625", "train.epochs=3", "eval.every_epochs=3"]
KILLED_LATER = """
import os, sys
from experiments.module import DetectionModule
begin = DetectionModule.on_train_epoch_start
def die(self):
    if self.current_epoch == int(os.environ["DIES_IN"]):
        os._exit(9)
    begin(self)
DetectionModule.on_train_epoch_start = die
from experiments.cli import main
main()
"""


def begun(folder: Path) -> Path:
    """A run's folder that this code has begun."""
    assert take_up(folder, "refuse") is False
    (folder / LAST).parent.mkdir()
    (folder / LAST).write_bytes(b"state")
    return folder


def edit(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(code_version, "SOURCES", SOURCES | dict.fromkeys(names, "other"))


def test_the_same_code_goes_on(tmp_path):
    assert take_up(begun(tmp_path), "refuse") is False
    assert (tmp_path / LAST).is_file()


def test_other_code_is_refused_by_the_files_that_differ(tmp_path, monkeypatch):
    begun(tmp_path)
    edit(monkeypatch, "spinenet/blocks.py", "datamodules/transforms.py")
    noted = (tmp_path / "code.json").read_bytes()
    with pytest.raises(UserError) as caught:
        take_up(tmp_path, "refuse")
    said = str(caught.value)
    assert "(since then datamodules/transforms.py, spinenet/blocks.py changed)" in said
    assert "--other-code restart" in said
    assert "--other-code continue" in said
    assert (tmp_path / "code.json").read_bytes() == noted
    assert (tmp_path / LAST).is_file()


def test_a_run_that_never_finished_an_epoch_may_begin_with_any_code(tmp_path, monkeypatch):
    take_up(tmp_path, "refuse")
    edit(monkeypatch, "spinenet/blocks.py")
    assert take_up(tmp_path, "refuse") is False


def test_a_mixed_run_stays_one(tmp_path, monkeypatch):
    begun(tmp_path)
    edit(monkeypatch, "spinenet/blocks.py")
    assert take_up(tmp_path, "continue") is True
    assert take_up(tmp_path, "refuse") is True


def test_a_run_begun_again_forgets_what_it_was(tmp_path, monkeypatch):
    begun(tmp_path)
    edit(monkeypatch, "spinenet/blocks.py")
    assert take_up(tmp_path, "restart") is False
    assert not (tmp_path / LAST).exists()


@pytest.mark.parametrize("note", [None, b"", b"[]", b'{"code": 3, "libraries": {}}', b"[" * 9999])
def test_a_run_whose_code_is_not_known_is_other_code(tmp_path, note):
    begun(tmp_path)
    (tmp_path / "code.json").unlink() if note is None else (tmp_path / "code.json").write_bytes(
        note
    )
    with pytest.raises(UserError, match=r"begun by other code \(it is not noted which"):
        take_up(tmp_path, "refuse")


def test_another_torch_is_other_code():
    here = {"code": {}, "libraries": {"torch": "2.7"}}
    assert differences(here | {"libraries": {"torch": "2.6"}}, here) == ["torch"]


def test_what_decides_a_training_is_looked_at_and_what_shows_it_is_not():
    assert "experiments/module.py" in SOURCES
    assert "spinenet/detection/losses.py" in SOURCES
    assert "datamodules/sampling.py" in SOURCES
    assert not [name for name in SOURCES if "dashboard" in name or "cli" in name]


def test_a_developers_edit_stops_a_run_from_going_on_and_a_comment_does_not(tmp_path):
    """By a copy of this project, a run that is killed, and edits between."""
    project = tmp_path / "project"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, project / package, ignore=shutil.ignore_patterns("*.pyc"))

    def spinenet(*more: str, dies_in: int = -1) -> subprocess.CompletedProcess[str]:
        runs = tmp_path / "runs"
        changes = [part for change in CHANGES for part in ("--set", change)]
        return subprocess.run(
            [sys.executable, "-c", KILLED_LATER, *TRAIN, *changes, "--runs", str(runs), *more],
            cwd=project,
            env=os.environ | {"PYTHONPATH": str(project), "DIES_IN": str(dies_in)},
            capture_output=True,
            text=True,
        )

    assert spinenet(dies_in=1).returncode == 9
    (folder,) = (tmp_path / "runs").iterdir()
    blocks = project / "spinenet" / "blocks.py"
    before = blocks.read_text()
    blocks.write_text(before + "\nADDED = 1\n")
    refused = spinenet()
    assert refused.returncode == 2
    assert "begun by other code (since then spinenet/blocks.py changed)" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert latest(folder) is not None
    blocks.write_text("# a comment, a blank line\n\n" + before)
    assert spinenet().returncode == 0
    assert "code" not in read_result(folder).deviates


def test_a_result_of_two_codes_is_marked(tiny_recipe, tmp_path, monkeypatch):
    begin = DetectionModule.on_train_epoch_start

    def die(self: DetectionModule) -> None:
        if self.current_epoch == 1:
            raise SystemExit(9)
        begin(self)

    quiet = Runtime(accelerator="cpu", wandb="disabled")
    with monkeypatch.context() as patch:
        patch.setattr(DetectionModule, "on_train_epoch_start", die)
        with pytest.raises(SystemExit):
            train(tiny_recipe, "0123456789ab", tmp_path, quiet)
    edit(monkeypatch, "spinenet/blocks.py")
    with pytest.raises(UserError, match=r"since then spinenet/blocks\.py changed"):
        train(tiny_recipe, "0123456789ab", tmp_path, quiet)
    result = train(tiny_recipe, "0123456789ab", tmp_path, replace(quiet, other_code="continue"))
    assert result.deviates[-1] == "code"
