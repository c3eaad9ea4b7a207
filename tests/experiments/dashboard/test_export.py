"""The command, and the pages as files."""

from __future__ import annotations

import re


def test_the_export_is_the_site_and_names_no_address(run, write, searched, tmp_path):
    write("5" * 12)
    pages, stores = tmp_path / "pages", ("--runs", tmp_path, "--runs", searched / "runs")
    searches = ("--searches", searched / "searches")
    code, out, _ = run("dashboard", *stores, *searches, "--export", pages)
    assert code == 0
    assert f"open {pages / 'index.html'}" in " ".join(out.split())
    written = {str(p.relative_to(pages)) for p in pages.rglob("*") if p.is_file()}
    assert {"index.html", "run/555555555555.html", "static/dashboard.js"} <= written
    assert {"searches.html", "search/evolved.html", "search/evolved.svg"} <= written
    for path in pages.rglob("*.html"):
        text = path.read_text()
        assert 'data-live="no"' in text
        assert not re.search(r'(?:href|src)="(?:/|[a-z]+:)', text), path
        assert not re.search(r"https?://", text), path
    assert sum(p.stat().st_size for p in pages.rglob("*")) < 3_000_000


def test_a_folder_that_cannot_be_written_to_is_one_clear_error(run, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = run("dashboard", "--runs", tmp_path, "--export", tmp_path / "file")
    assert code == 2
    assert "--export" in err
    assert "give a folder" in err
    assert "Traceback" not in err


def test_an_unknown_study_is_one_clear_error(run, tmp_path):
    code, _, err = run("dashboard", "--runs", tmp_path, "--study", "laddr", "--export", tmp_path)
    assert code == 2
    assert "ladder" in err
