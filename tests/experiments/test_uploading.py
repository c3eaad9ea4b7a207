"""Runs are sent to W&B beside training, and no server's behaviour changes a run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import wandb

from experiments import tracking, uploading
from experiments.compose import Changes
from experiments.errors import UserError
from experiments.executors.local import PRELOADED
from experiments.runtime import Runtime
from experiments.store import Store, read_result
from experiments.study import Selection, cells
from experiments.study_file import load_profile, load_study
from experiments.tracking import SafeWandbLogger
from experiments.training import train
from tests.experiments.helpers import of_ladder
from tests.experiments.wandb_server import Server, wandb_server

ROOT = Path(__file__).parents[2]
SENDING_S = 60  # W&B's process takes a second; machines are slow


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A user with a key, whose home nothing else of W&B is in."""
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)


@pytest.fixture
def senders(monkeypatch: pytest.MonkeyPatch):
    """The processes that send; what is left of them ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(record: Path) -> subprocess.Popen[bytes]:
        started.append(uploading.start_upload(record))
        return started[-1]

    monkeypatch.setattr(tracking, "start_upload", start)
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


def trained(recipe, folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    return train(recipe, "a" * 12, folder, Runtime(accelerator="cpu", wandb="online"))


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return [x["loss/total"] for x in lines if "loss/total" in x]


def test_a_run_reaches_the_server_while_the_run_only_writes_to_its_folder(
    tiny_recipe, tmp_path, monkeypatch, senders
):
    with wandb_server("takes") as server:
        trained(tiny_recipe, tmp_path / "a", server, monkeypatch)
        assert senders[0].wait(SENDING_S) == 0
    sent = [row["loss/total"] for row in server.rows if "loss/total" in row]
    assert sent == pytest.approx(losses(tmp_path / "a"))
    assert "wandb-summary.json" in server.uploaded
    assert "run-aaaaaaaaaaaa-predictions" in server.artifacts


@pytest.mark.parametrize("behaviour", ["refuses", "errs", "hangs", "is absent"])
def test_a_run_completes_whatever_the_server_does_and_is_sent_later(
    tiny_recipe, tmp_path, monkeypatch, senders, behaviour
):
    plain = train(tiny_recipe, "b" * 12, tmp_path / "b", Runtime("cpu", wandb="disabled"))
    with wandb_server("takes" if behaviour == "is absent" else behaviour) as server:
        if behaviour == "is absent":
            server.server_close()
        tracked = trained(tiny_recipe, tmp_path / "runs" / "a", server, monkeypatch)
        assert tracked.metrics == plain.metrics
        stored = read_result(tmp_path / "runs" / "a")
        assert stored.metrics == plain.metrics
        assert stored.tracker_seconds == tracked.tracker_seconds > 0
        assert behaviour == "is absent" or wait_until(lambda: server.met > 0)
    senders[0].kill()
    with wandb_server("takes") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        assert uploading.send(uploading.records(tmp_path / "runs")) == 0
        sent = [row["loss/total"] for row in server.rows if "loss/total" in row]
        assert sent == pytest.approx(losses(tmp_path / "runs" / "a"))
        before = server.met
        uploading.send(uploading.records(tmp_path / "runs"))  # has it already
        assert len(server.rows) == len(set(map(json.dumps, server.rows)))
        assert server.met <= before + 1


def wait_until(holds) -> bool:
    end = time.monotonic() + SENDING_S
    while not holds() and time.monotonic() < end:
        time.sleep(0.05)
    return holds()


def test_tracking_takes_less_than_a_percent_of_the_fastest_embedded_run(
    tmp_path, monkeypatch, senders
):
    """Start and end as measured, each step that is logged at its measured cost, against as many
    pictures as the profile has at the speed measured beside it: others may use the machine.
    """
    profile, few = load_profile("embedded"), {"data.source.train_images": 96, "train.epochs": 1}
    changes = (Changes({**few, "data.source.val_images": 16}, "test"),)
    selection = Selection(profile=profile, seeds=1, changes=changes, only=("r50-fpn",))
    (cell,) = cells(load_study("ladder"), selection)
    stored = min(of_ladder(Store(ROOT / "results" / "embedded")), key=lambda r: r.seconds)
    assert stored.name.startswith("r50-fpn-digits")
    spent: list[float] = []
    log_metrics = SafeWandbLogger.log_metrics

    def watched(self, metrics, step=None):
        before = self.seconds
        log_metrics(self, metrics, step)
        spent.append(self.seconds - before)

    monkeypatch.setattr(SafeWandbLogger, "log_metrics", watched)
    logged = stored.images_seen // stored.recipe["train"]["batch_size"] // 10 + 2
    shares = []
    for module in PRELOADED:  # as in the processes of a grid
        import_module(module)
    with wandb_server("hangs") as server:
        for name in "ab":
            spent.clear()
            wandb.teardown()  # a run has a process of its own, which starts W&B's
            run = trained(cell.recipe, tmp_path / name, server, monkeypatch)
            tracking = run.tracker_seconds + (logged - len(spent)) * sorted(spent)[1]
            shares.append(tracking / (run.train_seconds / run.images_seen * stored.images_seen))
    assert 0 < min(shares) < 0.01


def test_what_sends_gives_up_some_time_after_its_run_has_ended():
    follow = (
        "import sys\n"
        "from experiments import uploading\n"
        "uploading.GRACE_S = 0.2\n"
        "uploading.WANDB = (sys.executable, '-c', 'import time; time.sleep(600)')\n"
        "sys.exit(uploading._follow('record'))\n"
    )
    sender = subprocess.Popen([sys.executable, "-c", follow], stdin=subprocess.PIPE, cwd=ROOT)
    with pytest.raises(subprocess.TimeoutExpired):
        sender.wait(1)
    assert sender.stdin is not None
    sender.stdin.close()  # as the system does when the run's process dies
    assert sender.wait(SENDING_S) != 0


def test_the_command_sends_what_a_folder_of_runs_holds(
    run, tiny_recipe, tmp_path, monkeypatch, senders
):
    runs = tmp_path / "runs"
    train(tiny_recipe, "a" * 12, runs / "a", Runtime("cpu", wandb="offline"))
    assert senders == []
    with wandb_server("takes") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        assert run("wandb", "sync", "--runs", runs, "--dry-run")[0] == 0
        assert server.rows == []
        assert run("wandb", "sync", "--runs", runs)[0] == 0
        assert len(server.rows) >= 2


def test_a_folder_without_records_says_so(tmp_path):
    with pytest.raises(UserError, match="no run here was recorded"):
        uploading.records(tmp_path)
