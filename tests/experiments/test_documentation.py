"""The documentation builds without a warning, and no page shows a command that does not exist.

Every line `$ command` of a `console` block is looked at: its program, its options, its targets.
Blocks under `<!-- runs as it stands -->` need nothing but this repository and are run. Commands
within sentences, at the heads of YAML files and in notebooks are looked at, too.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from experiments.cli import application

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- runs as it stands -->\n)?```console\n(.*?)```", re.DOTALL)
MENTION = re.compile(r"`(?:spinenet\s+([^`]+)|(--[a-z-]+)[^`]*)`")  # a command, or an option alone
HEADS = [*ROOT.glob("ablations/*.yaml"), *ROOT.glob("experiments/*/*.yaml")]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
USAGE = typer.BadParameter.__mro__[1]  # what a wrong option or command raises
PACKAGE = tomllib.loads((ROOT / "pyproject.toml").read_text())


def commands(*, runnable: bool = False) -> list[tuple[str, str]]:
    """(page, command line) of all pages, or only what is marked to run."""
    found = []
    for page in PAGES:
        for mark, block in BLOCK.findall(page.read_text()):
            lines = [line[2:] for line in block.splitlines() if line.startswith("$ ")]
            found += [(page.name, line) for line in lines if mark or not runnable]
    return found


def words(line: str) -> list[str]:
    """The words of a command line, without its comment."""
    return shlex.split(line, comments=True)


def parse(arguments: list[str]) -> None:
    """Find the command that is meant and read its options, without running it."""
    name, command = "spinenet", typer.main.get_command(application())
    while hasattr(command, "commands"):
        context = command.context_class(command, info_name=name)
        name, command, arguments = command.resolve_command(context, arguments)
    command.make_context(name, list(arguments))


def check(line: str) -> None:
    """Raises where a command line names what is not there."""
    program, *arguments = words(line)
    if program == "spinenet":
        parse(arguments)
    elif program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert [a for a in arguments if "=" not in a and a not in targets] == []
    elif program == "source":
        assert arguments == [".venv/bin/activate"]
    elif program == "pip":
        (extra,) = re.findall(r"\.\[(\w+)\]", line)
        assert extra in PACKAGE["project"]["optional-dependencies"]
    elif program == "wandb":
        from wandb.cli.cli import cli

        assert arguments[0] in cli.commands
    else:
        raise AssertionError(f"no test knows the program {program}")


@pytest.mark.parametrize(("page", "line"), commands())
def test_every_command_on_a_page_exists(page, line):
    check(line)  # raises
    assert page


@pytest.mark.parametrize(
    "line",
    [
        "spinenet tabel ladder",
        "spinenet table ladder --figur x.svg",
        "spinenet wandb sink",
        "spinenet show",
        "make dinner",
        "pip install '.[nothing]'",
        "wandb gulp",
        "curl example.org",
    ],
)
def test_a_command_that_does_not_exist_is_found(line):
    with pytest.raises((USAGE, AssertionError)):
        check(line)


@pytest.mark.parametrize(("page", "line"), commands(runnable=True))
def test_what_is_marked_to_run_runs(run, monkeypatch, page, line):
    monkeypatch.chdir(ROOT)
    code, out, err = run(*words(line)[1:])
    assert (code, err) == (0, "")
    assert out.strip()


def mentions() -> list[tuple[str, str]]:
    """(file, paragraph or row of a table) that names a command within a sentence; one of those that
    name the same.
    """
    found = {}
    for page in [*PAGES, *NOTEBOOKS]:
        text = page.read_text()
        if page in NOTEBOOKS:
            cells = [c for c in json.loads(text)["cells"] if c["cell_type"] == "markdown"]
            text = "\n\n".join("".join(cell["source"]) for cell in cells)
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        parts = [p for p in re.split(r"\n\n|\n(?=\|)", prose) if re.search(r"`spinenet\s", p)]
        found |= {(page.name, *MENTION.findall(part)): (page.name, part) for part in parts}
    return list(found.values())


def options(command: Any) -> set[str]:
    """Of a command, or of all commands of a group."""
    below = (options(c) for c in getattr(command, "commands", {}).values())
    own = (o for p in command.params for o in (*p.opts, *p.secondary_opts))
    return set(own).union(*below)


def meant(mention: str) -> Any:
    """The command that is named. Raises where there is none."""
    command, rest = typer.main.get_command(application()), mention.split()
    while hasattr(command, "commands"):
        context = command.context_class(command, info_name="spinenet")
        _, command, rest = command.resolve_command(context, rest)
    return command


def check_mentions(text: str) -> None:
    """Every command of a paragraph exists and has the options that it is named with; an option
    alone is that of some command.
    """
    every = options(typer.main.get_command(application()))
    for command, option in MENTION.findall(text):
        known = options(meant(command)) if command else every
        given = {part.partition("=")[0] for part in [*command.split(), option] if part[:2] == "--"}
        assert given <= known, text


@pytest.mark.parametrize(("page", "text"), mentions())
def test_every_command_within_a_sentence_exists(page, text):
    check_mentions(text)  # raises
    assert page


@pytest.mark.parametrize(
    "text", ["`spinenet tabel`", "`spinenet table --figur`", "`spinenet plan`, `--nothing`"]
)
def test_a_mention_of_what_does_not_exist_is_found(text):
    with pytest.raises((USAGE, AssertionError)):
        check_mentions(text)


def test_every_command_at_the_head_of_a_file_or_in_a_notebook_exists():
    heads = re.findall(r"^# (spinenet .*)$", "\n".join(p.read_text() for p in HEADS), re.MULTILINE)
    cells = [c for p in NOTEBOOKS for c in json.loads(p.read_text())["cells"]]
    shown = [line[2:].strip() for c in cells for line in c["source"] if line.startswith("$ ")]
    assert len(heads) > 5
    assert len(shown) >= 3
    for line in heads + shown:
        check(line)


def test_no_command_hides_in_a_block_of_another_kind():
    for page in PAGES:
        kinds = re.findall(r"^\s*```(\S*)", page.read_text(), re.MULTILINE)
        assert set(kinds) <= {"console", "yaml", "python", ""}, page.name
        blocks = re.findall(r"```(\w+)\n(.*?)```", page.read_text(), re.DOTALL)
        lines = [line for kind, block in blocks for line in block.splitlines() if kind != "console"]
        assert not [line for line in lines if re.match(r"\s*\$? ?(spinenet|make|pip) ", line)]


def test_some_blocks_are_marked_to_run():
    assert len(commands(runnable=True)) >= 4
    assert len(commands()) > 20


def test_the_site_builds_strictly_and_offline(tmp_path):
    pytest.importorskip("mkdocs")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}  # an advertisement
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, env=quiet)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    help_page = (tmp_path / "commands" / "index.html").read_text()
    for name in typer.main.get_command(application()).commands:
        assert f"spinenet {name}" in help_page
    api = (tmp_path / "api" / "spinenet" / "index.html").read_text()
    assert "spinenet.backbone.SpineNet" in api
    pages = "".join(page.read_text() for page in tmp_path.rglob("*.html"))
    loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', pages)
    assert loaded == []  # nothing is fetched when it is read
