"""Everything that is read from a user's disk: its damaged forms, and its reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from experiments import counting
from experiments.ledger.checkpoints import read_scores
from experiments.search.config import read_config
from spinenet import genotype as genotypes
from spinenet.checkpoints.object_graph import GRAPH
from tests.fuzz.damage import (
    SPLINTERS,
    damaged_bytes,
    damaged_json,
    damaged_tree,
    damaged_yaml,
)
from tests.fuzz.originals import (
    CHECKPOINT,
    COCO,
    COUNTED,
    CSV,
    FAILURE,
    HISTORY,
    METADATA,
    NAMES,
    PICTURES,
    PROFILE,
    RECIPE,
    RESULT,
    RUN,
    SAVED,
    SCORES,
    SEARCH,
    STUDY,
    TF1,
    TF2,
    Files,
    archive,
    checkpoint,
    picture,
    weights,
)
from tests.fuzz.readers import (
    read_archive,
    read_assignment,
    read_bundle,
    read_checkpoint,
    read_coco_folder,
    read_counts,
    read_csv,
    read_damaged_coco,
    read_genotype,
    read_history,
    read_latest,
    read_options,
    read_picture,
    read_profile,
    read_recipe,
    read_run,
    read_store,
    read_study,
    read_weights_file,
)
from tests.spinenet.checkpoints.bundle_writer import message, table_bytes, varint


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


def is_mapping(tree: Any) -> bool:
    return isinstance(tree, dict)


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


def encoded(text: str) -> bytes:
    return text.encode(errors="replace")


def kinds() -> dict[str, Kind]:
    """All of them by name."""
    return {**written(), **tensors(), **kept(), **said(), **packed()}


def written() -> dict[str, Kind]:
    """What people write: YAML, and annotations."""
    coco = [in_file("annotations.json", damaged_json(COCO), PICTURES)]
    return {
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
    }


def tensors() -> dict[str, Kind]:
    """Checkpoints and weights."""
    return {
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
    }


def kept() -> dict[str, Kind]:
    """What runs, searches and caches leave behind."""
    return {
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
    }


def said() -> dict[str, Kind]:
    """What is given on the command line."""
    sampled = st.sampled_from(["option:x", "2h", "1h30m", "90m", "1e9h", "9" * 500 + "h"])
    return {
        "assignment": Kind(in_file("assignment", assignments.map(encoded)), read_assignment),
        "options": Kind(in_file("option", (sampled | st.text()).map(encoded)), read_options),
    }


def packed() -> dict[str, Kind]:
    """Pictures and archives."""
    found = {}
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
