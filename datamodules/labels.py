"""Labelled pictures: what every classification source comes down to.

A source gives a ``Listing`` per split, rows of (picture file, class); ``class_index`` checks it and
makes the ``ClassIndex`` that a dataset reads. The classes are those that training shows, so a label
means the same in both splits.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from datamodules.damage import Damage, OnError, unreadable
from datamodules.errors import DataError

Region = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the stored picture."""


class Row(NamedTuple):
    """One sample: the picture file, the source's key of its class, and the part that counts."""

    file_name: str
    key: str
    region: Region | None = None


@dataclass(frozen=True, eq=False)
class Listing:
    """What a source says of one split.

    ``origin`` is the file or folder that says it, ``names`` the classes by key, in their order.
    ``left_out`` has a complaint about each damaged picture that is not among the rows.
    """

    origin: Path
    image_dir: Path
    rows: list[Row]
    names: dict[str, str]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelledPicture:
    """One picture, or the ``region`` of it that counts, and its class 0..K-1."""

    file_name: str
    class_number: int
    size_bytes: int
    region: Region | None = None


@dataclass(frozen=True, eq=False)
class ClassIndex:
    """The samples of one split, checked; ``class_names`` by number. ``left_out`` has a complaint
    about each damaged picture that is not among them.
    """

    origin: Path
    image_dir: Path
    pictures: tuple[LabelledPicture, ...]
    class_names: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    def path(self, picture: LabelledPicture) -> Path:
        return self.image_dir / picture.file_name


def class_index(listing: Listing, train: Listing, on_error: OnError = "raise") -> ClassIndex:
    """The index of one split; ``train`` says which classes there are. ``on_error`` "skip" leaves
    out pictures whose files are missing.
    """
    for split in (listing, train):
        if not split.rows:
            raise DataError(f"{split.origin}: no picture has a label; label at least one")
    shown = {row.key for row in train.rows}
    classes = [key for key in train.names if key in shown]
    _refuse_other_classes(listing, train, shown)
    sizes = _sizes(listing, damage := Damage(on_error))
    numbers = {key: number for number, key in enumerate(classes)}
    pictures = tuple(
        LabelledPicture(row.file_name, numbers[row.key], sizes[row.file_name], row.region)
        for row in listing.rows
        if damage.spares(row.file_name)
    )
    class_names = tuple(train.names[key] for key in classes)
    left_out = (*listing.left_out, *damage.complaints.values())
    return ClassIndex(listing.origin, listing.image_dir, pictures, class_names, left_out)


def without_unreadable(index: ClassIndex, read: Callable[[LabelledPicture], object]) -> ClassIndex:
    """The index without the samples that ``read`` cannot decode; all are tried."""
    bad = unreadable(index.pictures, read)
    pictures = tuple(picture for i, picture in enumerate(index.pictures) if i not in bad)
    return replace(index, pictures=pictures, left_out=(*index.left_out, *bad.values()))


def _refuse_other_classes(listing: Listing, train: Listing, shown: set[str]) -> None:
    for key, count in Counter(row.key for row in listing.rows).items():
        if key not in shown:
            raise DataError(
                f"{listing.origin}: class {key!r} ({listing.names[key]}) occurs {count} times here "
                f"and never in training ({train.origin}); add training pictures of it or remove "
                f"these"
            )
        if listing.names[key] != train.names[key]:
            raise DataError(
                f"{listing.origin}: class {key!r} is named {listing.names[key]!r} here and "
                f"{train.names[key]!r} in {train.origin}; both must list the same classes"
            )


def _sizes(listing: Listing, damage: Damage) -> dict[str, int]:
    """Bytes of every picture file."""
    sizes: dict[str, int] = {}
    missing: list[str] = []
    for name in dict.fromkeys(row.file_name for row in listing.rows):
        try:
            sizes[name] = (listing.image_dir / name).stat().st_size
        except (OSError, ValueError):  # also a name that no file can have
            missing.append(name)
    if missing and damage.on_error == "raise":
        raise DataError(
            f"{listing.origin}: {len(missing)} of {len(missing) + len(sizes)} pictures are missing "
            f"in {listing.image_dir}: {', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}; "
            f"add the files or remove their entries"
        )
    for name in missing:
        damage.take(DataError(f"{listing.image_dir / name}: missing"), name)
    return sizes


def labels_fingerprint(indices: Iterable[ClassIndex]) -> str:
    """SHA-256 of the class names and of every sample's file name, class, size in bytes and region.

    Independent of where the folder lies.
    """
    digest = hashlib.sha256()
    for index in indices:
        digest.update(json.dumps(index.class_names).encode())
        for p in index.pictures:
            row = (p.file_name, p.class_number, p.size_bytes, p.region)
            digest.update(json.dumps(row).encode())
    return digest.hexdigest()
