"""Everything that is read from a user's disk: a good original, ways to damage it, and a reader.

A reader takes a folder with the damaged file and either comes to a result or raises what the
command line shows as one line. What it reads is used as far as a command would: a recipe gets its
run id, an index its fingerprint.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter
from safetensors.torch import save

from datamodules import CocoFolderConfig, LabelsCsvConfig, fingerprint, read_coco
from datamodules.class_sources import open_class_source
from datamodules.layouts import find_split
from datamodules.pictures import decode
from datamodules.sources import open_source
from datamodules.survey import survey
from datamodules.unpacking import unpack
from experiments import counting
from experiments.checkpoints import DIGITS, FOLDER, latest
from experiments.cli import line_of
from experiments.cli.options import parse_duration
from experiments.compose import Changes, apply, from_tree, load_recipe, override, parse_assignments
from experiments.errors import UserError, one_line
from experiments.ledger.checkpoints import read_scores
from experiments.recipe import run_id, to_tree
from experiments.resuming import refuse_foreign
from experiments.search.config import read_config
from experiments.store import Failure, Result, Store, read_record
from experiments.study import Selection, cells
from experiments.study_file import load_profile, load_study, parse_source
from experiments.tracking import HistoryLogger
from experiments.weights import read_weights
from spinenet import genotype as genotypes
from spinenet.checkpoints.bundle import Bundle
from spinenet.checkpoints.load import CODE_BASES, code_base
from spinenet.checkpoints.object_graph import GRAPH, VALUE
from spinenet.counts import Complexity
from tests.fuzz.damage import (
    SPLINTERS,
    damaged_bytes,
    damaged_json,
    damaged_tree,
    damaged_yaml,
)
from tests.spinenet.checkpoints.bundle_writer import message, object_graph, table_bytes, varint

Files = dict[str, bytes]  # name in the folder → content

STUDY = {
    "title": "A study",
    "recipe": "retinanet",
    "set": {"train.epochs": 20, "optim.decay_before_end": [3, 1], "optim.warmup_epochs": 1},
    "metrics": ["AP"],
    "classes": 91,
    "protocol": "A",
    "variants": {
        "a": {"title": "A", "why": "because", "paper": {"AP": {"value": 40.8, "source": "t2"}}},
        "b": {
            "from": "a",
            "model.backbone.width": 0.5,
            "model.backbone": {"kind": "resnet-fpn", "depth": 50},
            "times": {"optim.lr": 0.5},
        },
    },
    "claims": [
        {"id": "c", "text": "a beats b", "a": "a", "b": "b", "relation": "greater", "source": "t2"}
    ],
}
PROFILE = {
    "title": "Tiny",
    "seeds": 2,
    "is_evidence": False,
    "train.epochs": 2,
    "optim.warmup_epochs": 0.5,
    "optim.schedule": "cosine",
    "data.source": {"kind": "digits", "train_images": 8, "val_images": 4},
    "data.transform.side": 64,
    "by_model": {"retinanet": {"model.head.filters": 8}},
}
RECIPE = {
    "title": "Mine",
    "base": "retinanet",
    "model.backbone": {"kind": "spinenet", "genotype": "spinenet-49", "width": 0.25},
    "data.source": {"kind": "digits"},
    "optim": {"name": "adamw", "lr": 0.003, "schedule": "cosine"},
    "train": {"epochs": 12, "batch_size": 16},
}
COCO = {
    "images": [
        {"id": 3, "file_name": "train/a.png", "height": 6, "width": 8},
        {"id": 5, "file_name": "val/b.png", "height": 6, "width": 8},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 3,
            "category_id": 4,
            "bbox": [1, 1, 3.5, 2],
            "iscrowd": 0,
            "area": 7,
            "segmentation": [[1, 1, 4, 1, 4, 3]],
        },
        {
            "id": 2,
            "image_id": 5,
            "category_id": 9,
            "bbox": [0, 0, 4, 4],
            "iscrowd": 1,
            "segmentation": {"size": [6, 8], "counts": [0, 6, 42]},
        },
        {
            "id": 3,
            "image_id": 3,
            "category_id": 9,
            "bbox": [0, 0, 4, 4],
            "segmentation": {"size": [6, 8], "counts": "06Z1"},
        },
    ],
    "categories": [{"id": 9, "name": "cat"}, {"id": 4, "name": "dog"}],
}


@dataclass(frozen=True)
class Kind:
    """A kind of input: its damaged forms and its reader. `name` is that of the damaged file, which
    a complaint must mention; empty where the input is no file. A reader that leaves its folder
    as it found it is `quiet`.
    """

    damaged: st.SearchStrategy[Files]
    read: Callable[[Path], Any]
    name: str = ""
    quiet: bool = True


def in_file(name: str, content: st.SearchStrategy[bytes], beside: Files | None = None) -> Any:
    """One damaged file, with good ones beside it."""
    return content.map(lambda data: {**(beside or {}), name: data})


def picture(form: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, form)
    return packed.getvalue()


PICTURES = {"train/a.png": picture("PNG"), "val/b.png": picture("PNG")}


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


NAMES = {
    "model/layer_with_weights-0/kernel" + VALUE: "conv2d_3/kernel:0",
    "model/layer_with_weights-1/gamma" + VALUE: "sync_batch_normalization/gamma:0",
    "save_counter" + VALUE: "save_counter:0",
}


def bundle_files(tensors: dict[str, Any]) -> Files:
    """A checkpoint's files, made with the tests' own writer."""
    from tempfile import TemporaryDirectory

    from tests.spinenet.checkpoints.bundle_writer import write_bundle

    with TemporaryDirectory() as folder:
        write_bundle(Path(folder) / "model-7", tensors)
        return {p.name: p.read_bytes() for p in Path(folder).iterdir()}


KERNEL, GAMMA = torch.arange(24.0).reshape(1, 2, 3, 4), torch.ones(4)
TF1 = bundle_files({"a/conv2d/kernel": KERNEL, "a/bn/gamma": GAMMA, "global_step": torch.tensor(7)})
TF2 = bundle_files(
    {
        **dict(zip(NAMES, (KERNEL, GAMMA, torch.tensor(7)), strict=True)),
        GRAPH: object_graph(NAMES),
    }
)
NOTES = ['model_checkpoint_path: "model-7"\n', 'model_checkpoint_path: "/x/model-7"\n']
NOTES += ['model_checkpoint_path: "/"', 'model_checkpoint_path: ".."', "", "\0", 'path: "x"']
NOTES += ['model_checkpoint_path: "checkpoint"', 'model_checkpoint_path: "' + "x" * 999 + '"']

fields = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.integers(0, 2**70) | st.binary(max_size=12) | st.just(message((2, message((1, 2))))),
    ),
    max_size=6,
).map(lambda rows: message(*rows))


@st.composite
def forged_bundles(draw: st.DrawFn, original: Files) -> Files:
    """Checkpoints whose checksums are right and whose entries are anything."""
    keys = st.binary(max_size=12) | st.sampled_from([b"", GRAPH.encode(), *map(str.encode, NAMES)])
    graph = draw(fields | st.binary(max_size=40))
    table = draw(st.dictionaries(keys, fields | st.binary(max_size=12), max_size=5))
    table.setdefault(b"", message((1, 1)))
    data = varint(len(graph)) + bytes(4) + graph
    return {**original, "model-7.index": table_bytes(table), "model-7.data-00000-of-00001": data}


def a_file_of(files: Files) -> st.SearchStrategy[Files]:
    """The files with one of them damaged."""
    return st.sampled_from(sorted(files)).flatmap(
        lambda name: in_file(name, damaged_bytes(files[name]), files)
    )


def read_bundle(folder: Path) -> None:
    bundle = Bundle(folder)
    for name in bundle:
        bundle.shape(name)
        if name != GRAPH:
            assert bundle.tensor(name).shape == bundle.shape(name)
    CODE_BASES[code_base(bundle)].stored(bundle, averaged=True)


SMALL = from_tree(
    override(load_recipe("retinanet"), {"model.backbone.width": 0.25}, origin="test"), origin="test"
)
METADATA = {
    "recipe": to_tree(SMALL),
    "labels": {"1": {"category": 3, "name": "cat"}},
    "origin": {"model": "x", "task": "retinanet", "code_base": "tensorflow/tpu"},
}


def weights(metadata: Any) -> bytes:
    texts = {str(k): json.dumps(v) for k, v in metadata.items()} if metadata else None
    if texts is not None and any("\ud800" in key for key in texts):
        texts = None
    return save({"a.weight": torch.ones(2, 3)}, texts)


def is_mapping(tree: Any) -> bool:
    return isinstance(tree, dict)


def read_weights_file(folder: Path) -> None:
    found = read_weights(folder / "weights.safetensors")
    run_id(found.recipe, "")
    assert found.labels


MODULE = torch.nn.Linear(2, 3)
CHECKPOINT = {
    "epoch": 1,
    "global_step": 20,
    "pytorch-lightning_version": "2.6.0",
    "state_dict": MODULE.state_dict(),
    "loops": {"fit_loop": {"state_dict": {}}},
    "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(3)}}}],
    "lr_schedulers": [{"last_epoch": 20}],
}


def checkpoint(tree: Any) -> bytes:
    packed = io.BytesIO()
    torch.save(tree, packed)
    return packed.getvalue()


def saved(steps: dict[int, bytes]) -> Files:
    """Checkpoints as they lie in a run's folder, each named by its content."""
    return {
        f"{FOLDER}/{step:08d}-{hashlib.sha256(content).hexdigest()[:DIGITS]}.ckpt": content
        for step, content in steps.items()
    }


SAVED = saved({10: checkpoint(CHECKPOINT | {"global_step": 10}), 20: checkpoint(CHECKPOINT)})


def read_latest(folder: Path) -> None:
    """One that is as it was written, or none."""
    found = latest(folder, warn=lambda *said: None)
    if found is not None:
        path, step = found
        assert path.read_bytes() == SAVED[f"{FOLDER}/{path.name}"]
        assert f"{step:08d}" == path.name[:8]
        refuse_foreign(path, MODULE)


def read_checkpoint(folder: Path) -> None:
    refuse_foreign(folder / "last.ckpt", MODULE)


RUN = "run-0123456789ab"
RESULT = Result(
    run_id="0123456789ab",
    name="run",
    seed=0,
    metrics={"AP": 41.5, "AP50": 60.0},
    macs_b=1.5,
    params_m=2.5,
    num_classes=11,
    seconds=60.0,
    train_seconds=50.0,
    images_per_second=100.0,
    images_seen=5000,
    data_fingerprint="ab" * 32,
    recipe=to_tree(SMALL),
    environment={"commit": "c" * 40, "dirty": False, "packages": {"torch": "2.7"}},
    by_class={"cat": 40.0},
    cells=["ladder/spinenet-49@embedded"],
)
FAILURE = asdict(Failure("NonFiniteLossError", "the loss", "Traceback"))
COUNTED = Complexity(1.5, 2.5, {"backbone": 1.0, "head": 0.5})
SEARCH = {"space": "spinenet", "controller": "random", "samples": 5, "lag": 2, "macs_m": 10.5}
SCORES = {
    "metrics": {"AP": 40.8},
    "by_class": {},
    "pictures": 5000,
    "data": {"kind": "coco", "fingerprint": "ab"},
    "recipe": to_tree(SMALL),
    "origin": METADATA["origin"] | {"model": "spinenet-49"},
}
HISTORY = "".join(
    json.dumps({"step": n, "loss/total": 1 / (n + 1)}) + "\n" for n in range(0, 40, 4)
)
CSV = "path,split,class\ntrain/a.png,train,cat\nval/b.png,val,cat\n"


def archive(form: str) -> bytes:
    packed = io.BytesIO()
    if form == "zip":
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as opened:
            for name, data in PICTURES.items():
                opened.writestr(name, data)
    else:
        with tarfile.open(fileobj=packed, mode="w:gz" if form == "tar.gz" else "w") as opened:
            for name, data in PICTURES.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                opened.addfile(member, io.BytesIO(data))
    return packed.getvalue()


KEYS = (
    "train.epochs optim.lr model.backbone data.source model.backbone.genotype model.kind seed data"
)
KEYS += " data.transform.scale_jitter optim.decay_before_end model.backbone.genotype.blocks eval"
KEYS += " train.start . train..epochs"

assignments = st.builds(
    lambda key, value: f"{key}={value}",
    st.sampled_from(KEYS.split()) | st.text(max_size=12),
    st.sampled_from(SPLINTERS) | damaged_tree({"kind": "digits"}).map(json.dumps) | st.text(),
)


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


def encoded(text: str) -> bytes:
    return text.encode(errors="replace")


def kinds() -> dict[str, Kind]:
    """All of them by name."""
    coco = [in_file("annotations.json", damaged_json(COCO), PICTURES)]
    sampled = st.sampled_from(["option:x", "2h", "1h30m", "90m", "1e9h", "9" * 500 + "h"])
    found = {
        "study": Kind(in_file("study.yaml", damaged_yaml(STUDY)), read_study, "study"),
        "profile": Kind(in_file("profile.yaml", damaged_yaml(PROFILE)), read_profile, "profile"),
        "recipe": Kind(in_file("recipe.yaml", damaged_yaml(RECIPE)), read_recipe, "recipe.yaml"),
        "genotype": Kind(
            in_file("genotype.yaml", damaged_yaml(genotypes.load("spinenet-49").to_mapping())),
            read_genotype,
            "genotype.yaml",
        ),
        "coco": Kind(coco[0], read_coco_folder),
        "coco, damaged left out": Kind(coco[0], read_damaged_coco),
        "csv": Kind(in_file("labels.csv", damaged_bytes(CSV.encode()), PICTURES), read_csv),
        "tf1 checkpoint": Kind(a_file_of(TF1), read_bundle, "model-7"),
        "tf2 checkpoint": Kind(a_file_of(TF2), read_bundle, "model-7"),
        "forged checkpoint": Kind(forged_bundles(TF2), read_bundle, "model-7"),
        "checkpoint note": Kind(
            in_file("checkpoint", st.sampled_from(NOTES).map(encoded) | st.binary(), TF1),
            read_bundle,
        ),
        "weights, bytes": Kind(
            in_file("weights.safetensors", damaged_bytes(weights(METADATA))),
            read_weights_file,
            "weights.safetensors",
        ),
        "weights, metadata": Kind(
            in_file("weights.safetensors", damaged_tree(METADATA).filter(is_mapping).map(weights)),
            read_weights_file,
            "weights.safetensors",
        ),
        "checkpoints": Kind(a_file_of(SAVED), read_latest, quiet=False),
        "last.ckpt, bytes": Kind(
            in_file("last.ckpt", damaged_bytes(checkpoint(CHECKPOINT))),
            read_checkpoint,
            "last.ckpt",
        ),
        "last.ckpt, content": Kind(
            in_file("last.ckpt", damaged_tree(CHECKPOINT).map(checkpoint)),
            read_checkpoint,
            "last.ckpt",
        ),
        "result": Kind(
            in_file(f"{RUN}/result.json", damaged_json(asdict(RESULT))), read_store, "result.json"
        ),
        "failure": Kind(in_file("failure.json", damaged_json(FAILURE)), read_run, "failure.json"),
        "history": Kind(
            in_file("history.jsonl", damaged_bytes(HISTORY.encode())), read_history, quiet=False
        ),
        "counts": Kind(
            in_file("counts.json", damaged_bytes(counting._text(COUNTED).encode())), read_counts
        ),
        "counts, values": Kind(
            in_file("counts.json", damaged_json(json.loads(counting._text(COUNTED)))), read_counts
        ),
        "search": Kind(in_file("search.json", damaged_json(SEARCH)), read_config, "search.json"),
        "scores": Kind(
            in_file("scores.json", damaged_json(SCORES)),
            lambda folder: read_scores(folder / "scores.json"),
            "scores.json",
        ),
        "assignment": Kind(in_file("assignment", assignments.map(encoded)), read_assignment),
        "options": Kind(in_file("option", (sampled | st.text()).map(encoded)), read_options),
    }
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"):
        name = f"picture.{form.lower()}"
        found[f"{form} picture"] = Kind(
            in_file(name, damaged_bytes(picture(form))), read_picture, name
        )
    for form in ("zip", "tar", "tar.gz"):
        name = f"archive.{form}"
        found[f"{form} archive"] = Kind(
            in_file(name, damaged_bytes(archive(form))), read_archive, name, quiet=False
        )
    return found
