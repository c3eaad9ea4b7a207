"""A TensorFlow checkpoint as a mapping from names to tensors: the "tensor bundle" format.

`PREFIX.index` is a sorted table from each tensor's name to its type, shape, place and checksum;
`PREFIX.data-00000-of-0000N` hold the values, one after the other (tensorflow: core/protobuf/
tensor_bundle.proto). Both TensorFlow 1's Saver and TensorFlow 2's Checkpoint write it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import google_crc32c
import torch
from torch import Tensor

from spinenet.checkpoints.errors import CheckpointError
from spinenet.checkpoints.sorted_table import AGAIN, read_table, unmask
from spinenet.checkpoints.wire import WireError, numbers, parts, varint

# Numbers of TensorFlow's types (core/framework/types.proto).
STRING = 7
DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    19: torch.float16,
}


@dataclass(frozen=True)
class Entry:
    """Where a tensor is: its TensorFlow type, shape, shard, place in it and masked checksum."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    sliced: bool


class Bundle:
    """An opened checkpoint. Values are read when asked for, and checked against their checksums.

    `path` is the checkpoint's prefix, one of its files, or the folder that holds it. Raises
    CheckpointError when there is none, or when what is there is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.prefix = find_prefix(path)
        self.index = Path(f"{self.prefix}.index")
        table = read_table(self.index)
        try:
            header = numbers(table.pop(b"", b""))
            self.entries = {key.decode(): _entry(value) for key, value in table.items()}
        except (WireError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{self.index}: damaged: {error}; {AGAIN}") from None
        self.shards = header.get(1, 0)
        if header.get(2, 0) != 0:
            raise CheckpointError(f"{self.index}: written big-endian; convert it with TensorFlow")

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, which is known without reading it."""
        return self.entries[name].shape

    def tensor(self, name: str) -> Tensor:
        """The values of a tensor in the layout of TensorFlow."""
        entry = self.entries[name]
        dtype = self._dtype(name, entry)
        data = self._bytes(name, entry)
        self._check(name, google_crc32c.value(bytes(data)), entry)
        if not data:
            return torch.empty(entry.shape, dtype=dtype)
        return torch.frombuffer(data, dtype=dtype).reshape(entry.shape)

    def text(self, name: str) -> bytes:
        """The one string of a scalar of strings."""
        entry = self.entries[name]
        if entry.dtype != STRING or entry.shape:
            raise CheckpointError(f"{self.index}: {name} is not a single string")
        data = bytes(self._bytes(name, entry))
        try:
            length, at = varint(data, 0)
        except WireError as error:
            raise CheckpointError(f"{self.index}: damaged: {name}: {error}; {AGAIN}") from None
        # The checksum runs over the length as a fixed number, that number's own, and the string.
        fixed = length.to_bytes(4 if length < 2**32 else 8, "little")
        self._check(name, google_crc32c.value(fixed + data[at:]), entry)
        return data[at + 4 :]

    def _dtype(self, name: str, entry: Entry) -> torch.dtype:
        """The type of a tensor that is stored whole, as all weights are."""
        dtype = DTYPES.get(entry.dtype)
        if entry.sliced:
            raise CheckpointError(
                f"{self.index}: {name} is stored in slices (a partitioned variable); "
                "save the checkpoint without partitioning"
            )
        if dtype is None:
            raise CheckpointError(
                f"{self.index}: {name} has TensorFlow's type {entry.dtype}, which no weight has"
            )
        if entry.size != prod(entry.shape) * dtype.itemsize:
            raise CheckpointError(
                f"{self.index}: damaged: {name} of shape {list(entry.shape)} has {entry.size} "
                f"bytes; {AGAIN}"
            )
        return dtype

    def _bytes(self, name: str, entry: Entry) -> bytearray:
        shard = Path(f"{self.prefix}.data-{entry.shard:05d}-of-{self.shards:05d}")
        if not shard.is_file():
            raise CheckpointError(
                f"{shard}: no such file; the checkpoint {self.prefix.name} has {self.shards} data "
                "file(s), keep them beside its index"
            )
        if entry.offset + entry.size > (there := shard.stat().st_size):
            raise CheckpointError(
                f"{shard}: cut short: {name} needs bytes {entry.offset} to "
                f"{entry.offset + entry.size}, the file has {there}; {AGAIN}"
            )
        with shard.open("rb") as file:
            file.seek(entry.offset)
            return bytearray(file.read(entry.size))

    def _check(self, name: str, found: int, entry: Entry) -> None:
        if found != unmask(entry.crc):
            raise CheckpointError(
                f"{self.prefix}: damaged: wrong checksum of {name} in data file {entry.shard}; "
                f"{AGAIN}"
            )


def find_prefix(path: Path) -> Path:
    """The prefix that all files of a checkpoint share, given it, one of them or their folder."""
    if path.is_dir():
        return _latest(path)
    prefix = path.with_name(re.sub(r"\.(index|data-\d+-of-\d+)$", "", path.name))
    if not Path(f"{prefix}.index").is_file():
        raise CheckpointError(
            f"{path}: no TensorFlow checkpoint here ({prefix.name}.index is missing); give its "
            "prefix, its .index file or its folder, an archive unpacked"
        )
    return prefix


def _latest(folder: Path) -> Path:
    """The checkpoint that the folder's `checkpoint` file names, else the one of the last step."""
    note = folder / "checkpoint"
    named = re.search(r'^model_checkpoint_path: "(.+)"', _read(note), re.MULTILINE)
    name = Path(named[1]).name if named else ""  # on the machine that wrote it
    if name not in ("", ".."):
        return find_prefix(folder / name)  # the files lie beside the note
    found = sorted(sorted(folder.glob("*.index")), key=_step)
    if not found:
        raise CheckpointError(
            f"{folder}: no TensorFlow checkpoint in this folder (no .index file); "
            "give the folder that holds one"
        )
    if len(found) > 1 and _step(found[-1]) == _step(found[-2]):
        raise CheckpointError(
            f"{folder}: several checkpoints ({found[-2].name}, {found[-1].name}) and nothing that "
            "says which; give the .index file"
        )
    return found[-1].with_suffix("")


def _read(note: Path) -> str:
    return note.read_text(encoding="utf-8", errors="replace") if note.is_file() else ""


def _step(index: Path) -> int:
    numbered = re.search(r"-(\d+)\.index$", index.name)
    return int(numbered[1]) if numbered else -1


def _entry(message: bytes) -> Entry:
    values = numbers(message)
    dimensions = [d for shape in parts(message, 2) for d in parts(shape, 2)]
    return Entry(
        dtype=values.get(1, 0),
        shape=tuple(numbers(d).get(1, 0) for d in dimensions),
        shard=values.get(3, 0),
        offset=values.get(4, 0),
        size=values.get(5, 0),
        crc=values.get(6, 0),
        sliced=bool(parts(message, 7)),
    )
