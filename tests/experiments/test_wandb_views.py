"""The workspace and the report of a study, as they would be saved: W&B's transport is replaced by
one that keeps what it is given.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import wandb

from experiments.study import Selection, cells
from experiments.study_file import load_profile, load_study

pytest.importorskip("wandb_workspaces")

ROOT = Path(__file__).parents[2]
STORED = ("--runs", str(ROOT / "results" / "embedded"))


class FakeApi:
    """Knows one project of one team."""

    default_entity = "team"

    def projects(self, entity: str) -> list[Any]:
        return [type("Project", (), {"name": "spinenet"})()]


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """The views that were saved, by type."""
    views: dict[str, dict[str, Any]] = {}

    def execute(api: Any, query: str, variables: Any = None) -> dict[str, Any]:
        if "upsertView" not in query:
            return {"project": {"internalId": "7"}}
        views[variables["type"]] = {**variables, "spec": json.loads(variables["spec"])}
        project = {"name": variables["projectName"], "entityName": variables["entityName"]}
        view = {"id": "view", "name": variables["name"], "type": variables["type"]}
        extra = {"displayName": variables["displayName"], "description": "", "project": project}
        spec = {"spec": variables["spec"], "updatedAt": "2026-01-01T00:00:00Z"}
        created = {"createdAt": "2026-01-01T00:00:00Z"}
        return {"upsertView": {"view": view | extra | spec | created, "inserted": True}}

    from wandb_workspaces.reports.v2 import interface as reports
    from wandb_workspaces.workspaces import interface as workspaces
    from wandb_workspaces.workspaces import internal

    for module in (reports, internal):
        monkeypatch.setattr(module, "execute_graphql", execute)
    for module in (reports, workspaces):
        monkeypatch.setattr(module, "get_app_url", lambda api: "https://wandb.example")
    monkeypatch.setattr(wandb, "Api", FakeApi)
    return views


@pytest.mark.parametrize("command", ["report", "sync"])
def test_help_shows_an_example(run, command):
    code, out, _ = run("wandb", command, "--help")
    assert code == 0
    assert f"Example: spinenet wandb {command}" in " ".join(out.split())


def test_the_workspace_shows_the_studys_runs_with_seeds_together(run, saved):
    code, out, err = run("wandb", "report", "ladder", *STORED)
    assert (code, err.count("error")) == (0, 0)
    assert "workspace: https://wandb.example/team/spinenet" in out
    view = saved["project-view"]
    text = json.dumps(view["spec"])
    study, profile = load_study("ladder"), load_profile("embedded")
    stored = {cell.run_id for cell in cells(study, Selection(profile=profile, seeds=3))}
    assert len(stored) == 15
    assert all(run_id in text for run_id in stored)
    assert "variant.value.ladder" in text
    section = view["spec"]["section"]
    names = [s["name"] for s in section["panelBankConfig"]["sections"]]
    assert names[:4] == ["Results", "Training", "What was found", "Networks"]
    kinds = [p["viewType"] for s in section["panelBankConfig"]["sections"] for p in s["panels"]]
    assert kinds.count("Run History Line Plot") == 2


def test_the_report_has_the_tables_of_the_stored_runs(run, saved):
    code, out, _ = run("wandb", "report", "ladder", "--entity", "others", *STORED)
    assert code == 0
    assert "report: https://wandb.example/others/spinenet/reports/" in out
    report = saved["runs"]
    assert (report["entityName"], report["projectName"]) == ("others", "spinenet")
    assert report["displayName"].startswith("The ladder")
    blocks = {block["type"]: block for block in report["spec"]["blocks"]}
    readme = (ROOT / "README.md").read_text()
    for line in blocks["markdown-block"]["content"].splitlines():
        assert line in readme
    assert "R50-FPN" in blocks["markdown-block"]["content"]
    assert [b["type"] for b in report["spec"]["blocks"]].count("panel-grid") == 4


def test_the_panels_ask_for_what_runs_record(run, saved):
    run("wandb", "report", "ladder", *STORED)
    text = json.dumps(saved["runs"]["spec"])
    for name in ("loss/total", "val/AP", "architecture", "predictions", "precision_table"):
        assert f'"{name}"' in text
    assert '"step"' in text


def test_without_a_key_the_way_out_is_said(run, monkeypatch):
    def refuse() -> None:
        raise wandb.errors.UsageError("No API key configured.")

    monkeypatch.setattr(wandb, "Api", refuse)
    code, _, err = run("wandb", "report", "ladder", *STORED)
    assert code == 2
    assert "No API key configured" in err
    assert "WANDB_API_KEY" in err


def test_a_refused_view_names_the_team_and_the_way_out(run, saved, monkeypatch):
    from wandb_workspaces.workspaces import internal

    def refuse(api: Any, query: str, variables: Any = None) -> dict[str, Any]:
        raise wandb.errors.CommError("permission denied")

    monkeypatch.setattr(internal, "execute_graphql", refuse)
    code, _, err = run("wandb", "report", "ladder", "--entity", "others", *STORED)
    assert code == 2
    assert "others/spinenet: permission denied" in err
    assert "spinenet wandb sync" in err


def test_without_the_library_the_command_says_how_to_install_it(run, saved, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    monkeypatch.setitem(sys.modules, "wandb_workspaces.reports.v2", None)
    code, _, err = run("wandb", "report", "ladder", *STORED)
    assert code == 2
    assert "pip install '.[wandb]'" in err
