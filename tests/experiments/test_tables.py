"""Tables for other programs, and what they say of where their numbers come from."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from datamodules import open_data
from experiments import tables
from experiments.compose import Changes
from experiments.recipe import run_id, to_tree
from experiments.store import Result, Store
from experiments.study import Cell, Selection, Study, cells
from experiments.study_file import load_profile, load_study
from experiments.table_formats import to_csv, to_latex

COMMITTED = Path(__file__).parents[2] / "results" / "embedded"
METRICS = {"AP": 41.25, "mask/AP": 31.5, "top1": 77.0, "top5": 93.3}


def finish(store: Store, cell: Cell, fingerprint: str = "") -> Result:
    """A result of the cell in the store; on other data than its own if their fingerprint is
    given.
    """
    recipe = cell.recipe
    data = fingerprint or open_data(recipe.data.source).fingerprint
    result = replace(
        next(Store(COMMITTED).results()),
        run_id=run_id(recipe, data),
        seed=recipe.seed,
        metrics={m: v + cell.seed * 3 for m, v in METRICS.items()},
        data_fingerprint=data,
        recipe=to_tree(recipe),
        deviates=list(recipe.deviates),
        cells=[cell.entry],
    )
    folder = store.root / f"run-{result.run_id}"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(asdict(result)))
    return result


def grid_of(name: str, seeds: int = 2, **changes: Any) -> tuple[Study, list[Cell]]:
    study = load_study(name)
    given = (Changes(changes, "test"),)
    profile = load_profile("embedded")
    return study, cells(study, Selection(profile=profile, seeds=seeds, changes=given))


@pytest.fixture
def ladder(tmp_path: Path) -> tuple[Study, list[Cell], Store]:
    """The ladder over two seeds, as if trained."""
    study, grid = grid_of("ladder")
    store = Store(tmp_path / "runs")
    for cell in grid:
        finish(store, cell)
    return study, grid, store


def test_csv_has_a_line_per_number_with_its_runs_and_source(ladder):
    study, grid, store = ladder
    text = to_csv([tables.make_report(study, grid, store)])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 5 * 5  # AP, and two counts at two sizes, of each variant
    found = {(row["variant"], row["metric"], row["size"]): row for row in rows}
    ap = found["r50-fpn", "AP", "trained"]
    assert float(ap["value"]) == pytest.approx(42.75)
    assert (ap["seeds"], ap["paper"]) == ("2", "37.8")
    assert ap["source"] == "figure 4 (val2017, protocol A)"
    assert float(ap["low"]) < 42.75 < float(ap["high"])
    runs = [cell.run_id for cell in grid if cell.variant == "r50-fpn"]
    assert ap["runs"].split() == runs
    macs = found["spinenet-96", "macs_b", "full"]
    assert float(macs["value"]) == pytest.approx(265.02, abs=0.01)
    assert (macs["paper"], macs["title"]) == ("265.4", "+ scaling (SpineNet-96)")


def test_a_variant_that_was_not_run_has_its_counts_and_no_accuracy_in_csv(tmp_path):
    study, grid = grid_of("ladder")
    report = tables.make_report(study, grid, Store(tmp_path))
    rows = [r for r in csv.DictReader(io.StringIO(to_csv([report]))) if r["size"] == "trained"]
    assert {(r["value"], r["runs"]) for r in rows if r["metric"] == "AP"} == {("", "")}
    assert all(float(r["value"]) > 0 for r in rows if r["metric"] != "AP")


def test_what_a_network_costs_as_trained_is_the_same_before_and_after_it_has_run(tmp_path):
    study, grid = grid_of("ladder")
    before = tables.make_report(study, grid, Store(tmp_path)).rows
    after = tables.make_report(study, grid, Store(COMMITTED)).rows
    for waiting, row in zip(before, after, strict=True):
        assert (waiting.runs, len(row.runs)) == ((), 2)
        counted = (waiting.small_macs_b, waiting.small_params_m)
        assert counted == pytest.approx((row.small_macs_b, row.small_params_m))
    cells = tables.metric_table(tables.make_report(study, grid, Store(tmp_path)))[1]
    assert cells[0] == ["R50-FPN", "", "37.8", "", "0", "187", "1.88"]


def test_latex_has_the_tables_with_its_special_characters_escaped(ladder, tmp_path):
    file = tmp_path / "odd.yaml"
    file.write_text(
        "base: ladder\nvariants:\n  odd: {title: 50 % & x_1, model.layers.flavor: tf2}\n"
    )
    study, grid = grid_of(str(file))
    text = to_latex(tables.make_report(study, grid, ladder[2]))
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 3
    assert r"50 \% \& x\_1 &" in text
    assert f"% r50-fpn: {grid[0].run_id} " in text
    assert r"R50-FPN & 42.8 $\pm$ 19.1 & 37.8 & +5.0 & 2 &" in text
    for block in text.split(r"\begin{tabular}")[1:]:
        columns = block[: block.index("\n")].strip("{}")
        body = block[: block.index(r"\bottomrule")]
        lines = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert {line.replace(r"\&", "").count("&") for line in lines} == {len(columns) - 1}


def test_a_changed_batch_is_labelled_and_its_rate_scaled(tmp_path, run):
    changes = {"train.batch_size": 4}
    study, grid = grid_of("ladder", 1, **changes)
    store = Store(tmp_path)
    results = [finish(store, cell) for cell in grid]
    assert all(result.deviates == ["batch"] for result in results)
    assert {cell.recipe.lr for cell in grid} == {0.5 * cell.recipe.optim.lr for cell in grid}
    report = tables.make_report(study, grid, store)
    assert "| R50-FPN, deviates: batch |" in tables.to_markdown(report)
    code, out, _ = run(
        "table", "--runs", tmp_path, "-n", 1, "--set", "train.batch_size=4", "--json"
    )
    assert code == 0
    assert {tuple(row["deviates"]) for row in json.loads(out)["rows"]} == {("batch",)}
    assert "deviates" not in tables.to_markdown(tables.make_report(*grid_of("ladder"), store))


def test_runs_of_a_variant_before_it_was_edited_are_counted_not_shown(tmp_path):
    file, store = tmp_path / "mine.yaml", Store(tmp_path / "runs")
    text = "recipe: retinanet\nvariants:\n  a: {}\n  b: {model.backbone.block_repeats: REPEATS}\n"

    def edited(repeats: int, seeds: int = 2) -> tuple[Study, list[Cell]]:
        file.write_text(text.replace("REPEATS", str(repeats)))
        return grid_of(str(file), seeds)

    study, before = edited(2)
    for cell in before:
        finish(store, cell)
    assert tables.make_report(study, before, store).other_runs == 0
    study, after = edited(3)
    new = next(cell for cell in after if cell.variant == "b")
    finish(store, new)
    report = tables.make_report(study, after, store)
    assert report.other_runs == 2
    assert "Not shown: 2 runs in the store of other versions" in tables.caption(report)
    rows = {row["variant"]: row["runs"] for row in tables.to_mapping(report)["rows"]}
    assert rows["a"] == [cell.run_id for cell in before if cell.variant == "a"]
    assert rows["b"] == [new.run_id]
    # A seed that is not asked for is no other version, and neither are other data.
    study, fewer = edited(3, seeds=1)
    assert tables.make_report(study, fewer, store).other_runs == 2
    finish(store, new, fingerprint="0" * 64)
    assert tables.make_report(study, after, store).other_runs == 2


def width(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


@pytest.mark.parametrize(
    "arguments",
    [
        ("table", "ladder"),
        ("table", "classification"),
        ("table", "two_stage"),
        ("plan", "two_stage"),
        ("status", "two_stage"),
        ("models",),
        ("check", "two_stage"),
        ("show", "spinenet-49", "--diff", "r0-sp53"),
        ("show", "spinenet-190"),
        ("ledger",),
        ("compare", "two_stage", "two_stage"),
    ],
)
def test_what_is_printed_into_a_pipe_fits_eighty_columns(arguments, tmp_path, run, monkeypatch):
    from rich.console import Console

    from experiments.cli import render

    study = next((a for a in arguments if a in ("ladder", "classification", "two_stage")), None)
    if study:
        _, grid = grid_of(study, 3)
        store = Store(tmp_path)
        for cell in {c.run_id: c for c in grid}.values():
            finish(store, cell)
    monkeypatch.setattr(render, "console", Console(width=80))
    has_runs = arguments[0] in ("table", "plan", "status", "ledger", "compare")
    code, out, _ = run(*arguments, *(("--runs", tmp_path) if has_runs else ()))
    assert code == 0
    assert "…" not in out
    assert max(width(line) for line in out.splitlines()) <= 80
