"""Files from strangers are data: nothing in them runs, unfolds, or lands outside its folder."""

from __future__ import annotations

import ast
import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from datamodules.errors import DataError
from datamodules.unpacking import unpack
from experiments.compose import parse_assignments, read_yaml
from experiments.errors import UserError
from experiments.resuming import refuse_foreign
from experiments.weights import read_weights
from spinenet import genotype as genotypes
from spinenet.genotype import GenotypeError
from spinenet.yaml_text import StrictLoader, YamlError, parse

ROOT = Path(__file__).parents[1]
CODE = [
    p
    for package in ("spinenet", "datamodules", "experiments")
    for p in ROOT.glob(f"{package}/**/*.py")
]
RUNS_WHAT_IT_READS = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}


def calls() -> list[tuple[str, ast.Call]]:
    """(file, call) of every call in the project."""
    return [
        (path.relative_to(ROOT).as_posix(), node)
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


def called(name: str) -> list[tuple[str, ast.Call]]:
    return [(path, call) for path, call in calls() if ast.unparse(call.func) == name]


def test_no_reader_runs_what_it_reads():
    imported = {
        (path.name, name.split(".")[0])
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    found = {pair for pair in imported if pair[1] in RUNS_WHAT_IT_READS}
    assert found <= {("distributed.py", "pickle")}  # from the process that started it, by a pipe
    assert called("eval") == called("exec") == called("np.load") == []


def test_torch_loads_tensors_only():
    found = called("torch.load")
    assert [path for path, _ in found] == ["experiments/resuming.py"]
    for _, call in found:
        assert [ast.unparse(k.value) for k in call.keywords if k.arg == "weights_only"] == ["True"]
    (fit,) = [call for path, call in called("trainer.fit") if path == "experiments/assembly.py"]
    (said,) = [ast.unparse(k.value) for k in fit.keywords if k.arg == "weights_only"]
    assert said == "True if resume else None"  # None is for no file at all


def test_yaml_is_read_in_one_place_and_safely():
    readers = [
        (path, ast.unparse(call.func))
        for path, call in calls()
        if ast.unparse(call.func).startswith("yaml.") and "load" in ast.unparse(call.func)
    ]
    assert readers == [("spinenet/yaml_text.py", "yaml.load")]
    assert issubclass(StrictLoader, yaml.SafeLoader)
    assert StrictLoader.yaml_constructors is yaml.SafeLoader.yaml_constructors


def test_archives_are_unpacked_in_one_place():
    unpackers = {
        path
        for path, call in calls()
        if ast.unparse(call.func).endswith((".extractall", ".extract", "unpack_archive"))
    }
    assert unpackers == {"datamodules/unpacking.py"}


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def bombs(mark: Path) -> dict[str, bytes]:
    """A pickle bomb in each of torch's formats."""
    new, old = io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": Bomb(mark)}, new)
    torch.save({"state_dict": Bomb(mark)}, old, _use_new_zipfile_serialization=False)
    return {"zip": new.getvalue(), "legacy": old.getvalue(), "pickle": pickle.dumps(Bomb(mark))}


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_pickle_bomb_does_not_go_off(form, tmp_path):
    mark = tmp_path / "went-off"

    for path in (tmp_path / "last.ckpt", tmp_path / "weights.safetensors"):
        path.write_bytes(bombs(mark)[form])
    with pytest.raises(UserError, match=r"last\.ckpt: cannot be gone on from: .*remove the file"):
        refuse_foreign(tmp_path / "last.ckpt", torch.nn.Linear(1, 1))
    with pytest.raises(UserError, match=r"weights\.safetensors: not a weights file"):
        read_weights(tmp_path)
    assert not mark.exists()
    torch.load(io.BytesIO(bombs(mark)["zip"]), weights_only=False)
    assert mark.is_dir()  # where it does go off, it leaves its mark


def test_a_header_of_exabytes_is_no_weights_file(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(UserError, match="not a weights file"):
        read_weights(path)


LAUGHS = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("!!python/object/apply:os.mkdir [{mark}]", "could not determine a constructor"),
        ("!!python/object/new:os.mkdir [{mark}]", "could not determine a constructor"),
        ("a: !!python/name:os.mkdir", "could not determine a constructor"),
        (LAUGHS, "more than 100,000 values"),
        ("a: &a [*a]", "an alias stands for what it is part of"),
        ("a: &a {b: {c: *a}}", "an alias stands for what it is part of"),
        ("a: " + "[" * 100_000, "deep"),
        ("a: " + "[" * 60 + "]" * 60, "nested more than 40 deep"),
        ("a: " + "9" * 5000, "a value cannot be read"),
        ("a: 2001-99-99", "a value cannot be read"),
        ("b: {a: 1,\n  a: 2}", "line 2: the key 'a' is there already, at line 1; rename one"),
    ],
)
def test_yaml_from_a_stranger_is_refused_in_a_line(text, said, tmp_path):
    text = text.replace("{mark}", str(tmp_path / "went-off"))
    path = tmp_path / "file.yaml"
    path.write_text(text)
    readers: list[tuple[type[Exception], Callable[[], object]]] = [
        (YamlError, lambda: parse(text)),
        (UserError, lambda: read_yaml(path)),
        (GenotypeError, lambda: genotypes.load(path)),
        (UserError, lambda: parse_assignments([f"model={text}"])),
    ]
    for kind, read in readers:
        with pytest.raises(kind, match=said) as caught:
            read()
        assert len(str(caught.value)) < 150_000
        assert "\n" not in str(caught.value).replace(text, "")
    assert not (tmp_path / "went-off").exists()


def test_what_a_merged_mapping_says_may_be_said_again():
    assert parse("a: &a {x: 1, y: 2}\nb: &b {<<: *a, x: 3}\nc: {<<: *b, y: 4}") == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 3, "y": 2},
        "c": {"x": 3, "y": 4},
    }


def test_aliases_that_unfold_to_little_are_welcome():
    assert parse("a: &a [1, 2]\nb: *a\nc: {<<: {d: *a}}") == {
        "a": [1, 2],
        "b": [1, 2],
        "c": {"d": [1, 2]},
    }


def tar_member(name: str, **facts: object) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as opened:
        member = tarfile.TarInfo(name)
        for key, value in facts.items():
            setattr(member, key, value)
        opened.addfile(member, io.BytesIO(bytes(member.size)))
    return packed.getvalue()


def zip_member(name: str, mode: int = 0) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = mode << 16
        opened.writestr(entry, "../outside")
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tar", tar_member("../outside", size=3)),
        ("a.tar", tar_member("/outside-of-everything", size=3)),
        ("a.tar", tar_member("in/../../outside", size=3)),
        ("a.tar", tar_member("link", type=tarfile.SYMTYPE, linkname="../outside")),
        ("a.tar", tar_member("link", type=tarfile.LNKTYPE, linkname="../outside")),
        ("a.tar", tar_member("device", type=tarfile.CHRTYPE)),
        ("a.tar", tar_member("pipe", type=tarfile.FIFOTYPE)),
        ("a.zip", zip_member("../outside")),
        ("a.zip", zip_member("/outside-of-everything")),
        ("a.zip", zip_member("in/../../outside")),
    ],
)
def test_an_archive_that_means_harm_is_refused(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "outside").write_text("untouched")
    with pytest.raises(DataError, match=r"not an archive that can be unpacked.*get it again"):
        unpack(tmp_path / name, tmp_path / "inside", "tree")
    assert list((tmp_path / "inside").iterdir()) == []
    assert (tmp_path / "outside").read_text() == "untouched"
    assert not Path("/outside-of-everything").exists()


def test_a_link_in_a_zip_is_a_file_of_text(tmp_path):
    (tmp_path / "a.zip").write_bytes(zip_member("link", mode=0o120777))
    unpack(tmp_path / "a.zip", tmp_path / "inside", "tree")
    assert not (tmp_path / "inside" / "link").is_symlink()
