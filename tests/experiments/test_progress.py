"""How far a run is: written for others to read, and never a reason to fail."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from experiments.module import NonFiniteLossError
from experiments.progress import FILE, Progress, ProgressFile, read_progress
from experiments.runtime import Runtime
from experiments.training import train

HALF = Progress(
    step=60, total=100, batch_size=8, begun=1000.0, begun_at_step=20, updated=1010.0, metric="AP"
)


def step(number: int, total: int = 100) -> dict[str, object]:
    return {"kind": "step", "step": number, "total": total}


def test_rate_and_time_left_count_from_where_this_process_began():
    assert HALF.share == 0.6
    assert HALF.images_per_second == pytest.approx(40 * 8 / 10)
    assert HALF.seconds_left == pytest.approx(40 / 4)


def test_before_a_second_report_there_is_no_rate_to_guess_from():
    first = replace(HALF, step=20, updated=1000.0)
    assert first.images_per_second is None
    assert first.seconds_left is None


def test_the_file_has_the_last_report_and_the_last_validation(tmp_path):
    file = ProgressFile(tmp_path, batch_size=8)
    file.take(step(10))
    file.take({"kind": "validation", "metric": "AP", "value": 12.5})
    found = read_progress(tmp_path)
    assert found is not None
    assert (found.step, found.total, found.begun_at_step) == (10, 100, 10)
    assert (found.metric, found.value) == ("AP", 12.5)


def test_it_is_written_at_most_every_second(tmp_path, monkeypatch):
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: 100.0 + now)
    file = ProgressFile(tmp_path, batch_size=8)
    seen = []
    for number in range(1, 31):
        now = number / 10
        file.take(step(number))
        found = read_progress(tmp_path)
        assert found is not None
        seen.append(found.step)
    assert sorted(set(seen)) == [1, 11, 21]


def test_a_folder_that_cannot_be_written_to_is_no_failure(tmp_path):
    file = ProgressFile(tmp_path / "gone", batch_size=8)
    file.take(step(1))
    file.remove()
    assert read_progress(tmp_path / "gone") is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"step": "many"}'])
def test_a_damaged_file_says_nothing(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    assert read_progress(tmp_path) is None


def test_a_finished_run_leaves_none_and_a_failed_one_keeps_its_last(tiny_recipe, tmp_path):
    runtime, sent = Runtime(accelerator="cpu", wandb="disabled"), []
    train(tiny_recipe, "0" * 12, tmp_path / "good", runtime, sent.append)
    assert {event["kind"] for event in sent} == {"step", "validation"}
    assert not (tmp_path / "good" / FILE).exists()
    broken = replace(tiny_recipe, optim=replace(tiny_recipe.optim, lr=1e30))
    with pytest.raises(NonFiniteLossError):
        train(broken, "1" * 12, tmp_path / "bad", runtime)
    kept = read_progress(tmp_path / "bad")
    assert kept is not None
    assert kept.total == 4
