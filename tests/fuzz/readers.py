"""How each kind of input is read, and used as far as a command would: a recipe gets its run id, an
index its fingerprint.

A reader takes a folder with a damaged file. It comes to a result, or raises what the command line
shows as one line.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter

from datamodules import CocoFolderConfig, LabelsCsvConfig, fingerprint, read_coco
from datamodules.class_sources import open_class_source
from datamodules.layouts import find_split
from datamodules.pictures import decode
from datamodules.sources import open_source
from datamodules.survey import survey
from datamodules.unpacking import unpack
from experiments import counting
from experiments.checkpoints import latest
from experiments.cli import line_of
from experiments.compose import Changes, apply, from_tree, load_recipe, parse_assignments
from experiments.durations import parse_duration
from experiments.errors import UserError, one_line
from experiments.recipe import run_id
from experiments.resuming import refuse_foreign
from experiments.store import CHECKPOINTS, Result, Store, read_record
from experiments.study import Selection, cells
from experiments.study_file import load_profile, load_study, parse_source
from experiments.tracking import HistoryLogger
from experiments.weights import read_weights
from spinenet import genotype as genotypes
from spinenet.checkpoints.bundle import Bundle
from spinenet.checkpoints.load import CODE_BASES, code_base
from spinenet.checkpoints.object_graph import GRAPH
from tests.fuzz.originals import (
    COUNTED,
    MODULE,
    SAVED,
)


def read_study(folder: Path) -> None:
    study = load_study(str(folder / "study.yaml"))
    for profile in ("smoke", "paper"):
        cells(study, Selection(load_profile(profile), seeds=1), without_data=True)


def read_profile(folder: Path) -> None:
    profile = load_profile(str(folder / "profile.yaml"))
    tree = load_recipe("retinanet")
    run_id(from_tree(apply(tree, profile.changes_for(tree)), origin="profile.yaml"), "")


def read_recipe(folder: Path) -> None:
    run_id(from_tree(load_recipe(str(folder / "recipe.yaml")), origin="recipe.yaml"), "")


def read_genotype(folder: Path) -> None:
    found = genotypes.load("genotype.yaml", relative_to=folder)
    assert genotypes.from_yaml(found.to_yaml()).content() == found.content()
    found.merged()


def read_coco_folder(folder: Path) -> None:
    for split in ("train", "val"):
        for masks in (False, True):
            index = read_coco(*find_split(folder, split), masks=masks)
            fingerprint(index)
            lenient = read_coco(*find_split(folder, split), masks=masks, on_error="skip")
            assert not lenient.left_out
            for record in index.images:
                assert np.isfinite(record.boxes).all()
                assert np.isfinite(record.area).all()
                torch.tensor(record.id)
    survey(open_source(CocoFolderConfig(root=str(folder))))


def read_damaged_coco(folder: Path) -> None:
    """What is left when damaged pictures are left out is good, and all of it."""
    for split in ("train", "val"):
        index = read_coco(*find_split(folder, split), masks=True, on_error="skip")
        assert all(said.isprintable() for said in index.left_out)
        assert all(np.isfinite(record.boxes).all() for record in index.images)


def read_csv(folder: Path) -> None:
    source = open_class_source(LabelsCsvConfig(root=str(folder)))
    assert source.fingerprint


def read_store(folder: Path) -> None:
    store = Store(folder)
    list(store.results())
    record = store.records(["0123456789ab"])["0123456789ab"]
    assert record.state in ("complete", "failed", "missing")
    if record.result is not None:
        TypeAdapter(Result).validate_python(asdict(record.result))


def read_run(folder: Path) -> None:
    record = read_record(folder)
    assert record.failure is None or record.failure.message is not None


def read_history(folder: Path) -> None:
    HistoryLogger(folder, resume_step=20)
    lines = (folder / "history.jsonl").read_bytes().splitlines()
    assert all(0 <= json.loads(line)["step"] < 20 for line in lines)


def read_counts(folder: Path) -> None:
    assert counting._read(folder / "counts.json") in (None, COUNTED)


def read_picture(folder: Path) -> None:
    for file in folder.glob("picture.*"):
        pixels = decode(file, "entry", "leave it out")
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 3


def read_archive(folder: Path) -> None:
    (file,) = (p for p in folder.iterdir() if p.name.startswith("archive."))
    unpack(file, folder / "inside", "tree")


def clear(error: Exception, name: str) -> None:
    """A complaint is one line of a sensible length that names what it is about; any other error
    is raised again.
    """
    said = line_of(error)
    if said is None:
        raise error
    assert name in said, said
    assert len(said) > 10, said
    assert len(one_line(said)) < 3000


def read_bundle(folder: Path) -> None:
    bundle = Bundle(folder)
    for name in bundle:
        bundle.shape(name)
        if name != GRAPH:
            assert bundle.tensor(name).shape == bundle.shape(name)
    CODE_BASES[code_base(bundle)].stored(bundle, averaged=True)


def read_weights_file(folder: Path) -> None:
    found = read_weights(folder / "weights.safetensors")
    run_id(found.recipe, "")
    assert found.labels


def read_latest(folder: Path) -> None:
    """One that is as it was written, or none."""
    found = latest(folder, warn=lambda *said: None)
    if found is not None:
        path, step = found
        assert path.read_bytes() == SAVED[f"{CHECKPOINTS}/{path.name}"]
        assert f"{step:08d}" == path.name[:8]
        refuse_foreign(path, MODULE)


def read_checkpoint(folder: Path) -> None:
    refuse_foreign(folder / "last.ckpt", MODULE)


def read_assignment(folder: Path) -> None:
    text = (folder / "assignment").read_text(errors="surrogateescape")
    changes = parse_assignments([text])
    tree = apply(load_recipe("retinanet"), (Changes(changes, "--set"),))
    run_id(from_tree(tree, origin="--set"), "")


def read_options(folder: Path) -> None:
    text = (folder / "option").read_text(errors="surrogateescape")
    for read in (parse_source, lambda given: parse_duration(given, "--budget")):
        try:
            read(text)
        except UserError as error:
            clear(error, "--")
