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
from rich.console import Console

from datamodules import CocoFolderConfig, open_data
from experiments import table_formats, tables
from experiments.cli import render
from experiments.compose import Changes
from experiments.grid import collect
from experiments.recipe import run_id, to_tree
from experiments.statistics import detectable, pooled_deviation
from experiments.store import Result, Store
from experiments.study import Cell, Selection, Study, cells
from experiments.study_file import load_profile, load_study
from experiments.table_formats import to_csv, to_latex
from tests.experiments.helpers import of_ladder

COMMITTED = Path(__file__).parents[2] / "results" / "embedded"
METRICS = {"AP": 41.25, "mask/AP": 31.5, "top1": 77.0, "top5": 93.3}


def finish(store: Store, cell: Cell, fingerprint: str = "") -> Result:
    """A result of the cell in the store; on other data than its own if their fingerprint is
    given.
    """
    recipe = cell.recipe
    data = fingerprint or open_data(recipe.data.source).fingerprint
    result = replace(
        next(of_ladder(Store(COMMITTED))),
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


def test_a_bar_in_a_cell_ends_no_cell_of_markdown():
    rows = tables.markdown(["a|b", "c"], [["d", "e|f"]]).splitlines()
    assert rows == ["| a\\|b | c |", "| --- | ---: |", "| d | e\\|f |"]


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
    rows = {row["variant"]: row["runs"] for row in table_formats.to_mapping(report)["rows"]}
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
        ("search-spaces",),
        ("ledger",),
        ("compare", "two_stage", "two_stage"),
    ],
)
def test_what_is_printed_into_a_pipe_fits_eighty_columns(arguments, tmp_path, run, monkeypatch):
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


def printed(columns: int, monkeypatch: pytest.MonkeyPatch, *table: Any, **options: Any) -> str:
    text = io.StringIO()
    monkeypatch.setattr(render, "console", Console(width=columns, file=text))
    render.console.print(render.table(*table, **options))
    return text.getvalue()


def test_a_table_wider_than_the_terminal_goes_on_below_after_its_first_column(monkeypatch):
    header = ["variant", "AP of boxes", "paper's", "difference"]
    rows = [["permutation only", "42.41 ± 5.80", "37.80", "+4.61"], ["other", "1", "2", "3"]]
    assert len(printed(80, monkeypatch, header, rows).splitlines()) == 3
    narrow = printed(32, monkeypatch, header, rows)
    assert "…" not in narrow
    assert all(word in narrow for row in [header, *rows] for cell in row for word in cell.split())
    lines = narrow.splitlines()
    assert sum(line.startswith("variant") for line in lines) == 2
    assert max(map(width, lines)) <= 32


def test_a_long_table_looks_like_any_other_but_does_not_wrap(monkeypatch):
    header = ["cell", "state", "AP"]
    rows = [["r50 seed 0", "[green]complete[/]", "4.25"], ["x", "missing", ""], ["é 💥", "a", "1"]]
    short = printed(80, monkeypatch, header, rows)
    monkeypatch.setattr(render, "LONG", 2)
    long = printed(80, monkeypatch, header, rows)
    assert long.splitlines() == [line.rstrip() for line in short.splitlines()]
    narrow = printed(22, monkeypatch, header, rows).splitlines()
    assert len(narrow) == 2 * len(long.splitlines())
    assert max(map(width, narrow)) <= 22


def test_marks_of_colour_take_no_room_in_a_table(monkeypatch):
    rows = [["a", f"[green]{'replicated'}[/]"] for _ in range(2)]
    assert len(printed(20, monkeypatch, ["claim", "verdict"], rows).splitlines()) == 3


class TestWords:
    def report(self, store: Store, seeds: int = 2) -> tables.Report:
        return tables.make_report(*grid_of("ladder", seeds), store)

    def test_a_study_without_a_run_says_so(self, tmp_path):
        report = self.report(Store(tmp_path))
        said = "No run of this study at profile `embedded` is here."
        assert tables.caption(report) == said
        assert tables.noise_line(report) == "Without runs no claim about AP is judged."

    def test_data_of_ones_own_are_called_by_their_folder(self, tmp_path, coco_folder):
        study, source = load_study("ladder"), CocoFolderConfig(root=str(coco_folder))
        chosen = Selection(profile=load_profile("smoke"), seeds=1, source=source, only=("r50-fpn",))
        grid = cells(study, chosen)
        store = Store(tmp_path)
        finish(store, *grid)
        said = tables.caption(tables.make_report(study, grid, store))
        assert said.startswith(f"AP on `coco:{coco_folder.name}`, profile `smoke`, 1 seed.")

    def test_one_seed_promises_no_interval(self, ladder):
        report = self.report(ladder[2], seeds=1)
        assert "profile `embedded`, 1 seed. The paper's" in tables.caption(report)
        assert tables.noise_line(report).startswith("One seed: no noise band")
        assert "2 seeds: mean ± 95 % interval" in tables.caption(self.report(ladder[2]))

    def test_where_variants_have_different_seeds_both_numbers_are_told(self, tmp_path):
        store, (study, grid) = Store(tmp_path), grid_of("ladder", seeds=4)
        for cell in grid:
            if cell.variant != "r50-fpn" or cell.seed < 2:
                finish(store, cell)
        report = tables.make_report(study, grid, store)
        assert "2 to 4 seeds: mean ± 95 % interval" in tables.caption(report)
        shown, fewer = (detectable(report.deviation, seeds) for seeds in (4, 2))
        said = f"4 seeds show a true difference of {shown:.1f} AP with 80 % power, 2 seeds one of"
        assert f"{said} {fewer:.1f}, judged alone" in tables.noise_line(report)
        header, rows = tables.claim_table(report)
        seeds = {row[0]: row[header.index("seeds")] for row in rows}
        assert seeds["Cross-scale connections carry the permuted order"] == "4"
        assert seeds["SpineNet-49 beats the pyramid"] == "2"
        assert seeds["Block adjustment saves multiply-adds"] == ""

    def test_runs_that_variants_share_are_pooled_once(self, tmp_path, monkeypatch):
        store = Store(tmp_path)
        _, grid = grid_of("one_stage")
        by_run = {cell.run_id: cell for cell in grid}
        assert len(by_run) < len(grid)
        for place, cell in enumerate(by_run.values()):
            monkeypatch.setitem(METRICS, "AP", 30.0 + 7 * place % 11)
            finish(store, cell)
        found = collect(grid, store)
        alone = {r.run_id: r for by_seed in found.values() for r in by_seed.values()}
        assert len(alone) == len(by_run)
        networks = {tuple(sorted(r.run_id for r in f.values())): f for f in found.values()}
        groups = [[r.metrics["AP"] for r in f.values()] for f in networks.values()]
        assert tables.noise(found, "AP") == pooled_deviation(groups)
        assert tables.noise(found, "AP") != pooled_deviation(
            [[r.metrics["AP"] for r in f.values()] for f in found.values()]
        )

    def test_a_table_takes_the_seeds_that_are_there_unless_told(self, tmp_path, run):
        store = Store(tmp_path)
        for cell in grid_of("ladder", seeds=8)[1]:
            finish(store, cell)
        for asked, seeds in (((), 8), (("--seeds", "2"), 2)):
            _, out, _ = run("table", "ladder", "--runs", tmp_path, "--json", *asked)
            assert {len(row["runs"]) for row in json.loads(out)["rows"]} == {seeds}

    def test_seeds_of_variants_that_learn_nothing_give_no_noise_band(self, tmp_path, monkeypatch):
        store = Store(tmp_path)
        monkeypatch.setitem(METRICS, "AP", -1.0)  # of seed 0; seed 1 has 3 more: 0.5 on average
        study, grid = grid_of("ladder")
        for cell in grid:
            finish(store, cell)
        said = tables.noise_line(tables.make_report(study, grid, store))
        assert said.startswith("No noise band: no variant that learns (AP above 1 on average)")
        assert "One seed" not in said

    def test_what_the_runs_took_is_told_as_a_duration(self, ladder):
        report = replace(self.report(ladder[2]), hours=0.00032)
        assert "The runs took 1 s, added up" in tables.caption(report)

    def test_no_p_is_printed_as_zero(self):
        assert [tables.p_value(p) for p in (None, 0.0, 0.0004, 0.0006, 0.04)] == [
            "",
            "<0.001",
            "<0.001",
            "0.001",
            "0.040",
        ]

    def test_the_footnote_says_among_how_many_claims_p_is_corrected(self, ladder):
        study, grid = grid_of("ladder")
        pair = ("spinenet-49", "r0-sp53")
        some = [cell for cell in grid if cell.variant in pair]
        few = tables.noise_line(tables.make_report(study, some, ladder[2]))
        assert "Intervals are of each claim alone, and so is p;" in few
        all_ = tables.noise_line(tables.make_report(study, grid, ladder[2]))
        assert "p is corrected for judging 5 claims together (Holm)" in all_


def test_stored_runs_are_pointed_at_where_they_are(run, tmp_path, monkeypatch):
    monkeypatch.chdir(COMMITTED.parents[1])
    _, out, err = run("table", "ladder", "--runs", tmp_path)
    assert "Stored runs are in results/embedded: --runs results/embedded" in out
    assert err == ""
    monkeypatch.chdir(tmp_path)
    _, out, _ = run("table", "ladder", "--runs", tmp_path)
    assert "Stored runs" not in out


@pytest.mark.parametrize("command", ["table", "status", "ledger", "plan"])
def test_a_folder_of_runs_that_is_not_there_is_told_in_one_line(run, tmp_path, command):
    studies = () if command == "ledger" else ("ladder", "-p", "smoke")
    code, _, err = run(command, *studies, "--runs", tmp_path / "none", "--json")
    assert (code, err) == (0, f"{tmp_path}/none: no such folder yet\n")


@pytest.mark.parametrize("command", ["table", "status", "ledger", "plan", "dashboard", "reproduce"])
def test_a_file_is_no_folder_of_runs(run, tmp_path, command):
    file = tmp_path / "runs.json"
    file.touch()
    code, _, err = run(command, "--runs", file)
    assert code == 2
    assert err == f"error: --runs {file}: a file; name the folder that holds the runs\n"
