"""`spinenet runs`: a store made smaller, and runs carried from one to another, with nothing taken
on trust.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from experiments.archive import MANIFEST, choose, export_runs, import_runs
from experiments.errors import UserError
from experiments.leases import lock
from experiments.search.config import SearchConfig, keep_settings
from experiments.search.finals import SEEDS, finals
from experiments.search.findings import findings
from experiments.search.report import standings
from experiments.search.table import read as read_table
from experiments.store import (
    RUN_FOLDER,
    Failure,
    Store,
    read_result,
    write_failure,
    write_result,
)
from experiments.study_file import load_profile
from experiments.tidying import KINDS, asked_runs, leftovers, remove
from tests.experiments.helpers import of_ladder
from tests.experiments.search_helpers import carried_out, finish, searching

COMMITTED = Path(__file__).parents[2] / "results" / "embedded"
SPINENET = "spinenet-49-digits-s0-797ba2132d9c"


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """An archive of two of the stored runs."""
    path = tmp_path / "packed.tar.gz"
    found = choose(Store(COMMITTED), ["797ba2132d9c", "r0-sp53-digits-s0-b6*"])
    assert len(found) == 2
    export_runs(found, path, weights=False)
    return path


def outcomes(source: Path, store: Store) -> dict[str, tuple[str, str]]:
    return {t.folder: (t.outcome, t.why) for t in import_runs(source, store)}


def test_runs_come_out_of_an_archive_as_they_went_in(packed, tmp_path):
    store = Store(tmp_path / "runs")
    assert {o for o, _ in outcomes(packed, store).values()} == {"imported"}
    folder = store.root / SPINENET
    assert read_result(folder) == read_result(COMMITTED / SPINENET)
    mine, theirs = folder / "history.jsonl", COMMITTED / SPINENET / "history.jsonl"
    assert mine.read_bytes() == theirs.read_bytes()
    assert len(store.folders()) == 2
    assert {o for o, _ in outcomes(packed, store).values()} == {"skipped"}


def test_a_folder_serves_as_an_archive(tmp_path, run):
    out = tmp_path / "out"
    chosen = [r.run_id for r in of_ladder(Store(COMMITTED)) if r.name.startswith("r50-fpn")]
    code, said, _ = run("runs", "export", out, *chosen, "--runs", COMMITTED)
    assert code == 0
    assert f"{len(chosen)} runs" in said
    code, said, _ = run("runs", "import", out, "--runs", tmp_path / "runs")
    assert code == 0
    assert f"{len(chosen)} of {len(chosen)} runs imported" in said


def test_the_stored_runs_of_the_project_come_in_as_they_lie(tmp_path, run):
    code, said, err = run("runs", "import", COMMITTED, "--runs", tmp_path)
    assert (code, err) == (0, "")
    stored = len(Store(COMMITTED).folders())
    assert f"{stored} of {stored} runs imported" in said
    code, said, _ = run("table", "ladder", "--runs", tmp_path, "--json")
    seeds = load_profile("embedded").seeds
    assert {row["measured"]["AP"]["count"] for row in json.loads(said)["rows"]} == {seeds}


def test_weights_travel_when_asked(smoke_grid, tmp_path):
    _, _, store = smoke_grid
    (first, *_) = choose(store, [])
    sizes = {
        weights: export_runs([first], tmp_path / f"{weights}", weights=weights)
        for weights in (False, True)
    }
    assert sizes[True] > sizes[False] + 100_000
    there = Store(tmp_path / "runs")
    assert {o for o, _ in outcomes(tmp_path / "True", there).values()} == {"imported"}
    names = {path.name for path in (there.root / first.name).iterdir()}
    assert {"weights.safetensors", "detections.json", "recipe.yaml", "train.log"} <= names


def test_a_complete_run_is_not_replaced_by_another(packed, tmp_path):
    store = Store(tmp_path / "runs")
    result = read_result(COMMITTED / SPINENET)
    assert result is not None
    other = replace(result, metrics={**result.metrics, "AP": 99.0})
    write_result(store.root / SPINENET, other)
    found = outcomes(packed, store)
    assert found[SPINENET] == ("skipped", "another result of it is here, and stays")
    assert read_result(store.root / SPINENET) == other


def test_an_unfinished_run_gives_way_and_one_under_way_does_not(packed, tmp_path):
    store = Store(tmp_path / "runs")
    folder = store.root / SPINENET
    write_failure(folder, Failure("E", "no"))
    with lock(folder):
        assert outcomes(packed, store)[SPINENET] == ("skipped", "it is being trained here")
    assert outcomes(packed, store)[SPINENET] == ("imported", "")
    assert not (folder / "failure.json").exists()
    assert store.state("797ba2132d9c") == "complete"


def rewritten(packed: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    """The archive with other content, packed as before."""
    with tarfile.open(packed) as opened:
        content = {m.name: opened.extractfile(m).read() for m in opened}  # type: ignore[union-attr]
    change(content)
    with tarfile.open(packed, "w:gz") as made:
        for name, body in content.items():
            facts = tarfile.TarInfo(name)
            facts.size = len(body)
            made.addfile(facts, io.BytesIO(body))


def with_manifest(packed: Path, change: Callable[[dict], None]) -> None:
    def edit(content: dict[str, bytes]) -> None:
        body = json.loads(content[MANIFEST])
        change(body)
        content[MANIFEST] = json.dumps(body).encode()

    rewritten(packed, edit)


def test_a_run_whose_bytes_changed_is_refused_and_the_others_are_taken(packed, tmp_path, run):
    def flip(content: dict[str, bytes]) -> None:
        body = bytearray(content[f"{SPINENET}/history.jsonl"])
        body[10] ^= 1
        content[f"{SPINENET}/history.jsonl"] = bytes(body)

    rewritten(packed, flip)
    code, out, err = run("runs", "import", packed, "--runs", tmp_path / "runs")
    assert code == 2
    assert f"refused   {SPINENET}: history.jsonl: is not what manifest.json says" in out
    assert "1 of 2 runs imported" in out
    assert f"1 runs refused: {SPINENET}" in err
    assert not (tmp_path / "runs" / SPINENET).exists()


def test_a_result_that_was_edited_is_refused_even_with_its_checksum(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(COMMITTED / SPINENET, source / SPINENET)
    result = read_result(source / SPINENET)
    assert result is not None
    result.recipe["train"]["epochs"] = 7
    (source / SPINENET / "result.json").write_text(json.dumps(asdict(result)))
    ((outcome, why),) = outcomes(source, Store(tmp_path / "runs")).values()
    assert outcome == "refused"
    assert "run_id: 797ba2132d9c, while this version gives the recipe on its data" in why


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("result.json", "{", "result.json: file: Invalid JSON"),
        ("history.jsonl", "{", "history.jsonl: cannot be read"),
        ("detections.json", "[" * 100_000, "detections.json: cannot be read"),
        ("recipe.yaml", "a: [", "recipe.yaml: not valid YAML"),
        ("weights.safetensors", "none", "weights.safetensors: not a weights file"),
    ],
)
def test_every_file_is_read_by_its_kind(tmp_path, name, body, message):
    source = tmp_path / "source"
    shutil.copytree(COMMITTED / SPINENET, source / SPINENET)
    (source / SPINENET / name).write_text(body)
    ((outcome, why),) = outcomes(source, Store(tmp_path / "runs")).values()
    assert outcome == "refused"
    assert message in why


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    facts = tarfile.TarInfo(name)
    facts.type, facts.linkname = kind, target
    return facts


@pytest.mark.parametrize(
    "evil",
    [
        member("../outside"),
        member("/outside"),
        member(f"{SPINENET}/../../outside"),
        member(f"{SPINENET}/sub/result.json"),
        member("..-797ba2132d9c/../x"),
        member(f"{SPINENET}/result.json", tarfile.SYMTYPE, "/etc/hostname"),
        member(f"{SPINENET}/result.json", tarfile.LNKTYPE, "../outside"),
        member(f"{SPINENET}/train.log", tarfile.FIFOTYPE),
        member(f"{SPINENET}/run.sh"),
    ],
    ids=lambda evil: f"{evil.name} {evil.type.decode()}",
)
def test_an_archive_that_reaches_outside_or_links_is_refused_as_a_whole(packed, tmp_path, evil):
    with tarfile.open(packed, "w:gz") as made:
        made.addfile(evil, io.BytesIO())
    with pytest.raises(UserError, match=r"is (a link|no file of a run); nothing was taken"):
        list(import_runs(packed, Store(tmp_path / "runs")))
    assert list((tmp_path / "runs").iterdir()) == []
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema_version=9), "schema_version: 9, this version reads 1; use the"),
        (lambda m: m.pop("runs"), "cannot be read; export the runs again"),
        (lambda m: m.update(runs=[]), "runs: not a mapping of files"),
        (lambda m: m["runs"].update({"gone-0123456789ab": {}}), "is in manifest.json and not"),
    ],
)
def test_a_manifest_of_another_kind_is_one_clear_error(packed, tmp_path, change, message):
    with_manifest(packed, change)
    with pytest.raises(UserError, match=message):
        list(import_runs(packed, Store(tmp_path / "runs")))


def test_what_the_manifest_does_not_list_is_refused(packed, tmp_path):
    with_manifest(packed, lambda m: m["runs"].pop(SPINENET))
    assert outcomes(packed, Store(tmp_path / "runs"))[SPINENET][0] == "refused"


def test_a_cut_archive_and_a_folder_without_runs_are_one_line(packed, tmp_path, run):
    whole = packed.read_bytes()
    packed.write_bytes(whole[:-200])
    code, _, err = run("runs", "import", packed, "--runs", tmp_path / "runs")
    assert code == 2
    assert "cannot be unpacked" in err
    code, _, err = run("runs", "import", tmp_path / "none", "--runs", tmp_path / "runs")
    assert "no such file or folder" in err
    (tmp_path / "empty").mkdir()
    code, _, err = run("runs", "import", tmp_path / "empty", "--runs", tmp_path / "runs")
    assert "no run is in it" in err


def test_an_archive_that_is_damaged_anywhere_is_told_in_a_line(packed, tmp_path, run):
    whole = packed.read_bytes()
    for place in range(20, len(whole) - 16, len(whole) // 12):
        packed.write_bytes(whole[:place] + b"?" * 16 + whole[place + 16 :])
        code, out, err = run("runs", "import", packed, "--runs", tmp_path / str(place))
        told = err.strip().splitlines()[-1:] or out.strip().splitlines()[-1:]
        assert (code, told[0].startswith("error: ")) == (2, True), (place, out, err)


def test_a_linked_file_or_run_in_a_folder_is_refused(tmp_path):
    source = tmp_path / "source"
    (source / SPINENET).mkdir(parents=True)
    (source / SPINENET / "result.json").symlink_to(COMMITTED / SPINENET / "result.json")
    ((outcome, why),) = outcomes(source, Store(tmp_path / "runs")).values()
    assert (outcome, "is a link" in why) == ("refused", True)
    shutil.rmtree(source / SPINENET)
    (source / SPINENET).symlink_to(COMMITTED / SPINENET)
    with pytest.raises(UserError, match="is a link"):
        outcomes(source, Store(tmp_path / "runs"))


def test_an_export_overwrites_nothing_and_names_what_it_cannot_find(tmp_path, run):
    (tmp_path / "a.tar.gz").write_bytes(b"mine")
    code, _, err = run("runs", "export", tmp_path / "a.tar.gz", "--runs", COMMITTED)
    assert (code, "exists; give another name" in err) == (2, True)
    assert (tmp_path / "a.tar.gz").read_bytes() == b"mine"
    code, _, err = run("runs", "export", tmp_path / "b", "nobody-*", "--runs", COMMITTED)
    assert (code, "nobody-*: no complete run" in err) == (2, True)


@pytest.fixture
def untidy(tmp_path: Path) -> Store:
    """A run of the ladder with checkpoints and a draft, a failed one, and one of nobody's."""
    store = Store(tmp_path / "runs")
    shutil.copytree(COMMITTED / SPINENET, store.root / SPINENET)
    (store.root / SPINENET / "checkpoints").mkdir()
    (store.root / SPINENET / "checkpoints" / "00000001-00.ckpt").write_bytes(bytes(3_000_000))
    (store.root / SPINENET / ".result.json-draft").write_bytes(bytes(1000))
    failed = next(iter(COMMITTED.glob("r50-fpn-digits-s1-*"))).name
    write_failure(store.root / failed, Failure("E", "m"))
    result = read_result(COMMITTED / SPINENET)
    assert result is not None
    write_result(store.root / f"mine-{'0' * 12}", replace(result, run_id="0" * 12))
    return store


def test_what_can_go_is_found_by_kind(untidy):
    found = leftovers(untidy, ("checkpoints", "failed", "unasked", "drafts"), {"797ba2132d9c"})
    assert sorted((item.kind, item.path.name[:11]) for item in found) == [
        ("checkpoints", "checkpoints"),
        ("drafts", ".result.jso"),
        ("unasked", "mine-000000"),
        ("unasked", "r50-fpn-dig"),
    ]
    assert next(i.size_bytes for i in found if i.kind == "checkpoints") == 3_000_000


def test_tidying_says_what_it_would_do_asks_and_does_it(untidy, run, monkeypatch):
    where = ("runs", "gc", "--runs", untidy.root)
    code, out, _ = run(*where, "--dry-run")
    assert code == 0
    assert "3.0 MB in 1 places: checkpoints of complete runs" in out
    assert len(untidy.folders()) == 3
    monkeypatch.setattr("typer.confirm", lambda text, default: False)
    code, _, _ = run(*where)
    assert code == 1
    assert len(untidy.folders()) == 3
    code, out, _ = run(*where, "--only", "checkpoints", "--yes")
    assert "removed 3.0 MB in 1 places" in out
    assert untidy.state("797ba2132d9c") == "complete"
    assert not (untidy.root / SPINENET / "checkpoints").exists()
    code, out, _ = run(*where, "--yes")
    assert [folder.name for folder in untidy.folders()] == [SPINENET]
    assert sorted(p.name for p in (untidy.root / SPINENET).iterdir()) == [
        "history.jsonl",
        "result.json",
    ]
    code, _, err = run(*where, "--only", "checkpoint")
    assert (code, "did you mean 'checkpoints'?" in err) == (2, True)


def test_a_run_under_way_is_not_tidied_away(untidy):
    failed = next(iter(untidy.root.glob("r50-fpn-*")))
    found = leftovers(untidy, ("failed",), ())
    assert [item.run for item in found] == [failed]
    with lock(failed):
        assert leftovers(untidy, ("failed",), ()) == []
        assert remove(found) == []
        assert failed.is_dir()
    assert remove(found) == found
    assert not failed.exists()


def test_a_run_that_was_done_since_it_was_listed_stays(untidy):
    failed = next(iter(untidy.root.glob("r50-fpn-*")))
    found = leftovers(untidy, ("failed",), ())
    shutil.copy(COMMITTED / failed.name / "result.json", failed)
    assert remove(found) == []
    assert read_result(failed) is not None


def test_what_is_no_run_is_never_tidied_away(untidy):
    (untidy.root / "old-backup").mkdir()
    (untidy.root / "my-export.tar.gz").write_bytes(b"mine")
    assert {item.kind for item in leftovers(untidy, tuple(KINDS), ())} == {"unasked"}
    assert all(RUN_FOLDER.fullmatch(item.run.name) for item in leftovers(untidy, tuple(KINDS), ()))


def test_what_a_killed_removal_or_import_left_goes_and_an_import_under_way_stays(untidy):
    for name in (".123.gone", ".importing-dead", ".importing-alive"):
        (untidy.root / name / "mine-0123456789ab").mkdir(parents=True)
    with lock(untidy.root / ".importing-alive"):
        found = leftovers(untidy, ("drafts",), ())
        assert [i.path.name for i in found if i.run.parent == untidy.root and i.path == i.run] == [
            ".123.gone",
            ".importing-dead",
        ]
        assert remove(found) == found
    assert {p.name for p in untidy.root.iterdir() if p.name.startswith(".")} == {".importing-alive"}


def test_a_folder_goes_without_an_open_lease_and_beside_what_a_killed_process_left(
    untidy, monkeypatch
):
    left = untidy.root / f".{os.getpid()}.gone" / "mine"
    left.mkdir(parents=True)
    found, rmtree = leftovers(untidy, tuple(KINDS), ()), shutil.rmtree

    def on_nfs(path: Path, **options: bool) -> None:
        files = [entry.resolve() for entry in Path("/proc/self/fd").iterdir()]
        assert not [file for file in files if file.is_relative_to(path)]
        rmtree(path, **options)

    monkeypatch.setattr("experiments.tidying.shutil.rmtree", on_nfs)
    assert remove(found) == found
    assert not left.exists()


def test_what_comes_in_is_on_disk_before_it_has_its_name(packed, tmp_path, monkeypatch):
    synced: list[str] = []
    monkeypatch.setattr("experiments.archive.sync", lambda path: synced.append(path.name))
    store = Store(tmp_path / "there")
    list(import_runs(packed, store))
    files = [path.name for folder in store.folders() for path in folder.iterdir()]
    assert sorted(name.rpartition("-")[0].removeprefix(".") for name in synced) == sorted(files)


def test_all_that_a_search_knows_stays(tmp_path):
    config = SearchConfig(samples=8, controller="random", profile="smoke", lag=2)
    store, searches = Store(tmp_path / "runs"), tmp_path / "searches"
    keep_settings(searches / "mine", config)
    (searches / "mine.yaml").write_text("an exported genotype")
    made = searching(config, store)
    diverged = next(made.cells())
    assert diverged is not None
    write_failure(
        store.folder(diverged.run_id, diverged.recipe.name), Failure("NonFiniteLossError", "loss")
    )
    carried_out(made, 2, np.random.default_rng(0))
    for cell in finals(made, standings(made.tried)[:2]):
        finish(store, cell)
    before = findings("mine", made, searches / "mine")
    assert before.tried == 8
    assert len(before.networks) == 7
    asked = asked_runs(store, searches)
    assert leftovers(store, tuple(KINDS), asked) == []
    others = asked_runs(store, tmp_path / "none")
    assert len(leftovers(store, ("unasked",), others)) == 8 + 2 * SEEDS
    assert "797ba2132d9c" in others


def test_the_table_of_networks_asks_for_its_runs(tmp_path, monkeypatch):
    path = COMMITTED.parents[0] / "search" / "table.json"
    stored = read_table(path)
    assert stored is not None
    monkeypatch.chdir(COMMITTED.parents[1])
    runs, none = {run.run_id for run in stored.runs}, tmp_path / "none"
    assert runs <= asked_runs(Store(tmp_path), none)
    monkeypatch.chdir(tmp_path)
    assert not runs <= asked_runs(Store(tmp_path), none)
    assert runs <= asked_runs(Store(tmp_path), none, tables=[path])
