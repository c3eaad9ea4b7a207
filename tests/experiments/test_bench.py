"""Benchmarks: each runs and is recorded, what they compare is the same thing, and the page of
speeds says what the files say. No test looks at a time but those that are made up here.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from experiments.bench import contest as contests
from experiments.bench import measure as measuring
from experiments.bench import report, step
from experiments.bench.contest import Benchmark, Contest, Settings, Side, Skipped
from experiments.bench.detectors import Workload, draw
from experiments.bench.input import OurInput, TheirInput
from experiments.bench.limits import data_sheet_peak
from experiments.bench.measure import Outcome, Times, measure
from experiments.bench.pictures import write_photographs
from experiments.bench.record import Record, hold, machine, read, read_all, write
from experiments.bench.scoring import Scoring, draw_detections, draw_truth
from experiments.bench.suite import TITLES, benchmark
from experiments.errors import UserError
from experiments.module import network_input

ROOT = Path(__file__).parents[2]
QUICK = Settings(rounds=2, quick=True)


class Clock:
    """A clock that only moves when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.drift = 1.0
        monkeypatch.setattr(measuring.time, "perf_counter", lambda: self.now)

    def side(self, name: str, seconds: float, work: float = 1.0) -> Side:
        def spend() -> None:
            self.drift *= 1.1  # the machine gets slower and slower
            self.now += seconds * self.drift

        return Side(name, spend, work)


def recorded(**changes: object) -> Record:
    """A record with made-up times: ours takes half of theirs for twice the work."""
    times = Times("one", 2.0, ((1.0, 1.0), (1.0, 1.0)), ((1.0, 1.0), (1.0, 1.0)))
    theirs = replace(times, label="other", work=1.0, wall_s=((2.0, 2.5), (2.0, 2.0)))
    outcome = Outcome("a | b", "pictures", "wall", times, theirs, 4.0, 3.5, 4.5, {"note": "so"})
    settings = Settings(threads=2)
    return replace(
        Record(
            benchmark="step",
            title="A step",
            command="spinenet bench step",
            settings=settings,
            environment=machine(settings),
            outcomes=(outcome,),
            skipped=(Skipped("c", "absent"),),
        ),
        **changes,
    )


@pytest.mark.parametrize("name", [name for name in TITLES if name != "growth"])
def test_a_benchmark_runs_at_toy_size_and_its_record_reads_back(name, tmp_path):
    record = hold(name, benchmark(name), QUICK)
    path = write(tmp_path, record)
    assert read(path) == json_round_trip(record)
    assert not re.search(r'"(/|~|[A-Z]:\\)|\s/\w', path.read_text())  # no path of this machine
    assert record.outcomes
    for outcome in record.outcomes:
        assert outcome.ratio > 0
        assert [len(outcome.ours.wall_s), len(outcome.theirs.wall_s)] == [2, 2]
        assert all(math.isfinite(s) for times in outcome.ours.wall_s for s in times)


def json_round_trip(record: Record) -> Record:
    """The record with its facts as JSON has them, where a tuple is a list."""
    outcomes = tuple(replace(o, facts=json.loads(json.dumps(o.facts))) for o in record.outcomes)
    return replace(record, outcomes=outcomes)


def test_the_ratio_is_of_speeds_and_drift_falls_out_of_it(monkeypatch):
    clock = Clock(monkeypatch)
    a, b = clock.side("a", 1.0, work=3.0), clock.side("b", 2.0)
    outcome = measure(Contest("c", a, b), Settings(rounds=8), lambda: None)
    assert outcome.low < 6.0 < outcome.high  # twice as fast at three times the work
    assert outcome.high / outcome.low < 1.2  # while the times themselves grew by 1.1 a call
    assert outcome.seconds(outcome.ours) > 2.0


def test_neither_side_always_goes_first():
    calls: list[str] = []
    sides = [Side(name, lambda name=name: calls.append(name)) for name in "ab"]
    measure(Contest("c", *sides), Settings(rounds=10), lambda: None)
    firsts = calls[6::2]  # after three calls of each to warm up
    assert {"a", "b"} <= set(firsts)
    assert calls.count("a") == calls.count("b") == 3 + 10 * 5


def test_threads_are_as_they_were_afterwards():
    before = torch.get_num_threads()
    seen: list[int] = []
    side = Side("a", lambda: seen.append(torch.get_num_threads()))
    held = Contest("c", side, side, threads=1, facts=lambda s: {"n": torch.get_num_threads()})
    record = hold("x", Benchmark("x", lambda s: iter([held])), replace(QUICK, threads=2))
    assert set(seen) == {1}
    assert record.outcomes[0].facts == {"n": 1}
    assert torch.get_num_threads() == before


def test_a_peer_that_is_absent_is_skipped_with_the_way_out(monkeypatch):
    monkeypatch.setattr(contests.importlib.util, "find_spec", lambda name: None)
    reason = contests.missing("faster_coco_eval", "faster-coco-eval")
    assert reason == "faster-coco-eval is not installed (pip install '.[bench]')"
    held = Benchmark("x", lambda s: iter([Skipped("c", reason)]))
    record = hold("x", held, QUICK)
    assert report.rows(record) == [["c", "", "", f"skipped: {reason}"]]


def test_the_extra_that_a_skip_names_is_declared():
    assert f"\n{contests.EXTRA} = [" in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("peer", ["pycocotools", "faster-coco-eval"])
def test_all_scorers_give_the_same_twelve_numbers(peer):
    if peer == "faster-coco-eval":
        pytest.importorskip("faster_coco_eval")
    index = draw_truth(30)
    numbers = []
    for scorer in ("spinenet", peer):
        scoring = Scoring(scorer, index, draw_detections(index))
        scoring()
        numbers.append(scoring.numbers)
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-9)
    assert len(set(numbers[0])) == 12  # each is another number, so that none stands for another
    assert all(0 < number < 1 for number in numbers[0])


def test_the_pictures_that_are_read_are_torchvisions_pixel_for_pixel(tmp_path):
    write_photographs(tmp_path, 8)
    ours = network_input(next(OurInput(tmp_path, train=False).batches()))
    theirs = next(TheirInput(tmp_path, train=False).batches())
    assert theirs.shape == (8, 3, 480, 640)
    assert ours.shape == (8, 3, 640, 640)
    torch.testing.assert_close(ours[:, :, :480], theirs, rtol=0, atol=2e-6)
    assert not ours[:, :, 480:].any()


def test_both_detectors_are_given_the_same_pictures_objects_and_masks():
    load = Workload(side=64, batch=2, objects=3, classes=5)
    pictures = draw(load, "cpu")
    ours = pictures.for_ours(masks=True)
    images, targets = pictures.for_torchvision(masks=True)
    assert ours["image"].shape == (2, 3, 64, 64)
    assert images[0].min() >= 0
    assert images[0].max() <= 1
    for i, target in enumerate(targets):
        assert torch.equal(target["boxes"], ours["boxes"][i])
        assert torch.equal(target["labels"], ours["labels"][i])
        sides = target["boxes"][:, 2:] - target["boxes"][:, :2]
        covered = target["masks"].sum(dim=(1, 2)) / sides.prod(dim=1)
        inside = ours["masks"][i].float().mean(dim=(1, 2)) / 255
        assert covered.tolist() == pytest.approx(inside.tolist(), abs=0.12)  # both are pi / 4


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 PCIe", 378e12),
        ("NVIDIA H100 80GB HBM3", 494.5e12),
        ("NVIDIA A100-SXM4-80GB", 156e12),
        ("NVIDIA L40S", 181e12),
        ("NVIDIA A10G", 35e12),
        ("NVIDIA L40", 90.5e12),
        ("NVIDIA L4", 60.5e12),
        ("NVIDIA RTX A1000", None),
        ("NVIDIA GeForce GTX 1080", None),
    ],
)
def test_a_gpus_peak_is_that_of_its_own_data_sheet(name, peak):
    assert data_sheet_peak(name) == peak


def test_a_table_says_ratio_unit_reason_and_note():
    text = report.to_markdown([recorded()])
    assert r"| a \| b | 2 pictures/s | 0.471 pictures/s | 4.00 (3.50 to 4.50) |" in text
    assert "skipped: absent" in text
    assert "- a | b: so" in text
    assert "`spinenet bench step`" in text


def test_a_long_reason_to_skip_is_printed_whole_in_eighty_columns(capsys, monkeypatch):
    from experiments.cli import bench, render

    reason = "the package that it needs is not installed; pip install it beside this one " * 2
    monkeypatch.setattr(render, "console", Console(width=80))
    bench._print(recorded(skipped=(Skipped("a contest of networks", reason),)))
    out = capsys.readouterr().out
    assert " ".join(reason.split()) in " ".join(out.split())
    assert "4.00 (3.50 to 4.50)" in out
    assert max(len(line) for line in out.splitlines()) <= 80


def test_the_page_of_speeds_is_that_of_the_stored_files():
    page = (ROOT / "docs" / "speed.md").read_text()
    block = page.partition(f"<!-- table: {report.BLOCK} -->")[2].partition("<!-- end -->")[0]
    assert block.strip() == report.to_markdown(list(read_all(ROOT / "results" / "bench"))).strip()


def test_the_figure_of_growth_is_that_of_the_stored_file(run, tmp_path):
    drawn = tmp_path / "growth.svg"
    code, _, _ = run("speed", ROOT / "results" / "bench", "--figure", drawn)
    assert code == 0
    assert drawn.read_text() == (ROOT / "docs" / "figures" / "growth.svg").read_text()
    code, _, err = run("speed", tmp_path, "--figure", drawn)
    assert (code, "`spinenet bench growth` does" in err) == (2, True)


def test_speed_writes_the_page(run, tmp_path):
    page, folder = tmp_path / "page.md", tmp_path / "bench"
    page.write_text("before\n<!-- table: speed -->\nold\n<!-- end -->\nafter\n")
    write(folder, recorded())
    code, _, _ = run("speed", folder, "--into", page)
    assert code == 0
    assert "4.00 (3.50 to 4.50)" in page.read_text()
    assert "old" not in page.read_text()


def test_precisions_have_files_of_their_own(tmp_path):
    usual = write(tmp_path, recorded())
    narrow = write(tmp_path, recorded(settings=replace(Settings(), precision="bf16")))
    assert (usual.name, narrow.name) == ("step.json", "step-bf16.json")
    assert "### A step in bf16" in report.to_markdown(list(read_all(tmp_path)))


def test_in_bf16_the_step_is_also_held_against_float32():
    names = [c.name for c in step.contests(replace(QUICK, precision="bf16"))]
    assert "RetinaNet R50-FPN, step, against theirs in float32" in names


def test_toy_sizes_are_no_measurement(run, tmp_path):
    write(tmp_path, recorded(settings=replace(Settings(), quick=True)))
    code, _, err = run("speed", tmp_path)
    assert code == 2
    assert "settings.quick" in err
    assert "without --quick" in err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:100], "file"),
        (lambda text: text.replace('"ratio": 4.0', '"ratio": "fast"'), "outcomes.0.ratio"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 9'), "version: 9"),
    ],
)
def test_a_damaged_file_is_named_with_its_field(change, message, tmp_path):
    path = write(tmp_path, recorded())
    path.write_text(change(path.read_text()))
    with pytest.raises(UserError, match=f"step.json.*{message}"):
        read(path)


def test_list_names_every_benchmark(run):
    code, out, _ = run("bench", "--list")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == list(TITLES)


def test_bench_prints_its_table_and_where_the_file_is(run, tmp_path):
    code, out, _ = run("bench", "growth", "--quick", "--threads", 1, "--out", tmp_path)
    assert code == 0
    assert "times as fast" in out
    assert "growth.json" in out
    record = read(tmp_path / "growth.json")
    assert record.settings.quick
    assert [o.name for o in record.outcomes] == ["batch 2", "objects 2", "objects 4"]
    assert record.outcomes[0].facts["macs_b"]["ours"] > 0
    with Image.open(tmp_path / "growth.png") as drawn:
        assert drawn.width > drawn.height > 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("stepp",), "did you mean 'step'"), (("step", "--device", "cuda"), "--device cpu")],
)
def test_a_mistake_is_one_line_with_the_way_out(run, arguments, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, _, err = run("bench", *arguments)
    assert code == 2
    assert message in err
