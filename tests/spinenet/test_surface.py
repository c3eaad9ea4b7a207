"""What `import spinenet` offers at once."""

import importlib
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import spinenet

PACKAGE = Path(spinenet.__file__).parent


def test_every_name_of_the_surface_is_there_and_nothing_else_is_listed():
    assert dir(spinenet) == sorted(spinenet.__all__)
    for name, home in spinenet.HOMES.items():
        assert getattr(spinenet, name) is getattr(importlib.import_module(f"spinenet.{home}"), name)
    assert spinenet.zoo.model("spinenet-49").side == 640
    assert spinenet.__version__ == version("spinenet-reproduction")


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'spinenet' has no attribute 'SpinNet'"):
        spinenet.SpinNet  # noqa: B018


def test_types_are_shipped_with_the_package():
    assert (PACKAGE / "py.typed").is_file()
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
    assert "py.typed" in settings["tool"]["setuptools"]["package-data"]["spinenet"]
