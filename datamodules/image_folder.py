"""Pictures sorted into folders by class, as ImageNet is: root/{train,val}/CLASS/picture.jpg."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from datamodules.errors import DataError, MissingSplitError
from datamodules.labels import Listing, Row
from datamodules.layouts import has_coco

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class ImageFolderConfig:
    """A folder in ImageNet's layout; the classes are named and ordered by their folders' names."""

    kind: Literal["folder"] = "folder"
    root: str = ""
    """Folder with train/ and val/, each with one folder per class."""


def list_image_folder(root: Path, split: str) -> Listing:
    """The pictures of ``split``, "train" or "val", by class and name. Other files are left out."""
    folder = root / split
    if not folder.is_dir():
        found = ", ".join(sorted(p.name for p in root.glob("*"))[:12]) or "nothing"
        raise MissingSplitError(
            f"{folder}: no such folder, so split {split!r} is missing; {root} holds {found}; "
            f"{_hint(root)}rename or move the folders to {{train,val}}/CLASS/picture.jpg"
        )
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise DataError(
            f"{folder}: split {split!r} has no folder of a class; "
            f"{_hint(root)}put every picture into a folder named after its class"
        )
    rows = [Row(f"{name}/{file}", name) for name in names for file in _pictures(folder / name)]
    return Listing(folder, folder, rows, {name: name for name in names})


def _hint(root: Path) -> str:
    if has_coco(root):
        return "it looks like COCO's format: give coco:FOLDER and a detector; or "
    return "it has labels in a CSV file: give csv:FOLDER; or " if any(root.glob("*.csv")) else ""


def _pictures(folder: Path) -> list[str]:
    files = [
        p.name
        for p in folder.iterdir()
        if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
    ]
    if not files:
        raise DataError(
            f"{folder}: class {folder.name!r} of split {folder.parent.name!r} has no picture "
            f"({', '.join(sorted(SUFFIXES))}); add pictures or remove the folder"
        )
    return sorted(files)
