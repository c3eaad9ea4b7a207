"""Good inputs of every kind, small: what the fuzz then damages."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from experiments.checkpoints import DIGITS
from experiments.compose import from_tree, load_recipe, override
from experiments.recipe import to_tree
from experiments.store import CHECKPOINTS, Failure, Result
from spinenet.checkpoints.object_graph import GRAPH, VALUE
from spinenet.counts import Complexity
from tests.spinenet.checkpoints.bundle_writer import object_graph

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


def picture(form: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, form)
    return packed.getvalue()


PICTURES = {"train/a.png": picture("PNG"), "val/b.png": picture("PNG")}


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
        f"{CHECKPOINTS}/{step:08d}-{hashlib.sha256(content).hexdigest()[:DIGITS]}.ckpt": content
        for step, content in steps.items()
    }


SAVED = saved({10: checkpoint(CHECKPOINT | {"global_step": 10}), 20: checkpoint(CHECKPOINT)})


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
