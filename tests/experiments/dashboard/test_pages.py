"""The pages: every link leads somewhere, every number is the store's, nothing damaged hides the
rest, nothing that a run says becomes markup.
"""

from __future__ import annotations

import json
import posixpath
import re
import time
from collections import Counter
from dataclasses import replace
from urllib.parse import unquote, urlsplit

import pytest

from datamodules import CocoFolderConfig
from datamodules.sources import open_source
from experiments import tables
from experiments.dashboard import evidence
from experiments.dashboard.site import Site
from experiments.errors import UserError
from experiments.leases import lock
from experiments.ledger.checkpoints import CheckpointScores
from experiments.ledger.report import make_ledger
from experiments.recipe import to_tree
from experiments.runtime import Runtime
from experiments.snapshot import FileCache, Run, Snapshot
from experiments.store import Failure, Record, Store, write_failure, write_result
from experiments.study import Selection, cells
from experiments.study_file import load_profile, load_study
from experiments.study_grids import StudyGrids
from experiments.training import train
from tests.experiments.dashboard.conftest import STORES
from tests.experiments.dashboard.reading import Element, read, row_of
from tests.experiments.helpers import smoke_cells

SCRIPT = "<script>alert(1)</script>"


def page(site: Site, path: str) -> Element:
    found = site.page(path)
    assert found is not None, path
    return read(found.body)


@pytest.fixture(scope="module")
def every_page(site) -> dict[str, Element]:
    return {path: page(site, path) for path in site.paths() if path.endswith(".html")}


def test_every_link_of_every_page_leads_to_a_page_and_a_place_on_it(site, every_page):
    files = set(site.paths())
    ids = {path: {e.attributes.get("id") for e in elements(p)} for path, p in every_page.items()}
    for path, parsed in every_page.items():
        for element in elements(parsed):
            link = element.attributes.get("href", element.attributes.get("src"))
            if link is None:
                continue
            target = urlsplit(link)
            assert not target.scheme, link
            joined = posixpath.normpath(posixpath.join(posixpath.dirname(path), target.path))
            there = path if not target.path else unquote(joined)
            assert there in files, (path, link)
            if target.fragment and not target.fragment.startswith("status="):
                assert target.fragment in ids[there], (path, link)


def elements(root: Element) -> list[Element]:
    return [e for child in root.children for e in (child, *elements(child))]


def test_every_table_and_drawing_says_what_it_is(every_page):
    for path, parsed in every_page.items():
        found = elements(parsed)
        ids = Counter(e.attributes["id"] for e in found if "id" in e.attributes)
        assert max(ids.values()) == 1, path
        for table in parsed.all("table"):
            assert table.all("caption")[0].words
            assert all(th.attributes.get("scope") in ("col", "row") for th in table.all("th"))
        for svg in parsed.all("svg"):
            named = {"aria-label", "aria-labelledby"} & svg.attributes.keys()
            assert named or svg.attributes.get("aria-hidden") == "true", path
        assert all(image.attributes["alt"] for image in parsed.all("img"))


def stored_ladder() -> tables.Report:
    study, size = load_study("ladder"), load_profile("embedded")
    grid = cells(study, Selection(profile=size, seeds=size.seeds))
    return tables.make_report(study, grid, Store(STORES[0]))


def test_a_studys_page_has_the_numbers_of_its_table(site, every_page):
    report = stored_ladder()
    header, rows = tables.metric_table(report)
    _, counted = tables.count_table(report)
    parsed = every_page["study/ladder.html"]
    for row, counts in zip(rows, counted, strict=True):
        shown = row_of(parsed, "Measured, printed, difference", row[0])
        assert shown["AP"].words == row[header.index("AP")]
        assert shown["diff"].words.replace("−", "-") == row[header.index("diff")]
        assert shown["MACs B at full size"].words == counts[1]
        assert shown["params M at full size"].words == counts[4]
    for judged in report.judgements:
        line = row_of(parsed, "Claims", judged.claim.text)
        assert judged.verdict in line["verdict"].words
        assert line["effect"].words.startswith(f"{judged.effect:+.1f}".replace("-", "−"))


def test_a_number_of_a_seed_leads_to_its_run(site, every_page):
    row = row_of(every_page["study/ladder.html"], "Measured, printed, difference", "R50-FPN")
    links = row["by seed"].all("a")
    assert len(links) == stored_ladder().seeds > 1
    for seed, link in enumerate(links):
        run = page(site, posixpath.normpath(f"study/{link.attributes['href']}"))
        shown = row_of(run, "Metrics on validation, in percent", "AP")
        assert float(shown["here"].words) == pytest.approx(float(link.words), abs=0.0501)
        assert row_of_two(run, "The network as trained")["seed"] == str(seed)


def row_of_two(parsed: Element, caption: str) -> dict[str, str]:
    found = next(t for t in parsed.all("table") if t.all("caption")[0].words == caption)
    return {r.all("th")[0].words: r.all("td")[0].words for r in found.all("tr")}


def test_the_overview_counts_the_ledger(site, every_page):
    made = make_ledger([Store(folder) for folder in STORES], counts=site.counts)
    expected = Counter(entry.status for entry in made.entries)
    parsed = every_page["index.html"]
    caption = next(c.words for c in parsed.all("caption") if "printed numbers" in c.words)
    for status, count in expected.items():
        assert row_of(parsed, caption, mark(status))["lines"].words == str(count)
    shown = Counter(
        row.attributes["data-status"]
        for row in every_page["ledger.html"].all("tr")
        if "data-status" in row.attributes
    )
    assert sum(shown.values()) == len(made.entries)
    assert sorted(shown.values()) == sorted(expected.values())


def test_scores_of_an_imported_checkpoint_settle_lines_of_the_ledger(tmp_path):
    plain = [row["status"].words for row in ledger_rows(Site([tmp_path]), "SpineNet-49")]
    assert "✓ confirmed" not in plain
    scores = CheckpointScores(
        metrics={"AP": 42.85},
        pictures=5000,
        model="spinenet-49",
        task="retinanet",
        code_base="tensorflow/tpu",
        activation="relu",
        side=640,
    )
    site = Site([tmp_path], scores=[scores])
    settled = [
        row for row in ledger_rows(site, "SpineNet-49") if "confirmed" in row["status"].words
    ]
    assert settled
    assert {row["found"].words for row in settled} == {"42.85"}
    assert "the scores of 1 imported checkpoint" in page(site, "ledger.html").words
    caption = next(c.words for c in page(site, "index.html").all("caption") if "printed" in c.words)
    line = row_of(page(site, "index.html"), caption, "✓ confirmed")
    assert line["lines"].words == str(sum(r["status"].words == "✓ confirmed" for r in settled))


def ledger_rows(site: Site, model: str) -> list[dict[str, Element]]:
    (table,) = (t for t in page(site, "ledger.html").all("table"))
    columns = [th.words for th in table.all("thead")[0].all("th")]
    lines = [dict(zip(columns, r.children, strict=True)) for r in table.all("tbody")[0].all("tr")]
    return [line for line in lines if line["what"].words.startswith(model)]


def test_the_ledgers_lines_are_counted_by_table(every_page):
    parsed = every_page["ledger.html"]
    places = Counter(r.children[-1].words for r in parsed.all("tbody")[0].all("tr"))
    (choice,) = (s for s in parsed.all("select") if s.attributes["data-key"] == "place")
    assert [o.words for o in choice.all("option")[1:]] == [f"{p} ({n})" for p, n in places.items()]


def mark(status: str) -> str:
    signs = {
        "exact": "✓",
        "within 1 %": "✓",
        "replicated": "✓",
        "counted": "✓",
        "contradicted": "✗",
    }
    return f"{signs.get(status, '?' if status == 'inconclusive' else '·')} {status}"


def test_the_overview_draws_each_judged_claim_with_its_interval(every_page):
    line = row_of(
        every_page["index.html"],
        "What the paper says, against the runs at hand",
        "Cross-scale connections carry the permuted order",
    )
    label = next(s for s in line.values() if s.all("svg")).all("svg")[0].attributes["aria-label"]
    judged = stored_ladder().judgements[0]
    assert judged.claim.text in line["claim"].words
    measured = f"effect {judged.effect:+.1f}, from {judged.low:+.1f} to {judged.high:+.1f}"
    assert label == f"{measured}; in the paper +12.5"


def changed(parsed: Element) -> dict[str, list[str]]:
    """What the recipe's table says: key → there, here."""
    shown = next(t for t in parsed.all("table") if t.all("caption")[0].words.startswith("Against"))
    rows = shown.all("tbody")[0].all("tr")
    return {row.all("th")[0].words: [cell.words for cell in row.all("td")] for row in rows}


def test_a_runs_page_shows_its_recipe_as_a_difference_to_what_it_starts_from(write, tmp_path):
    grid = smoke_cells(load_study("ladder"), changes={"train.epochs": 3})
    usual = next(c for c in smoke_cells(load_study("ladder")) if c.variant == "spinenet-96")
    longer = next(c for c in grid if c.variant == "spinenet-96")
    for cell in (usual, longer):
        write(cell.run_id, cell.recipe.name, recipe=to_tree(cell.recipe))
    site = Site([tmp_path])
    assert changed(page(site, f"run/{usual.run_id}.html")) == {
        "model.backbone.block_repeats": ["1", "2"]
    }
    nearest = page(site, f"run/{longer.run_id}.html")
    assert "of no study" in nearest.words
    assert changed(nearest) == {"train.epochs": ["1", "3"]}


def test_a_run_shows_what_it_found_where_its_data_are_at_hand(tiny_recipe, tmp_path):
    folder = tmp_path / f"tiny-{'a' * 12}"
    train(tiny_recipe, "a" * 12, folder, Runtime(accelerator="cpu", wandb="disabled"))
    site = Site([tmp_path])
    parsed = page(site, f"run/{'a' * 12}.html")
    pictures = [i.attributes["href"] for i in parsed.all("image")]
    assert len(pictures) == 6
    boxes = [r for r in parsed.all("rect") if "true" in r.attributes["class"].split()]
    assert len(boxes) == 2 * 2 * len(pictures)  # two squares on each, drawn on a halo
    assert any("Precision over recall" in f.words for f in parsed.all("figcaption"))
    for link in pictures:
        found = site.page(posixpath.normpath(f"run/{link}"))
        assert found is not None
        assert found.body.startswith(b"\xff\xd8")
        assert found.content_type == "image/jpeg"
    assert any(f"run {'a' * 12}" in pre.text for pre in parsed.all("pre"))


def test_a_run_without_detections_says_so(every_page):
    assert "detections.json is not kept" in every_page["run/b6e7c85b642f.html"].words or (
        "not drawn on this machine" in every_page["run/b6e7c85b642f.html"].words
    )


def test_a_damaged_result_is_shown_as_damaged_and_hides_nothing(write, tmp_path):
    grid = smoke_cells(load_study("ladder"))
    good, bad = (write(c.run_id, c.recipe.name) for c in grid[:2])
    (bad / "result.json").write_text((bad / "result.json").read_text()[:-30])
    site = Site([tmp_path])
    for path in ("index.html", "runs.html", "study/ladder.html", f"run/{grid[1].run_id}.html"):
        words = page(site, path).words
        assert "damaged" in words, path
        assert str(tmp_path) not in words
    told = page(site, "study/ladder.html").words
    assert "1 of 5 runs complete" in told
    assert "1 damaged" in told
    assert page(site, f"run/{grid[0].run_id}.html").all("table")
    assert good.is_dir()


@pytest.mark.parametrize(
    "fields",
    [{"recipe": {}}, {"recipe": {"model": None, "data": 3}}, {"metrics": {"AP": float("nan")}}],
)
def test_a_result_that_no_page_could_show_is_damaged(write, tmp_path, fields):
    write("6" * 12, **fields)
    write("7" * 12)
    site = Site([tmp_path])
    for path in ("index.html", "runs.html", "run/666666666666.html"):
        assert "damaged" in page(site, path).words
    assert "✓ complete" in page(site, "run/777777777777.html").words


def test_a_loss_that_is_no_number_is_left_out_of_the_curve(write, tmp_path):
    folder = write("8" * 12)
    lines = [{"step": k, "loss/total": 2.0 - k / 10} for k in range(5)]
    text = "\n".join(map(json.dumps, [*lines, {"step": 5, "loss/total": float("nan")}]))
    (folder / "history.jsonl").write_text(text + '\n{"step": 6, "loss')
    parsed = page(Site([tmp_path]), "run/888888888888.html")
    (told,) = (d.words for d in parsed.all("desc"))
    assert told == "loss over step: loss ends at 1.6."


def test_what_a_run_says_stays_text(write, tmp_path):
    write("0" * 12, name=f"odd-{SCRIPT.replace('/', ' ')}", by_class={SCRIPT: 5.0})
    failed = tmp_path / ("failing-" + "1" * 12)
    write_failure(failed, Failure(SCRIPT, f"message {SCRIPT}", f"Traceback {SCRIPT}"))
    (failed / "train.log").write_text(f"{SCRIPT}\n")
    site = Site([tmp_path])
    for path in ("index.html", "runs.html", "run/000000000000.html", "run/111111111111.html"):
        found = site.page(path)
        assert found is not None
        assert b"<script>alert" not in found.body
        scripts = read(found.body).all("script")
        assert [s.attributes.keys() for s in scripts] == [{"src", "defer"}]
    assert SCRIPT in page(site, "run/111111111111.html").words


def test_a_failure_shows_its_traceback_on_the_overview(tmp_path):
    write_failure(tmp_path / ("r50-" + "2" * 12), Failure("ValueError", "no", "Traceback: line 7"))
    parsed = page(Site([tmp_path]), "index.html")
    assert "✗ failed r50: ValueError: no" in [p.words for p in parsed.all("p")]
    assert [pre.text for pre in parsed.all("pre")] == ["Traceback: line 7"]


def test_a_result_that_changes_is_read_again(write, tmp_path):
    folder = write("3" * 12, macs_b=0.1)
    site = Site([tmp_path])
    assert "100.0 M" in page(site, "run/333333333333.html").words
    result = Store(tmp_path).result("3" * 12)
    assert result is not None
    write_result(folder, replace(result, macs_b=0.25))
    assert "250.0 M" in page(site, "run/333333333333.html").words


def test_a_run_that_goes_on_shows_how_far_it_is(tmp_path):
    cell = smoke_cells(load_study("ladder"))[0]
    folder = Store(tmp_path).folder(cell.run_id, cell.recipe.name)
    site = Site([tmp_path], is_live=True)
    now = {"step": 30, "total": 120, "batch_size": 8, "begun": 0, "begun_at_step": 0, "updated": 10}
    with lock(folder):
        (folder / "progress.json").write_text(json.dumps(now))
        line = row_of(read(site.news()[0].encode()), "Running now: 1", "R50-FPN, seed 0")
        assert "25 %" in line["progress"].words
        assert line["pictures/s"].words == "24.0"
        assert line["training left"].words == "30 s"
        parsed = page(site, f"run/{cell.run_id}.html")
        assert "running" in parsed.words
    assert "Running now" not in site.news()[0]
    stopped = page(site, f"run/{cell.run_id}.html")
    assert "stopped at step 30 of 120" in stopped.words


def test_runs_on_a_users_data_are_a_section_though_the_data_are_gone(write, tmp_path):
    own = CocoFolderConfig(root="/nowhere/my_folder")
    selection = Selection(profile=load_profile("smoke"), seeds=1, source=own)
    for fingerprint in ("e" * 64, "f" * 64):  # the folder's content was changed in between
        for cell in cells(load_study("ladder"), selection, {own: fingerprint}):
            tree = to_tree(cell.recipe)
            write(cell.run_id, cell.recipe.name, recipe=tree, data_fingerprint=fingerprint)
    parsed = page(Site([tmp_path]), "study/ladder.html")
    heads = [h.words for h in parsed.all("h2")]
    assert heads == [f"smoke on coco /nowhere/my_folder, data {k * 8}" for k in "ef"]
    assert parsed.words.count("5 of 5 runs complete") == 2


def test_a_study_of_ones_own_has_a_page(tmp_path):
    file = tmp_path / "mine <b>.yaml"
    wide = "{from: spinenet-49, model.backbone.width: 0.35}"
    file.write_text(f"base: ladder\ntitle: Mine\nvariants:\n  wide: {wide}\n")
    parsed = page(Site([tmp_path], [str(file)]), "study/mine-b.html")
    assert parsed.all("h1")[0].words == "Mine"
    assert "wide" in row_of(parsed, "Measured, printed, difference", "wide")["variant"].words
    with pytest.raises(UserError, match="two studies have one name"):
        StudyGrids([str(file), str(file)])


def test_a_models_page_has_its_drawing_and_its_genotype(site, every_page):
    parsed = every_page["model/spinenet-96.html"]
    (drawing,) = parsed.all("img")
    found = site.page(posixpath.normpath(f"model/{drawing.attributes['src']}"))
    assert found is not None
    assert found.content_type == "image/svg+xml"
    block = row_of(parsed, "Genotype, and the multiply-adds of all that makes up each", "7")
    assert re.fullmatch(r"\d+\.\d{3}", block["MACs B"].words)
    assert "R50" not in every_page["model/r50-fpn.html"].all("h1")[0].words
    assert not every_page["model/r50-fpn.html"].all("img")


@pytest.mark.parametrize("path", ["study/../index.html", "run/.html", "static/site.py", "x", ""])
def test_only_listed_paths_exist(site, path):
    assert site.page(path) is None


@pytest.fixture(scope="module")
def large(tmp_path_factory, a_result) -> Site:
    """2,000 runs, written as runs are."""
    root = tmp_path_factory.mktemp("large")
    grids = StudyGrids().all(Snapshot(root, {}, 0))
    chosen = {c.run_id: c for g in grids if g.profile.id != "smoke" for c in g.cells}
    for k, cell in enumerate(list(chosen.values())[:2000]):
        fields = {"metrics": {**a_result.metrics, "AP": 30 + k % 7, "top1": 60 + k % 5}}
        tree = to_tree(cell.recipe)
        made = replace(a_result, run_id=cell.run_id, seed=cell.seed, recipe=tree, **fields)
        write_result(root / f"{cell.recipe.name}-{cell.run_id}", made)
    return Site([root])


def test_two_thousand_runs_do_not_slow_a_page(large):
    """In processor time, so that what else the machine does is not measured."""
    for path, most_s in (("index.html", 2.0), ("study/one_stage.html", 1.0), ("runs.html", 1.0)):
        start = time.process_time()
        assert large.page(path) is not None
        assert time.process_time() - start < most_s, path
    assert len(large.view().snapshot.runs) == 2000


def test_data_that_have_changed_are_read_once_and_not_at_every_visit(
    coco_folder, a_result, tmp_path, monkeypatch
):
    opened: list[object] = []
    source = {"kind": "coco", "root": str(coco_folder)}
    changed = {**a_result.recipe, "data": {**a_result.recipe["data"], "source": source}}
    result = replace(a_result, recipe=changed, data_fingerprint="of other data")

    def watched(config, **asked):
        opened.append(config)
        return open_source(config, **asked)

    monkeypatch.setattr(evidence, "open_source", watched)
    run = Run(result.run_id, tmp_path, Record("complete", result))
    seen = evidence.Evidence(FileCache())
    with pytest.raises(evidence.Unavailable, match="not kept with this run"):
        seen.pictures(run, result)
    assert not opened
    (tmp_path / "detections.json").write_text("[]")
    for look in (seen.pictures, seen.curves, seen.pictures):
        with pytest.raises(evidence.Unavailable, match="the data have changed since this run"):
            look(run, result)
    assert len(opened) == 1
    monkeypatch.setattr(evidence, "AGAIN_S", 0.0)
    with pytest.raises(evidence.Unavailable):
        seen.pictures(run, result)
    assert len(opened) == 2
