"""Prices before anything runs, what a budget buys, and grids of many studies."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules import CocoFolderConfig, ImageFolderConfig, INaturalistConfig
from experiments import probe
from experiments.budget import choose
from experiments.compose import Changes
from experiments.durations import duration, parse_duration
from experiments.errors import UserError
from experiments.executors import local, run_cells
from experiments.grid import make_plan, runtimes
from experiments.planning import scaled
from experiments.pricing import Price, measured_speeds, price_runs
from experiments.provenance import processor
from experiments.recipe import Recipe
from experiments.store import Failure, Result, Store, write_failure, write_result
from experiments.study import Cell, Claim, Selection, Study, Variant, cells, own_source
from experiments.study_file import load_profile, load_study, shipped_studies
from tests.experiments.helpers import of_ladder, smoke_cells

COMMITTED = Path(__file__).parents[2] / "results" / "embedded"


def measured_store(root: Path, **facts: Any) -> Store:
    """One run of this machine with these facts."""
    known = next(of_ladder(Store(COMMITTED)))
    here = {"processor": processor(), "gpu": None}
    result: Result = replace(known, environment=here, **facts)
    (root / f"run-{result.run_id}").mkdir(parents=True)
    (root / f"run-{result.run_id}" / "result.json").write_text(json.dumps(asdict(result)))
    return Store(root)


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.pricing.gpu_name", lambda: None)


@pytest.mark.usefixtures("on_cpu")
def test_a_price_follows_from_the_measured_run_and_the_multiply_adds(tmp_path):
    facts = {"images_per_second": 50.0, "train_seconds": 60.0, "seconds": 67.0}
    store = measured_store(tmp_path / "whole", macs_b=0.1, **facts)
    profile = load_profile("embedded")
    found = cells(load_study("ladder"), Selection(profile=profile, seeds=1, only=("spinenet-49",)))
    price = price_runs(found, store)[found[0].run_id]
    pictures, macs_b = 2 * 2400, 0.162371264  # of the committed run
    assert price.seconds == pytest.approx(pictures / 50 * macs_b / 0.1 + 7)
    assert price.macs == pytest.approx(3 * macs_b * 1e9 * pictures)
    half = measured_store(tmp_path / "half", macs_b=0.05, **facts)
    assert price_runs(found, half)[found[0].run_id].seconds == pytest.approx(
        2 * (price.seconds - 7) + 7
    )


@pytest.mark.usefixtures("on_cpu")
def test_runs_of_other_machines_and_of_seconds_set_no_price(tmp_path):
    assert len(measured_speeds(measured_store(tmp_path / "a", train_seconds=60.0))) == 1
    assert measured_speeds(measured_store(tmp_path / "b", train_seconds=1.0)) == []
    other = {"processor": "another", "gpu": None}
    known = next(of_ladder(Store(COMMITTED)))
    folder = tmp_path / "c" / f"run-{known.run_id}"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(asdict(replace(known, environment=other))))
    assert measured_speeds(Store(tmp_path / "c")) == []


def test_runs_on_the_processor_of_a_machine_with_a_gpu_are_the_processors(tmp_path, monkeypatch):
    known = next(of_ladder(Store(COMMITTED)))
    facts = {"processor": processor(), "gpu": "H200", "accelerator": "cpu"}
    write_result(tmp_path / f"run-{known.run_id}", replace(known, environment=facts))
    for gpu, speeds in ((None, 1), ("H200", 0)):
        monkeypatch.setattr("experiments.pricing.gpu_name", lambda gpu=gpu: gpu)
        assert len(measured_speeds(Store(tmp_path))) == speeds


def test_a_kind_of_data_that_the_paper_has_none_of_needs_a_folder():
    profile, changes = load_profile("paper"), Changes({"data.source.kind": "csv"}, "--set")
    selection = Selection(profile=profile, seeds=1, changes=(changes,))
    grid = cells(load_study("classification"), selection, without_data=True)
    with pytest.raises(UserError, match="no data set of kind 'csv'; name a folder: --data csv:"):
        price_runs(grid, Store(Path("nowhere")))


def test_without_a_run_a_probe_is_timed_once_per_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINENET_CACHE", str(tmp_path))
    macs_b, images_per_second, _ = probe.probed_speed()
    assert macs_b == pytest.approx(0.1624, abs=1e-3) or macs_b > 80  # the whole network on a GPU
    assert 0.1 < images_per_second < 1e5
    monkeypatch.setattr(probe, "_probe", lambda on_gpu: pytest.fail("measured again"))
    assert probe.probed_speed()[:2] == (macs_b, images_per_second)
    monkeypatch.setattr(probe, "processor", lambda: "another")
    monkeypatch.setattr(probe, "_probe", lambda on_gpu: (1.0, 2.0))
    assert probe.probed_speed()[:2] == (1.0, 2.0)


@pytest.mark.usefixtures("on_cpu")
def test_the_published_schedule_is_priced_without_its_data(tmp_path):
    selection = Selection(profile=load_profile("paper"), seeds=1, only=("spinenet-49",))
    grid = cells(load_study("necks"), selection, without_data=True)
    store = measured_store(tmp_path, train_seconds=60.0)
    price = price_runs(grid, store)[grid[0].run_id]
    # Table 2 prints 85.4; protocol B is 350 epochs of train2017.
    assert price.macs == pytest.approx(3 * 85.4e9 * 118_287 * 350, rel=0.01)
    with pytest.raises(UserError, match="necks: profile 'paper' brings no data; give --data coco:"):
        cells(load_study("necks"), selection)


def test_plan_without_a_study_prices_all_of_them(run, tmp_path):
    measured_store(tmp_path, train_seconds=60.0)
    code, out, _ = run("plan", "-p", "paper", "--runs", tmp_path, "--json")
    found = json.loads(out)
    assert code == 0
    assert [row["study"] for row in found["studies"]] == shipped_studies()
    assert found["macs"] == pytest.approx(sum(row["macs"] for row in found["studies"]))
    assert "pictures are counted as those of the paper's data sets" in found["summary"]
    by_study = {row["study"]: row for row in found["studies"]}
    # Its rows at protocol B are those of table 2, asked for by studies before it.
    assert by_study["scaling"]["runs"] < by_study["scaling"]["cells"]
    assert sum(row["runs"] for row in found["studies"]) == int(found["summary"].split()[0])


@pytest.mark.usefixtures("on_cpu")
def test_a_plan_has_numbers_with_their_units_and_says_what_its_prices_rest_on(run, tmp_path):
    measured_store(tmp_path, train_seconds=60.0)
    where = ("plan", "ladder", "-n", "1", "--runs", tmp_path)
    _, out, _ = run(*where, "--jobs", "2", "--json")
    found = json.loads(out)
    complete, *missing = sorted(found["cells"], key=lambda row: row["state"])
    assert (complete["price_s"], complete["macs"]) == (None, None)
    assert found["price_s"] == pytest.approx(sum(row["price_s"] for row in missing))
    assert found["macs"] == pytest.approx(sum(row["macs"] for row in missing))
    longest = max(row["price_s"] for row in missing)
    assert found["at_once"] == 2
    assert found["wall_s"] == pytest.approx(max(longest, found["price_s"] / 2))
    assert found["basis"] == "priced by 1 stored run of this machine"
    _, out, _ = run(*where)
    words = " ".join(out.split())
    assert "cell state process time MACs run" in words
    assert "by the clock on this machine" in words
    assert found["basis"] in words


@pytest.mark.usefixtures("priced")
def test_a_plan_without_runs_of_this_machine_says_that_it_is_probed(run, tmp_path):
    _, out, _ = run("plan", "ladder", "-p", "smoke", "--runs", tmp_path, "--json")
    assert json.loads(out)["basis"].startswith("priced by a probe of this machine")


def variant_names(claims: Sequence[Claim]) -> list[str]:
    return list(dict.fromkeys(v for c in claims for v in (c.a, c.b)))


def study_of(name: str, *pairs: tuple[str, str], others: Sequence[str] = ()) -> Study:
    claims = tuple(
        Claim(f"{a}>{b}", f"{a} beats {b}", a, b, "greater", "table 2") for a, b in pairs
    )
    names = [*variant_names(claims), *others]
    return Study(name, name, "retinanet", {v: Variant(v) for v in names}, claims=claims)


def grid_of(study: Study, seeds: int) -> list[Cell]:
    """Cells whose run is named by variant and seed, so that studies share runs by name."""
    return [
        Cell(study.id, "p", v, seed, Recipe(), f"{v}{seed}")
        for seed in range(seeds)
        for v in study.variants
    ]


def bought(studies: Sequence[Study], prices: dict[str, float], budget: float, workers: int = 1):
    grids = [(s, grid_of(s, 3)) for s in studies]
    return choose(grids, {r: Price(p, 0) for r, p in prices.items()}, budget, workers)


def prices_of(**by_variant: float) -> dict[str, float]:
    return {f"{v}{seed}": p for v, p in by_variant.items() for seed in range(3)}


def test_the_cheaper_claim_is_settled_first_over_two_seeds():
    study = study_of("s", ("a", "b"), ("c", "d"))
    found = bought([study], prices_of(a=10, b=10, c=2, d=2), budget=9)
    assert set(found.runs) == {"c0", "c1", "d0", "d1"}
    assert (found.claims, found.seconds) == (("s: c beats d",), 8)


def test_runs_that_several_claims_share_are_paid_for_once():
    studies = [study_of("one", ("a", "b")), study_of("two", ("a", "c")), study_of("x", ("d", "e"))]
    prices = prices_of(a=2, b=4, c=4, d=5, e=5)
    found = bought(studies, prices, budget=20)
    assert found.claims == ("one: a beats b", "two: a beats c")
    assert found.seconds == 20
    assert bought(studies, prices, budget=19.5).claims == ("one: a beats b",)


def test_claims_come_before_further_seeds_and_those_before_rows_without_claims():
    study = study_of("s", ("a", "b"), others=["alone"])
    prices = prices_of(a=1, b=1, alone=0.5)
    assert set(bought([study], prices, budget=4).runs) == {"a0", "a1", "b0", "b1"}
    assert set(bought([study], prices, budget=6).runs) == {v + s for v in "ab" for s in "012"}
    assert {"alone0"} == set(bought([study], prices, budget=6.5).runs) - set(
        bought([study], prices, budget=6).runs
    )


def test_a_run_longer_than_the_budget_is_not_started_however_many_run_at_once():
    study = study_of("s", ("a", "b"), ("a", "c"))
    found = bought([study], prices_of(a=1, b=9, c=2), budget=6, workers=4)
    assert found.claims == ("s: a beats c",)
    assert not any(run.startswith("b") for run in found.runs)


def test_one_seed_buys_no_claim():
    study, prices = study_of("s", ("a", "b")), {"a0": Price(1, 0), "b0": Price(1, 0)}
    found = choose([(study, grid_of(study, 1))], prices, 10, 1)
    assert (set(found.runs), found.claims) == ({"a0", "b0"}, ())


def test_what_is_complete_costs_nothing():
    prices = prices_of(a=5, b=5)
    del prices["a0"], prices["a1"]
    found = bought([study_of("s", ("a", "b"))], prices, budget=10)
    assert (set(found.runs), found.claims) == ({"b0", "b1"}, ("s: a beats b",))


VARIANTS = "abcdef"


@settings(deadline=None, max_examples=60)
@given(
    pairs=st.lists(st.permutations(VARIANTS).map(lambda p: (p[0], p[1])), min_size=1, max_size=6),
    prices=st.lists(st.floats(0.5, 20), min_size=6, max_size=6),
    budget=st.floats(0, 60),
    workers=st.integers(1, 3),
)
def test_a_choice_keeps_to_its_budget_and_claims_no_more_than_it_buys(
    pairs, prices, budget, workers
):
    study = study_of("s", *dict.fromkeys(pairs))
    known = prices_of(**dict(zip(VARIANTS, prices, strict=True)))
    found = bought([study], known, budget, workers)
    assert len(set(found.runs)) == len(found.runs)
    assert sum(known[run] for run in found.runs) <= budget * workers + 1e-9
    assert all(known[run] <= budget for run in found.runs)
    for claim in study.claims:
        needed = {f"{v}{seed}" for v in (claim.a, claim.b) for seed in range(2)}
        assert (needed <= set(found.runs)) == (f"s: {claim.text}" in found.claims)


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every missing run takes ten seconds."""

    def prices(missing: Sequence[Cell], store: Store) -> dict[str, Price]:
        return {cell.run_id: Price(10.0, 1e12) for cell in missing}

    monkeypatch.setattr("experiments.pricing.price_runs", prices)
    monkeypatch.setattr("experiments.planning.price_runs", prices)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Cell]:
    """The cells that `reproduce` would train, which it does not."""
    seen: list[Cell] = []
    monkeypatch.setattr(
        "experiments.cli.grid._run", lambda grids, missing, *_: seen.extend(missing) or []
    )
    return seen


@pytest.mark.usefixtures("priced")
def test_reproduce_runs_just_what_plan_says_fits(run, tmp_path, trained):
    where = ("-p", "smoke", "--seeds", "2", "--runs", tmp_path, "--budget", "1m", "--jobs", "1")
    code, out, _ = run("plan", *where, "--json")
    planned = json.loads(out)
    assert code == 0
    assert len(planned["cells"]) == 6
    assert planned["claims"]
    code, out, err = run("reproduce", *where, "--json")
    assert code == 0
    assert {cell.run_id for cell in trained} == {row["run"] for row in planned["cells"]}
    assert f"runs fit into 1m, {len(planned['claims'])} claims with them" in err
    shown = json.loads(out[out.index("[") :])
    assert {cell.study for cell in trained} <= {report["study"] for report in shown}
    code, out, _ = run("plan", *where)
    lines = [line.strip() for line in out.splitlines()]
    assert lines[0] == "These runs would judge:"
    assert lines[1 : 1 + len(planned["claims"])] == planned["claims"]
    assert "settle" not in out


@pytest.mark.usefixtures("priced")
def test_a_budget_shows_the_study_that_was_named_whatever_fits(run, tmp_path, trained):
    where = ("reproduce", "ladder", "-p", "smoke", "--runs", tmp_path, "--budget", "0s")
    code, out, _ = run(*where, "--json")
    assert (code, json.loads(out)["study"], trained) == (0, "ladder", [])


def test_after_its_time_a_grid_starts_no_run_and_ends_those_under_way(tmp_path):
    study, store = load_study("ladder"), Store(tmp_path)
    grid = smoke_cells(study)[:2]
    of_run = runtimes([(study, grid)], grid, wandb="disabled")
    left = run_cells(local, grid, store, of_run, 1, lambda cell, event: None, max_seconds=0.5)
    assert left == [grid[1]]
    result = store.result(grid[0].run_id)
    assert result is not None
    assert result.cells == [grid[0].entry] == ["ladder/r50-fpn@smoke"]
    assert make_plan(grid, store).missing == left


def test_reproduce_says_what_it_had_no_time_for(run, tmp_path):
    where = ("-p", "smoke", "--runs", tmp_path, "--only", "spinenet-49", "--wandb", "disabled")
    code, _, err = run("reproduce", *where, "--max-time", "0s")
    assert code == 0
    assert "1 runs not started in time; the same command goes on" in err
    assert list(Store(tmp_path).results()) == []


def test_failed_runs_are_left_alone_on_request(run, tmp_path, trained):
    cell = smoke_cells(load_study("ladder"))[0]
    folder = tmp_path / f"{cell.recipe.name}-{cell.run_id}"
    write_failure(folder, Failure("NonFiniteLossError", "the loss is not finite"))
    where = ("-p", "smoke", "--runs", tmp_path, "--json")
    _, _, err = run("reproduce", *where, "--no-retry-failed")
    assert "1 failed runs are left as they are" in err
    assert len(trained) == 4
    assert cell not in trained
    trained.clear()
    run("reproduce", *where)
    assert cell in trained
    assert len(trained) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("reproduce", "ladder", "--all"), "--all takes every study whole"),
        (("plan", "--all", "--only", "r50-fpn"), "--all takes every study whole"),
        (("plan", "--budget", "soon"), "--budget soon: expected a time such as 45s, 90m"),
        (("reproduce", "--max-time", "2 hours"), "--max-time 2 hours: expected a time"),
        (("reproduce", "--budget", "xyz"), "--budget xyz: expected a time"),
        (("plan", "--budget", "1.2.3h"), "--budget 1.2.3h: expected a time"),
        (
            ("status", "ladder", "--data", "folder:a", "--data", "csv:b"),
            "model.kind retinanet does not go with data.source.kind folder",
        ),
        (("reproduce", "-p", "gpu"), "profile 'gpu' brings no data; give --data coco:FOLDER"),
        (("table", "--csv", "--latex"), "--latex and --csv: choose one form"),
    ],
)
def test_what_cannot_be_asked_is_one_line(run, arguments, message):
    code, _, err = run(*arguments)
    assert code == 2
    assert message in err


def test_each_study_gets_the_data_of_its_kind_and_those_without_are_named(run, tmp_path):
    coco, folder = CocoFolderConfig(root="a"), ImageFolderConfig(root="b")
    nature = INaturalistConfig(root="c")
    given_data = [folder, coco, nature]
    assert own_source(load_study("ladder"), given_data) == coco
    assert own_source(load_study("classification"), given_data) == folder
    assert own_source(load_study("inaturalist"), given_data) == nature
    assert own_source(load_study("inaturalist"), [coco, folder]) == folder
    assert own_source(load_study("ladder"), [folder]) is None
    code, _, err = run("status", "--all", "-p", "gpu", "--data", f"folder:{tmp_path}/none")
    assert code == 2
    assert "without data, so left out: activations, block_adjustment" in err
    assert "none/train: no such folder" in err


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("45s", 45), ("90m", 5400), ("1h30m", 5400), ("1.5h", 5400), ("2d", 172800)],
)
def test_durations_are_read_as_people_write_them(text, seconds):
    assert parse_duration(text, "--budget") == seconds


def test_durations_and_counts_are_written_as_people_read_them():
    shown = [duration(s) for s in (42, 700, 9000, 400_000, 3.2e9)]
    assert shown == ["42 s", "12 min", "2.5 h", "5 days", "101 years"]
    assert [scaled(n) for n in (5e9, 2.7e12, 3.5e19)] == ["5 G", "2.7 T", "35 E"]


Run = Callable[..., tuple[int, str, str]]


@pytest.mark.all_studies
def test_every_variant_of_every_study_runs_at_the_smoke_profile(run: Run, tmp_path):
    where = ("--all", "-p", "smoke", "--runs", tmp_path)
    code, out, err = run("reproduce", *where, "--wandb", "disabled", "--json")
    assert code == 0, err
    reports = {report["study"]: report for report in json.loads(out[out.index("[\n") :])}
    assert list(reports) == shipped_studies()
    for name, report in reports.items():
        study = load_study(name)
        rows = {row["variant"]: row for row in report["rows"]}
        assert all(rows[v.id]["measured"].keys() == set(study.metrics) for v in study.published)
    trained = [result.run_id for result in Store(tmp_path).results()]
    asked = [run_id for r in reports.values() for row in r["rows"] for run_id in row["runs"]]
    assert sorted(trained) == sorted(set(asked))
    assert len(trained) < len(asked)  # a recipe of two studies is one run
    code, out, _ = run("status", *where, "--json")
    assert {row["state"] for rows in json.loads(out).values() for row in rows} == {"complete"}
