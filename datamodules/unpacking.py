"""Archives into folders: whole or not at all, and never outside of the folder.

Each archive is unpacked into a folder of its own beside its destination and then moved, so what is
in its place is complete. ImageNet's are archives of archives, without the labels of the validation
pictures; torchvision's readers know them, and check their md5 before opening them.
"""

import errno
import lzma
import shutil
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile, ZipFile

from datamodules.errors import DataError
from datamodules.staging import staged

Form = Literal["tree", "flat", "imagenet-train", "imagenet-val"]
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
# Python's own care against archives that mean harm, where it has it: from 3.11.4 on.
# What Python's readers raise on archives that are cut off, damaged or of a kind they do not read.
DAMAGED: tuple[type[Exception], ...] = (BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError)
DAMAGED += (struct.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError)
DAMAGED += (OverflowError,)
SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def unpack(archive: Path, folder: Path, form: Form) -> None:
    """Unpack ``archive`` into ``folder``: as the ``tree`` that it is, or ``flat``, every file by
    its name alone; or in one of ImageNet's two ways.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with staged(folder, ".unpacking-") as staging:
            _READERS[form](archive, staging)
            _move_into(staging, folder)
    except DataError:
        raise
    except DAMAGED as error:
        if getattr(error, "errno", None) not in (None, errno.EINVAL):
            raise  # the disk's, not the archive's
        raise DataError(
            f"{archive}: not an archive that can be unpacked ({error}); remove it and get it again"
        ) from error


def _tree(archive: Path, staging: Path) -> None:
    if archive.suffix == ".zip":
        with ZipFile(archive) as opened:
            for name in opened.namelist():
                _refuse_outside(name, staging)
            opened.extractall(staging)
        return
    with tarfile.open(archive) as opened:
        for member in opened:
            _refuse_outside(member.name, staging)
            if not (member.isreg() or member.isdir()):
                raise tarfile.TarError(f"{member.name!r} is neither a file nor a folder")
            opened.extract(member, staging, **SAFELY)
        while opened.fileobj is not None and opened.fileobj.read(2**20):
            pass  # to the end, where a compressed archive has its checksum


def _refuse_outside(name: str, staging: Path) -> None:
    if not (staging / name).resolve().is_relative_to(staging.resolve()):
        raise tarfile.TarError(f"{name!r} would be outside of the folder")


def _flat(archive: Path, staging: Path) -> None:
    inside = staging / "tree"
    _tree(archive, inside)
    for file in [p for p in inside.rglob("*") if p.is_file()]:
        file.rename(staging / file.name)
    shutil.rmtree(inside)


def _imagenet_train(archive: Path, staging: Path) -> None:
    from torchvision.datasets.imagenet import parse_train_archive

    _parsed(parse_train_archive, staging, archive)


def _imagenet_val(archive: Path, staging: Path) -> None:
    from torchvision.datasets.imagenet import META_FILE, parse_devkit_archive, parse_val_archive

    _parsed(parse_devkit_archive, staging, archive.parent / DEVKIT)
    _parsed(parse_val_archive, staging, archive)
    (staging / META_FILE).unlink()


def _parsed(parse: Callable[[Path, str], None], staging: Path, archive: Path) -> None:
    try:
        parse(staging, str(archive.resolve()))
    except RuntimeError as error:  # what it says of a missing or damaged archive
        raise DataError(f"{archive}: {error}") from None


def _move_into(staging: Path, folder: Path) -> None:
    """Everything in ``staging`` into ``folder``; folders that are there already are filled up."""
    for entry in list(staging.iterdir()):
        there = folder / entry.name
        if entry.is_dir() and there.is_dir():
            _move_into(entry, there)
        else:
            entry.replace(there)


_READERS: dict[Form, Callable[[Path, Path], None]] = {
    "tree": _tree,
    "flat": _flat,
    "imagenet-train": _imagenet_train,
    "imagenet-val": _imagenet_val,
}
