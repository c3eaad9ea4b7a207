"""Whatever becomes of an input, it is read to a right result or refused in one clear line; nothing
hangs, no traceback is a user's share, and reading changes nothing.

A few hundred damaged files of each kind here; `-m fuzz` tries thousands of each, `FUZZ_CASES` so
many, in another order every time.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, seed, settings

from experiments import counting
from tests.fuzz.damage import as_json, as_yaml
from tests.fuzz.inputs import Kind, kinds
from tests.fuzz.originals import (
    COCO,
    COUNTED,
    METADATA,
    PICTURES,
    RECIPE,
    SCORES,
    STUDY,
    TF1,
    Files,
    archive,
    picture,
    weights,
)
from tests.fuzz.readers import clear

KINDS = kinds()
FEW = 100
MANY = int(os.environ.get("FUZZ_CASES", 4000))
LONGEST_S = 10  # of the processor


Outcome = Literal["read", "refused"]


class HangError(BaseException):
    """Not caught by what is tried."""


def hang(number: int, frame: FrameType | None) -> None:
    raise HangError(f"a case took more than {LONGEST_S} s")


def hammer(kind: Kind, folder: Path, cases: int, *, fixed: bool) -> Counter[str]:
    """Read so many damaged inputs of a kind, always the same ones if `fixed`; what became of
    them.
    """
    found: Counter[str] = Counter()

    def one(files: Files) -> None:
        found[read_one(kind, folder, files)] += 1

    check = settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=fixed,
        suppress_health_check=list(HealthCheck),
    )(given(kind.damaged)(one))
    old = signal.signal(signal.SIGPROF, hang)
    try:
        (check if fixed else seed(int.from_bytes(os.urandom(4)))(check))()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)
    return found


def read_one(kind: Kind, folder: Path, files: Files) -> Outcome:
    """Read one input; anything but these two outcomes is raised."""
    outcome: Outcome = "read"
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
    try:
        kind.read(folder)
    except Exception as error:
        clear(error, kind.name)
        outcome = "refused"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    if kind.quiet:
        there = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        assert there == set(files)
        assert all((folder / name).read_bytes() == content for name, content in files.items())
    return outcome


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_input_is_read_right_or_refused_in_a_line(name, tmp_path):
    found = hammer(KINDS[name], tmp_path / "case", FEW, fixed=True)
    assert found.total() > FEW / 2
    assert set(found) <= {"read", "refused"}


def coco_with(**fields: object) -> bytes:
    first, *rest = COCO["annotations"]
    return as_json(COCO | {"annotations": [first | fields, *rest]})


def coco_named(file_name: str) -> bytes:
    first, *rest = COCO["images"]
    return as_json(COCO | {"images": [first | {"file_name": file_name}, *rest]})


GIF = picture("GIF")
# What is made again, says itself that it is damaged, or can be done without.
FORGIVING = ("failure", "history", "counts", "tf1 checkpoint", "checkpoint note")
# Each of these was once a traceback, a line that names nothing, or no end.
FOUND: list[tuple[str, Files]] = [
    ("study", {"study.yaml": as_yaml(STUDY | {"claims": 0.5})}),
    ("study", {"study.yaml": as_yaml(STUDY | {"protocol": ["A"]})}),
    ("study", {"study.yaml": as_yaml(STUDY | {"recipe": "x" * 999})}),
    ("recipe", {"recipe.yaml": as_yaml(RECIPE | {"base": "x" * 999})}),
    ("recipe", {"recipe.yaml": as_yaml(RECIPE | {"base": ["retinanet"]})}),
    ("recipe", {"recipe.yaml": b"!!int"}),
    ("recipe", {"recipe.yaml": b"seed: 2001-99-99"}),
    ("recipe", {"recipe.yaml": b"seed: " + b"9" * 5000}),
    ("recipe", {"recipe.yaml": b"optim.lr: .nan"}),
    ("recipe", {"recipe.yaml": b"model.backbone.width: 1.0e+308"}),
    ("recipe", {"recipe.yaml": b"model.backbone.block_repeats: 1000000"}),
    ("genotype", {"genotype.yaml": b"\xff"}),
    ("genotype", {"genotype.yaml": "stem: [2]\nwidths: {²: 64}\nblocks: []".encode()}),
    ("coco", PICTURES | {"annotations.json": b"[" * 100_000}),
    ("coco", PICTURES | {"annotations.json": b'{"images": ' + b"9" * 5000 + b"}"}),
    ("coco", PICTURES | {"annotations.json": coco_with(segmentation=[[1, 1, 4, 1, 4, 10**400]])}),
    ("coco", PICTURES | {"annotations.json": as_json(COCO | {"images": [{"id": 2**64}]})}),
    ("coco", PICTURES | {"annotations.json": coco_with(area=10**400)}),
    ("coco", PICTURES | {"annotations.json": coco_with(area=float("nan"))}),
    ("coco", PICTURES | {"annotations.json": coco_named("")}),
    ("coco, damaged left out", PICTURES | {"annotations.json": coco_named(".")}),
    ("tf1 checkpoint", TF1 | {"checkpoint": b'model_checkpoint_path: "/"'}),
    ("checkpoint note", TF1 | {"checkpoint": b'model_checkpoint_path: ".."'}),
    ("weights, metadata", {"weights.safetensors": weights(METADATA | {"labels": {}})}),
    ("weights, metadata", {"weights.safetensors": weights(METADATA | {"recipe": [1]})}),
    ("weights, metadata", {"weights.safetensors": weights(METADATA | {"origin": "x"})}),
    ("failure", {"failure.json": b"{"}),
    ("failure", {"failure.json": b'{"error": 3}'}),
    ("history", {"history.jsonl": b'{"step": 8}\n{"step": "x"}\n[]\n{"st'}),
    ("counts", {"counts.json": counting._text(COUNTED).replace("1.5", "7.5").encode()}),
    ("scores", {"scores.json": as_json(SCORES | {"recipe": {}})}),
    ("GIF picture", {"picture.gif": GIF[:6] + b"\xff\xff\xff\xff" + GIF[10:]}),
    ("tar.gz archive", {"archive.tar.gz": archive("tar.gz")[:-6] + b"\0\0\0\0\0\0"}),
    ("assignment", {"assignment": b"seed\n=3"}),
]


@pytest.mark.parametrize(("name", "files"), FOUND)
def test_what_damage_has_found_stays_mended(name, files, tmp_path):
    found = read_one(KINDS[name], tmp_path / "case", files)
    assert found == ("read" if name in FORGIVING else "refused")


@pytest.mark.fuzz
@pytest.mark.parametrize("name", KINDS)
def test_many_damaged_inputs(name, tmp_path):
    found = hammer(KINDS[name], tmp_path / "case", MANY, fixed=False)
    print(f"{name}: {dict(found)}")
    assert found.total() > 0
