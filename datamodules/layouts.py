"""Which files of a folder are its splits in COCO's format: the common layouts, found by themselves.

For a split, by any of its usual words (train; val, valid, validation):

    annotations/instances_{train,val}2017.json   COCO's own, beside train2017/ and val2017/
    annotations/instances_{train,val}.json       beside images/ or {train,val}/
    annotations/{train,val}.json                 likewise
    {train,valid}/_annotations.coco.json         Roboflow's, beside the pictures
    annotations.json, instances_default.json     one file; its pictures' names say the split

Where several folders could hold a split's pictures, the first picture that the annotations name
decides. What stays ambiguous is refused: two candidates would be two different data sets.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from datamodules.errors import DataError

WORDS = {"train": ("train",), "val": ("val", "valid", "validation")}
PER_SPLIT = (
    "annotations/instances_{word}.json",
    "annotations/instances_{word}2017.json",
    "annotations/{word}.json",
    "{word}/_annotations.coco.json",
)
WHOLE = (
    "annotations.json",
    "_annotations.coco.json",
    "instances_default.json",
    "annotations/annotations.json",
    "annotations/instances.json",
    "annotations/instances_default.json",
)
PICTURES = ("images", "{word}", "{word}2017", "images/{word}", "images/{word}2017")
_SAID = {word: split for split, words in WORDS.items() for word in words} | {
    "training": "train",
    "test": "test",
    "testing": "test",
}
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')
_CHUNK_BYTES = 2**20


class SplitFiles(NamedTuple):
    """A split's annotation file and the folder from which its pictures' names count. ``part`` is
    the split's name where the file holds other splits too, and empty where it is the split's own.
    """

    annotations: Path
    images: Path
    part: str = ""


def find_split(folder: Path, split: str) -> SplitFiles:
    """The files of ``split`` ("train" or "val") in ``folder``."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; set the data's root to a folder in COCO format")
    found = _present(folder, _annotation_names(split))
    if not found and not any(_present(folder, _annotation_names(other)) for other in WORDS):
        found = _present(folder, WHOLE)
    if len(found) > 1:
        names = " and ".join(file.relative_to(folder).as_posix() for file in found)
        raise DataError(
            f"{folder}: split {split!r} is ambiguous: {names} could each be its annotations; "
            f"keep one of them in the folder"
        )
    if not found:
        raise DataError(_nothing_found(folder, split))
    (file,) = found
    part = split if file.relative_to(folder).as_posix() in WHOLE else ""
    return SplitFiles(file, _picture_folder(folder, file, split), part)


def split_of(file_name: str) -> str:
    """The split that a picture's name says: by one of its folders, else by its own first word, as
    in ``images/train/7.jpg`` or ``val_7.jpg``; empty where it says none.
    """
    *folders, name = PurePosixPath(file_name.replace("\\", "/")).parts
    words = [re.sub(r"\d+$", "", part.lower()) for part in folders]
    words.append(re.split(r"[^a-z]", PurePosixPath(name).stem.lower())[0])
    return next((_SAID[word] for word in words if word in _SAID), "")


def has_coco(folder: Path) -> bool:
    """Whether some annotation file of a split lies where COCO's format has it."""
    names = [name for split in WORDS for name in _annotation_names(split)]
    return bool(_present(folder, (*names, *WHOLE)))


def looks_like(folder: Path) -> str:
    """What a folder that is not in COCO's format seems to be instead, with the way out; empty where
    nothing is recognised.
    """
    if any(folder.glob("*.csv")):
        return "it looks like labels in a CSV file: give csv:FOLDER and a classifier"
    if any(folder.glob("data.y*ml")) or any(folder.glob("labels/**/*.txt")):
        return "it looks like YOLO's layout: export it in COCO format"
    if any(folder.glob("Annotations/*.xml")) or any(folder.glob("*/*.xml")):
        return "it looks like Pascal VOC's layout: export it in COCO format"
    pictures = (p for p in folder.glob("train/*/*") if p.suffix.lower() in (".jpg", ".png"))
    if any(pictures):
        return "it looks like a folder per class: give folder:FOLDER and a classifier"
    return ""


def _annotation_names(split: str) -> list[str]:
    return [pattern.format(word=word) for pattern in PER_SPLIT for word in WORDS[split]]


def _present(folder: Path, names: Iterable[str]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]


def _picture_folder(folder: Path, file: Path, split: str) -> Path:
    """The folder from which the pictures' names in ``file`` count."""
    if file.name == "_annotations.coco.json":
        return file.parent
    names = list(dict.fromkeys(p.format(word=word) for p in PICTURES for word in WORDS[split]))
    there = [name for name in names if (folder / name).is_dir()]
    first = _first_picture(file)
    holders = [name for name in (*there, ".") if first and (folder / name / first).is_file()]
    if len({(folder / name / first).resolve() for name in holders}) > 1:  # a link is no other one
        raise DataError(
            f"{file}: its first picture, {first}, is in {' and in '.join(holders)} of {folder}, so "
            f"where split {split!r} has its pictures is ambiguous; keep one of these folders"
        )
    if not holders and not there:
        looked_for = ", ".join(f"{name}/" for name in names)
        raise DataError(
            f"{file}: its first picture, {first or 'none'}, is not in {folder}, and there is no "
            f"folder of pictures for split {split!r}; looked for {looked_for}; put them into one"
        )
    return folder / (holders or there)[0]


def _first_picture(file: Path) -> str:
    """The first file name in an annotation file, without reading more than is needed for it."""
    kept = b""
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            kept = kept[-4096:] + chunk  # a name may lie across two chunks
            if match := _FILE_NAME.search(kept):
                try:
                    return str(json.loads(match[1]))
                except ValueError:  # not UTF-8: the reader says so
                    return ""
    return ""


def _nothing_found(folder: Path, split: str) -> str:
    words = f"{{{','.join(WORDS[split])}}}" if len(WORDS[split]) > 1 else split
    looked_for = ", ".join(pattern.format(word=words) for pattern in PER_SPLIT)
    entries = sorted(p.relative_to(folder).as_posix() for p in folder.glob("*"))
    entries += sorted(p.relative_to(folder).as_posix() for p in folder.glob("annotations/*"))
    seems = looks_like(folder)
    return (
        f"{folder}: split {split!r} not found; looked for {looked_for}, or one file of all splits, "
        f"{', '.join(WHOLE)}; the folder holds {', '.join(entries[:12]) or 'nothing'}; "
        f"{f'{seems}; or ' if seems else ''}rename or move the files to one of these layouts"
    )
