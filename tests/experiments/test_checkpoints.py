"""Resuming: from any step, from a damaged checkpoint, after a signal; always to the same end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from datamodules.loading import ResumableLoader, epoch_loader
from experiments import stopping
from experiments.assembly import Hold, make_trainer, read_data
from experiments.callbacks import FiniteLoss
from experiments.checkpoints import KEPT, Checkpoints, latest
from experiments.errors import UserError
from experiments.leases import LeaseLostError
from experiments.module import DetectionModule, NonFiniteLossError
from experiments.recipe import Recipe
from experiments.runtime import Processes, Runtime
from experiments.single import compose_recipe
from experiments.stopping import Stop, Stopped
from experiments.store import CHECKPOINTS, Store, read_result
from experiments.subprocesses import environment
from experiments.training import train
from experiments.weights import WEIGHTS
from tests.experiments.conftest import TINY

OFTEN = Runtime(accelerator="cpu", wandb="disabled", checkpoint_s=0.0)
RUN = "0123456789ab"


class Killed(BaseException):
    """As if the process had been ended here."""


@pytest.fixture(scope="module")
def long_recipe(coco_folder: Path) -> Recipe:
    """Two epochs of eight batches, with a row of history at step 10."""
    changes = [*TINY, "train.epochs=2", "train.batch_size=2"]
    return compose_recipe(
        "retinanet", profile="smoke", data=f"coco:{coco_folder}", changes=changes, seed=0
    )


@pytest.fixture(scope="module")
def undisturbed(long_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that every other has to end as."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train(long_recipe, RUN, folder, replace(OFTEN, checkpoint_s=1e9))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """What a run ended with."""
    weights = load_file(folder / WEIGHTS)
    found = {name: value.numpy().tobytes() for name, value in weights.items()}
    for name in ("history.jsonl", "detections.json"):
        found[name] = (folder / name).read_bytes()
    result = read_result(folder)
    assert result is not None
    return found | {"metrics": json.dumps(result.metrics).encode()}


def different(a: Path, b: Path) -> list[str]:
    mine, theirs = files(a), files(b)
    assert mine.keys() == theirs.keys()
    return [name for name in mine if mine[name] != theirs[name]]


def die_at(patch: pytest.MonkeyPatch, *steps: int) -> list[int]:
    """Kill the training where it has done these steps, once each; the steps that it began."""
    begun, left = [], list(steps)
    step = DetectionModule.training_step

    def dying(self: DetectionModule, batch: dict, index: int) -> torch.Tensor:
        if self.global_step in left:
            left.remove(self.global_step)
            raise Killed
        begun.append(self.global_step)
        return step(self, batch, index)

    patch.setattr(DetectionModule, "training_step", dying)
    return begun


@pytest.mark.parametrize(
    ("train_changes", "layer_changes", "workers"),
    [
        ({"ema_decay": 0.9, "frozen_norms": 0.5}, {}, 1),
        ({}, {"stochastic_depth": 0.5, "drop_block": 0.1}, 0),
    ],
    ids=["averages", "chance"],
)
def test_a_run_killed_inside_epochs_ends_as_if_it_had_not_been(
    long_recipe, tmp_path, monkeypatch, train_changes, layer_changes, workers
):
    layers = replace(long_recipe.model.layers, **layer_changes)
    recipe = replace(
        long_recipe,
        train=replace(long_recipe.train, **train_changes),
        model=replace(long_recipe.model, layers=layers),
    )
    quiet = replace(OFTEN, checkpoint_s=1e9)
    train(recipe, RUN, tmp_path / "a", quiet)
    begun = die_at(monkeypatch, 3, 7, 10, 13)
    for _ in range(4):
        with pytest.raises(Killed):
            train(recipe, RUN, tmp_path / "b", replace(OFTEN, num_workers=workers))
    train(recipe, RUN, tmp_path / "b", replace(OFTEN, num_workers=workers))
    # After step 10 its row of history is written, so the checkpoint before it is that of step 9.
    assert begun == [*range(10), 9, *range(10, 16)]
    assert different(tmp_path / "a", tmp_path / "b") == []
    assert "goes on from step 13" in (tmp_path / "b" / "train.log").read_text()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_processes_killed_inside_an_epoch_each_draw_on_as_if_they_had_not_been(
    long_recipe, tmp_path, monkeypatch
):
    layers = replace(long_recipe.model.layers, stochastic_depth=0.5)
    recipe = replace(
        long_recipe,
        train=replace(long_recipe.train, batch_size=4),
        model=replace(long_recipe.model, layers=layers),
    )
    shared = replace(OFTEN, processes=Processes(devices=2))
    train(recipe, RUN, tmp_path / "a", replace(shared, checkpoint_s=1e9))
    begun = die_at(monkeypatch, 3)
    with pytest.raises(Killed):
        train(recipe, RUN, tmp_path / "b", shared)
    train(recipe, RUN, tmp_path / "b", shared)
    assert begun == [0, 1, 2, *range(1, 8)]
    assert different(tmp_path / "a", tmp_path / "b") == []


def test_a_run_killed_after_its_last_epoch_repeats_no_row_of_its_history(
    long_recipe, undisturbed, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(DetectionModule, "final", lambda self: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            train(long_recipe, RUN, tmp_path / "b", OFTEN)
    train(long_recipe, RUN, tmp_path / "b", OFTEN)
    assert different(undisturbed, tmp_path / "b") == []


def test_epochs_without_validation_are_resumed_alike(long_recipe, tmp_path, monkeypatch):
    recipe = replace(long_recipe, eval=replace(long_recipe.eval, every_epochs=3))
    train(recipe, RUN, tmp_path / "a", OFTEN)
    die_at(monkeypatch, 8, 15)
    for _ in range(2):
        with pytest.raises(Killed):
            train(recipe, RUN, tmp_path / "b", OFTEN)
    train(recipe, RUN, tmp_path / "b", OFTEN)
    assert different(tmp_path / "a", tmp_path / "b") == []


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_weights_that_are_not_finite_reach_no_checkpoint_though_the_loss_is_not_looked_at(
    long_recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr(FiniteLoss, "on_train_batch_end", lambda *_: None)  # a GPU's, in between
    step = DetectionModule.training_step

    def explode(self, batch, batch_index):
        loss = step(self, batch, batch_index)
        return loss * torch.inf if self.global_step == 1 else loss

    monkeypatch.setattr(DetectionModule, "training_step", explode)
    with pytest.raises(NonFiniteLossError):
        train(long_recipe, RUN, tmp_path / "a", OFTEN)
    kept = torch.load(latest(tmp_path / "a")[0], weights_only=True)
    assert kept["global_step"] == 1
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.write_bytes(b"")])
def test_a_damaged_checkpoint_is_skipped_with_a_warning(
    long_recipe, undisturbed, tmp_path, monkeypatch, damage: Callable[[Path], None]
):
    die_at(monkeypatch, 6)
    with pytest.raises(Killed):
        train(long_recipe, RUN, tmp_path / "b", OFTEN)
    kept = sorted((tmp_path / "b" / CHECKPOINTS).iterdir())
    assert [path.name[:8] for path in kept] == ["00000005", "00000006"]
    draft = tmp_path / "b" / CHECKPOINTS / ".00000007-draft"
    draft.write_bytes(b"cut")  # of a process killed then
    damage(kept[-1])
    train(long_recipe, RUN, tmp_path / "b", OFTEN)
    log = (tmp_path / "b" / "train.log").read_text()
    assert f"WARNING {kept[-1].name} is damaged, so the checkpoint before it is taken" in log
    assert "goes on from step 5" in log
    assert different(undisturbed, tmp_path / "b") == []
    assert len(list((tmp_path / "b" / CHECKPOINTS).iterdir())) == KEPT


def test_without_a_sound_checkpoint_a_run_begins_anew(
    long_recipe, undisturbed, tmp_path, monkeypatch
):
    die_at(monkeypatch, 2)
    with pytest.raises(Killed):
        train(long_recipe, RUN, tmp_path / "b", OFTEN)
    for path in (tmp_path / "b" / CHECKPOINTS).iterdir():
        flip(path)
    assert latest(tmp_path / "b") is None
    train(long_recipe, RUN, tmp_path / "b", OFTEN)
    assert different(undisturbed, tmp_path / "b") == []


def test_a_history_whose_last_line_was_cut_is_gone_on_with(
    long_recipe, undisturbed, tmp_path, monkeypatch
):
    die_at(monkeypatch, 12)
    with pytest.raises(Killed):
        train(long_recipe, RUN, tmp_path / "b", OFTEN)
    with (tmp_path / "b" / "history.jsonl").open("a") as file:
        file.write('{"step": 12, "loss')
    train(long_recipe, RUN, tmp_path / "b", OFTEN)
    assert different(undisturbed, tmp_path / "b") == []


def test_who_lost_its_run_stops_before_it_writes_and_leaves_no_failure(
    long_recipe, tmp_path, monkeypatch
):
    save = Checkpoints._save

    def late(self: Checkpoints, trainer) -> None:
        if trainer.global_step == 3:  # suspended here, and taken over meanwhile
            (self.lease.path.parent / "2").write_text("{}")
        save(self, trainer)

    monkeypatch.setattr(Checkpoints, "_save", late)
    with pytest.raises(LeaseLostError, match="another worker took this run over"):
        train(long_recipe, RUN, tmp_path / "b", OFTEN)
    found = latest(tmp_path / "b")
    assert found is not None
    assert found[1] == 2
    assert not (tmp_path / "b" / "failure.json").exists()
    assert "took this run over" in (tmp_path / "b" / "train.log").read_text()


SIGNALLED = """
import json, os, signal, sys
from pathlib import Path
from experiments.compose import from_tree
from experiments.stopping import Stopped
from experiments.runtime import Runtime
from experiments.training import train

recipe = from_tree(json.loads(sys.argv[1]), origin="test")
signal.signal(signal.SIGINT, signal.default_int_handler)
def send(event):
    if event["kind"] == "step" and event["step"] >= 2 and len(sys.argv) > 3:
        os.kill(os.getpid(), int(sys.argv[3]))
try:
    train(recipe, "0123456789ab", Path(sys.argv[2]), Runtime("cpu", wandb="disabled"), send)
except Stopped as stopped:
    sys.exit(stopped.exit_code)
"""


def test_processes_that_found_different_checkpoints_do_not_go_on(
    long_recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "experiments.checkpoints.of_all",
        lambda mine: [mine, "00000400-aa.ckpt"] if isinstance(mine, str) else [mine],
    )
    with pytest.raises(UserError, match=r"different checkpoints \(00000400-aa.ckpt, none\)"):
        train(long_recipe, RUN, tmp_path / "a", OFTEN)
    assert latest(tmp_path / "a") is None


def test_only_the_first_process_of_a_run_touches_its_history(long_recipe, tmp_path):
    runtime = replace(OFTEN, processes=Processes(devices=2, local=1, port=1))
    history = tmp_path / "history.jsonl"
    history.write_text('{"step": 9, "loss": 1.0}\n')
    data = read_data(long_recipe, runtime)
    hold = Hold(tmp_path, None, Stop())
    make_trainer(long_recipe, hold, runtime, data, [], [])
    assert history.read_text() == '{"step": 9, "loss": 1.0}\n'
    make_trainer(long_recipe, hold, replace(runtime, processes=Processes()), data, [], [])
    assert history.read_text() == ""


def test_whoever_may_read_a_run_may_go_on_with_it(undisturbed):
    found = latest(undisturbed)
    assert found is not None
    assert found[0].stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, stopping.EXIT),
        (signal.SIGUSR1, 75),
        (signal.SIGUSR2, 75),
        (signal.SIGINT, 130),
    ],
)
def test_a_signal_ends_a_run_with_a_checkpoint_and_no_failure(
    long_recipe, tmp_path, monkeypatch, number, code
):
    from experiments.recipe import to_tree

    monkeypatch.setattr("experiments.callbacks.REPORT_EVERY_S", 0.0)
    recipe = replace(long_recipe, train=replace(long_recipe.train, epochs=40))
    patched = "import experiments.callbacks as c; c.REPORT_EVERY_S = 0.0\n" + SIGNALLED
    given = [sys.executable, "-c", patched, json.dumps(to_tree(recipe)), str(tmp_path / RUN)]
    done = subprocess.run([*given, str(int(number))], env=environment(), timeout=120)
    assert done.returncode == code
    found = latest(tmp_path / RUN)
    assert found is not None
    assert found[1] >= 2
    assert Store(tmp_path).state(RUN) == "missing"
    assert "with a checkpoint" in (tmp_path / RUN / "train.log").read_text()


def test_a_run_that_cannot_reach_a_step_in_time_leaves_with_what_it_has(
    long_recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr(stopping, "GRACE_S", 0.3)
    step = DetectionModule.training_step

    def slow(self: DetectionModule, batch: dict, index: int) -> torch.Tensor:
        if self.global_step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        return step(self, batch, index)

    monkeypatch.setattr(DetectionModule, "training_step", slow)
    begun = time.monotonic()
    with pytest.raises(Stopped):
        train(long_recipe, RUN, tmp_path / "b", OFTEN)
    assert time.monotonic() - begun < 25
    found = latest(tmp_path / "b")
    assert found is not None
    assert found[1] == 2
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_while_nothing_is_trained_ends_the_run_at_once(
    long_recipe, undisturbed, tmp_path, monkeypatch
):
    final = DetectionModule.final

    def signalled(self: DetectionModule):
        os.kill(os.getpid(), signal.SIGTERM)
        return final(self)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionModule, "final", signalled)
        with pytest.raises(Stopped):
            train(long_recipe, RUN, tmp_path / "b", OFTEN)
    train(long_recipe, RUN, tmp_path / "b", OFTEN)
    assert different(undisturbed, tmp_path / "b") == []


def test_within_an_epoch_shorter_than_the_interval_there_is_no_checkpoint(undisturbed):
    kept = sorted(path.name[:8] for path in (undisturbed / CHECKPOINTS).iterdir())
    assert kept == ["00000008", "00000016"]


class Echo(torch.utils.data.Dataset):
    def __getitem__(self, key: tuple[int, int]) -> dict:
        return {"image": torch.zeros(3, 1, 1), "key": torch.tensor(key)}

    def __len__(self) -> int:
        return 10


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_with_the_batch_after(workers):
    def loader() -> ResumableLoader:
        made = epoch_loader(
            Echo(), length=10, train=True, batch_size=3, seed=1, num_workers=workers
        )
        assert isinstance(made, ResumableLoader)
        return made

    def keys(batches) -> list:
        return [batch["key"].tolist() for batch in batches]

    whole, first = keys(loader()), loader()
    batches = iter(first)
    begun = keys([next(batches)])
    state = first.state_dict()
    again = loader()
    again.load_state_dict(state)
    assert state == {"batches": 1}
    assert [*begun, *keys(again)] == whole
    assert len(whole) == 3
    again.sampler.set_epoch(1)  # a later epoch is whole
    assert len(keys(again)) == 3


def test_a_classifier_resumes_inside_its_epoch(tmp_path, monkeypatch):
    from experiments.module import ClassificationModule

    changes = ["model.backbone.width=0.0625", "model.backbone.endpoint_filters=8"]
    recipe = compose_recipe("classifier", profile="smoke", data=None, changes=changes, seed=0)
    recipe = replace(recipe, train=replace(recipe.train, batch_size=2))
    train(recipe, RUN, tmp_path / "a", OFTEN)
    step = ClassificationModule.training_step

    def dying(self, batch, index):
        if self.global_step == 4:
            monkeypatch.setattr(ClassificationModule, "training_step", step)
            raise Killed
        return step(self, batch, index)

    monkeypatch.setattr(ClassificationModule, "training_step", dying)
    with pytest.raises(Killed):
        train(recipe, RUN, tmp_path / "b", OFTEN)
    train(recipe, RUN, tmp_path / "b", OFTEN)
    mine, theirs = (load_file(tmp_path / x / WEIGHTS) for x in "ab")
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
    assert "goes on from step 4" in (tmp_path / "b" / "train.log").read_text()
