"""The paper's data sets on disk: fetched where they may be, unpacked, and counted.

What is in its place already is left alone, so ``prepare`` can be called as often as one likes, also
on a folder that came about otherwise. It ends with the counts that the data sets publish.

Sources: sizes and md5 of COCO's files as many mirrors state them; ImageNet's as torchvision has
them; iNaturalist's md5 from the competition's page (visipedia/inat_comp, 2017).
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from datamodules.downloads import RemoteFile, arrived, check, fetch
from datamodules.errors import DataError
from datamodules.image_folder import ImageFolderConfig
from datamodules.inaturalist import INaturalistBoxesConfig, INaturalistConfig
from datamodules.opening import open_data
from datamodules.sources import CocoFolderConfig
from datamodules.survey import survey
from datamodules.unpacking import DEVKIT, Form, unpack

ARCHIVES = "archives"  # the folder inside the data set's where archives are kept
COCO_HOST = "http://images.cocodataset.org"
INATURALIST_HOST = "https://ml-inat-competition-datasets.s3.amazonaws.com/2017"


@dataclass(frozen=True)
class Archive:
    """An archive, and the path that is there once it is unpacked. Without a ``form`` it is only
    needed beside another one.
    """

    file: RemoteFile
    makes: str
    form: Form | None = "tree"


@dataclass(frozen=True)
class Count:
    """What a source must have: pictures, or samples, of training and validation, and classes."""

    source: CocoFolderConfig | ImageFolderConfig | INaturalistConfig | INaturalistBoxesConfig
    train: int
    val: int
    classes: int


@dataclass(frozen=True)
class DataSet:
    """A published data set. ``page`` is where to get what cannot be fetched from here."""

    name: str
    page: str
    archives: tuple[Archive, ...]
    counts: tuple[Count, ...]


Say = Callable[[str], None]
Watch = Callable[[str, int, int], None]
"""Hears the file's name, the bytes that have come and those there are."""


def prepare(
    data: DataSet, folder: Path, *, mirror: str | None, say: Say, watch: Watch
) -> list[str]:
    """Make ``folder`` hold the data set; a line for each thing counted. ``mirror`` is an address
    that has the archives under their own names.
    """
    missing = [archive for archive in data.archives if not (folder / archive.makes).exists()]
    _get(data, [archive.file for archive in missing], folder / ARCHIVES, mirror, say, watch)
    for archive in missing:
        if archive.form is not None:
            say(f"unpacking {archive.file.name}")
            unpack(folder / ARCHIVES / archive.file.name, folder, archive.form)
    say("counting")
    return list(verify(data, folder))


def verify(data: DataSet, folder: Path) -> Iterator[str]:
    """Count what is in ``folder``. Raises DataError where it is not the data set."""
    for expected in data.counts:
        source = replace(expected.source, root=str(folder))
        found = survey(open_data(source))
        here = Count(
            expected.source,
            found.splits["train"].pictures,
            found.splits["val"].pictures,
            len(found.per_class),
        )
        if here != expected:
            raise DataError(
                f"{folder} ({source.kind}): {_said(here)}, and {data.name} has {_said(expected)}; "
                f"remove what is incomplete and run the command again"
            )
        yield f"{data.name}: {_said(here)} as {source.kind}:{folder}"


def _said(count: Count) -> str:
    samples = f"{count.train:,} training and {count.val:,} validation samples"
    return f"{samples} of {count.classes:,} classes"


def _get(
    data: DataSet, files: list[RemoteFile], folder: Path, mirror: str | None, say: Say, watch: Watch
) -> None:
    """Have the files in ``folder``, checked: those that lie there, and the others fetched."""
    if mirror is not None:
        files = [replace(file, url=f"{mirror.rstrip('/')}/{file.name}") for file in files]
    absent = [file for file in files if not (folder / file.name).is_file()]
    for file in files:
        if file not in absent:
            say(f"checking {file.name}")
            check(file, folder / file.name)
    _refuse_full_disk(files, folder)
    for i, file in enumerate(absent):
        if file.url is None:
            raise DataError(f"{data.name} needs an account: {_by_hand(data, absent[i:], folder)}")
        try:
            say(f"fetching {file.name}")
            fetch(file, folder / file.name, partial(watch, file.name))
        except DataError as error:
            raise DataError(f"{error}; {_by_hand(data, absent[i:], folder)}") from None


def _by_hand(data: DataSet, files: list[RemoteFile], folder: Path) -> str:
    listed = ", ".join(f"{f} from {f.url}" if f.url else str(f) for f in files)
    return (
        f"get {listed} wherever there is a way ({data.page}), put them into {folder} and run the "
        f"command again"
    )


def _refuse_full_disk(files: list[RemoteFile], folder: Path) -> None:
    """What is still to come of the archives, and what comes out of them, which is about as much as
    they have, must fit.
    """
    needed = 0
    for file in files:
        here = arrived(folder / file.name)
        if here or file.url:
            whole = max(file.size_bytes or 0, here)
            needed += whole - here + whole
    there = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise DataError(
            f"{folder}: {free / 1e9:.1f} GB are free and about {needed / 1e9:.1f} GB needed; make "
            f"room or choose another folder"
        )


def _coco(name: str, path: str, makes: str, size_bytes: int, md5: str) -> Archive:
    return Archive(RemoteFile(name, f"{COCO_HOST}/{path}/{name}", size_bytes, md5), makes)


def _inaturalist(name: str, makes: str, md5: str | None, form: Form) -> Archive:
    return Archive(RemoteFile(name, f"{INATURALIST_HOST}/{name}", None, md5), makes, form)


def _imagenet(name: str, makes: str, form: Form | None, size_bytes: int | None = None) -> Archive:
    return Archive(RemoteFile(name, None, size_bytes), makes, form)


DATA_SETS = {
    "coco": DataSet(
        name="COCO 2017",
        page="https://cocodataset.org/#download",
        archives=(
            _coco(
                "annotations_trainval2017.zip",
                "annotations",
                "annotations/instances_val2017.json",
                252907541,
                "f4bbac642086de4f52a3fdda2de5fa2c",
            ),
            _coco("val2017.zip", "zips", "val2017", 815585330, "442b8da7639aecaf257c1dceb8ba8c80"),
            _coco(
                "train2017.zip",
                "zips",
                "train2017",
                19336861798,
                "cced6f7f71b7629ddf16f17bbcfab6b2",
            ),
        ),
        counts=(Count(CocoFolderConfig(), 118287, 5000, 80),),
    ),
    "imagenet": DataSet(
        name="ImageNet (ILSVRC 2012)",
        page="https://image-net.org/download-images",
        archives=(
            _imagenet(DEVKIT, "val", None),
            _imagenet("ILSVRC2012_img_val.tar", "val", "imagenet-val", 6744924160),
            _imagenet("ILSVRC2012_img_train.tar", "train", "imagenet-train", 147897477120),
        ),
        counts=(Count(ImageFolderConfig(), 1281167, 50000, 1000),),
    ),
    "inaturalist": DataSet(
        name="iNaturalist 2017",
        page="https://github.com/visipedia/inat_comp/tree/master/2017",
        archives=(
            _inaturalist(
                "train_val2017.zip", "train2017.json", "444c835f6459867ad69fcb36478786e7", "flat"
            ),
            _inaturalist(
                "train_2017_bboxes.zip",
                "train_2017_bboxes.json",
                "761c954e69bf23d87c5d0d0c68d79bd5",
                "flat",
            ),
            _inaturalist("val_2017_bboxes.zip", "val_2017_bboxes.json", None, "flat"),
            _inaturalist(
                "train_val_images.tar.gz",
                "train_val_images",
                "7c784ea5e424efaec655bd392f87301f",
                "tree",
            ),
        ),
        counts=(
            Count(INaturalistConfig(), 579184, 95986, 5089),
            Count(INaturalistBoxesConfig(), 496164, 48736, 2854),
        ),
    ),
}
