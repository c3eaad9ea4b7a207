"""What the site is made of beside its pages: every command from its own help, every public name
from its docstring; and links out of docs/, which a site cannot follow, become the file's name.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGES = ("spinenet", "datamodules", "experiments")
OUTWARD = re.compile(r"\[([^\]]+)\]\(\.\./([^)#]+)[^)]*\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    pages = {"commands.md": commands()} | {f"api/{name}.md": api(name) for name in PACKAGES}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **named: Any) -> str:
    """Turn `[text](../file)` into `text (file)`, where the file is there."""

    def name(link: re.Match[str]) -> str:
        if not (ROOT / link[2]).exists():
            raise PluginError(f"{page.file.src_path}: link to {link[2]}, which does not exist")
        return f"{link[1]} (`{link[2]}` in the repository)"

    return OUTWARD.sub(name, markdown)


def commands() -> str:
    """The help of every command as Markdown."""
    sys.path.insert(0, str(ROOT))
    import typer
    from typer.cli import get_docs_for_click

    from experiments.cli import application

    group = typer.main.get_command(application())
    text = get_docs_for_click(obj=group, ctx=typer.Context(group), name="spinenet")
    return re.sub(r"^Example: (.*)$", r"```console\n$ \1\n```", text, flags=re.MULTILINE)


def api(package: str) -> str:
    """A page with each public module of a package in turn."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / package).rglob("*.py"))
    ]
    return f"# {package}\n\n" + "".join(f"::: {name}\n\n" for name in modules)
