"""Runs out of a store and into another: as a folder or as one `.tar.gz`, with checksums.

    manifest.json              schema version; of each run its files, their SHA-256 and sizes
    <name>-<run id>/...        the run's files: no checkpoints, and weights only when asked

What comes in is read before it is taken: the archive's names, every checksum, every file by its
kind, and whether the id is that of the recipe on its data. A complete run is never replaced. A
plain folder of runs, such as a store or `results/embedded`, comes in the same way.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from experiments.compose import from_tree, read_yaml
from experiments.errors import UserError
from experiments.leases import HeldError, clear, lock
from experiments.recipe import run_id
from experiments.store import RUN_FOLDER, Result, Store, read_result, sync, write_atomically

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
RESULT = "result.json"
TEXTS = ("environment.json", "recipe.yaml", "history.jsonl", "train.log", "output.log")
FOUND = ("detections.json", "ranks.json")
WEIGHTS = ("weights.safetensors", "best.safetensors")
KNOWN = (*TEXTS, *FOUND, *WEIGHTS, RESULT)  # the result last: it completes a run
STAGING = ".importing-"  # the beginning of the name of a folder that an archive is unpacked in
SUFFIXES = (".tar.gz", ".tgz")

Files = dict[str, dict[str, Any]]  # a run's files: name → sha256, bytes


@dataclass(frozen=True)
class Taken:
    """What became of one run that came in, and why where it was left out."""

    folder: str
    outcome: Literal["imported", "skipped", "refused"]
    why: str = ""


def choose(store: Store, patterns: Iterable[str]) -> list[Path]:
    """The folders of complete runs whose name or id matches one of the patterns; all without any.
    Raises UserError for a pattern that matches none.
    """
    complete = [folder for folder in store.folders() if (folder / RESULT).is_file()]
    wanted = list(patterns) or ["*"]
    chosen: dict[Path, None] = {}
    for pattern in wanted:
        found = [f for f in complete if fnmatch(f.name, pattern) or f.name.endswith(f"-{pattern}")]
        if not found:
            raise UserError(f"{pattern}: no complete run in {store.root} has this name or id")
        chosen |= dict.fromkeys(found)
    return list(chosen)


def export_runs(folders: Sequence[Path], target: Path, *, weights: bool) -> int:
    """Write complete runs to `target`, an archive if it is called so, else a folder; its bytes.
    Raises UserError for a run that cannot be read, and rather than write over anything.
    """
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise UserError(f"{target}: exists; give another name, or remove it")
    names = [name for name in KNOWN if weights or name not in WEIGHTS]
    runs: dict[str, Files] = {}
    for folder in folders:
        read_result(folder)  # says what is wrong with it
        runs[folder.name] = {n: _facts(folder / n) for n in names if (folder / n).is_file()}
    sources = {folder.name: folder for folder in folders}
    manifest = json.dumps({"schema_version": SCHEMA_VERSION, "runs": runs}, indent=1)
    write = _write_archive if target.name.endswith(SUFFIXES) else _write_folder
    target.parent.mkdir(parents=True, exist_ok=True)
    write(
        target, manifest, {f"{r}/{n}": sources[r] / n for r, files in runs.items() for n in files}
    )
    return sum(facts["bytes"] for files in runs.values() for facts in files.values())


def import_runs(source: Path, store: Store) -> Iterator[Taken]:
    """Take in the runs of an archive or folder, one by one. Raises UserError where the source as a
    whole cannot be trusted; then nothing is taken.
    """
    store.root.mkdir(parents=True, exist_ok=True)
    if not source.is_file():
        yield from _take_all(source, source, store)
        return
    staging = Path(tempfile.mkdtemp(prefix=STAGING, dir=store.root))
    try:
        with lock(staging, doing="importing from it"):  # or it would pass for abandoned
            _extract(source, staging)
            yield from _take_all(staging, source, store)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _take_all(root: Path, source: Path, store: Store) -> Iterator[Taken]:
    runs = _manifest(root, source)
    for folder in _run_folders(root, source):
        yield _take(folder, None if runs is None else runs.get(folder.name, {}), store)


def _take(folder: Path, files: Files | None, store: Store) -> Taken:
    """One run into the store, unless something is wrong with it or its place is taken."""
    try:
        result = _checked(folder, files)
        target = store.find(result.run_id) or store.root / folder.name
        with lock(target):
            if (there := read_result(target)) is None:
                _install(folder, target)
        clear(target)
    except HeldError:
        return Taken(folder.name, "skipped", "it is being trained here")
    except UserError as error:
        return Taken(folder.name, "refused", str(error).replace(f"{folder}{os.sep}", ""))
    if there is None:
        return Taken(folder.name, "imported")
    same = "is here already" if there == result else "another result of it is here"
    return Taken(folder.name, "skipped", f"{same}, and stays")


def _install(folder: Path, target: Path) -> None:
    """The run's files, each whole or not at all; the result is the last."""
    for name in KNOWN:
        if (folder / name).is_file():
            draft = target / f".{name}-{os.getpid()}"
            shutil.copyfile(folder / name, draft)
            sync(draft)
            os.replace(draft, target / name)
    (target / "failure.json").unlink(missing_ok=True)


def _checked(folder: Path, files: Files | None) -> Result:
    """The result of a run all of whose files are what they should be. Raises UserError."""
    _refuse_unlisted(folder, files)
    result = read_result(folder)
    if result is None:
        raise UserError(f"{RESULT}: there is none, so the run is not complete")
    recipe = from_tree(result.recipe, origin=f"{RESULT}: recipe")
    identity = run_id(recipe, result.data_fingerprint)
    if not result.run_id == identity == folder.name.rpartition("-")[2]:
        raise UserError(
            f"{RESULT}: run_id: {result.run_id}, while this version gives the recipe on its data "
            f"{identity}; the run is of another version, or was changed"
        )
    for path in folder.iterdir():
        if path.name in KNOWN:
            _read(path)
    return result


def _refuse_unlisted(folder: Path, files: Files | None) -> None:
    """Compare a run's files with what the manifest says of them."""
    for path in folder.iterdir():
        if path.is_symlink():
            raise UserError(f"{path.name}: is a link; only files are taken")
    if files is None:
        return
    for name, facts in files.items():
        path = folder / name
        if name not in KNOWN or not path.is_file() or _facts(path) != facts:
            raise UserError(f"{name}: is not what {MANIFEST} says; export the run again")
    if unlisted := {p.name for p in folder.iterdir() if p.name in KNOWN} - files.keys():
        raise UserError(f"{min(unlisted)}: is not in {MANIFEST}; export the run again")


def _read(path: Path) -> None:
    """Read a file by its kind. Raises UserError where it is of another."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_bytes())
        elif path.suffix == ".jsonl":
            for line in path.read_text().splitlines():
                json.loads(line)
        elif path.suffix == ".yaml":
            read_yaml(path)
        elif path.suffix == ".safetensors":
            from experiments.weights import read_weights

            read_weights(path)
        else:
            path.read_text()
    except (ValueError, RecursionError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path.name}: cannot be read: {error}") from None


def _manifest(root: Path, source: Path) -> dict[str, Files] | None:
    """The runs that the manifest lists; None where there is none, as in a plain store."""
    path = root / MANIFEST
    if not path.is_file():
        if source.is_file():
            raise UserError(
                f"{source}: has no {MANIFEST}; give an archive of `spinenet runs export`"
            )
        return None
    try:
        body = json.loads(path.read_bytes())
        version, runs = body["schema_version"], body["runs"]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise UserError(f"{source}: {MANIFEST}: cannot be read; export the runs again") from None
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{source}: {MANIFEST}: schema_version: {version}, this version reads "
            f"{SCHEMA_VERSION}; use the release that wrote it"
        )
    if not isinstance(runs, dict) or not all(isinstance(files, dict) for files in runs.values()):
        raise UserError(
            f"{source}: {MANIFEST}: runs: not a mapping of files; export the runs again"
        )
    for name in runs:
        if not (root / name).is_dir():
            raise UserError(f"{source}: {name}: is in {MANIFEST} and not there; export it again")
    return runs


def _run_folders(root: Path, source: Path) -> list[Path]:
    if not root.is_dir():
        raise UserError(f"{source}: no such file or folder")
    found = [p for p in sorted(root.iterdir()) if RUN_FOLDER.fullmatch(p.name) and p.is_dir()]
    if links := [p for p in found if p.is_symlink()]:
        raise UserError(f"{source}: {links[0].name}: is a link; give a folder that has the runs")
    if not found:
        raise UserError(f"{source}: no run is in it; its folders should be called NAME-RUN_ID")
    return found


def _extract(archive: Path, staging: Path) -> None:
    """The files of an archive, none of which can lie elsewhere. Raises UserError."""
    try:
        with tarfile.open(archive, "r:gz") as opened:
            for member in opened:
                _refuse_member(archive, member, shutil.disk_usage(staging).free)
                content = opened.extractfile(member)
                assert content is not None  # it is a file
                path = staging / member.name
                path.parent.mkdir(exist_ok=True)
                with content, path.open("xb") as file:
                    shutil.copyfileobj(content, file)
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise UserError(f"{archive}: cannot be unpacked: {error}; get it again") from None


def _refuse_member(archive: Path, member: tarfile.TarInfo, free_bytes: int) -> None:
    folder, _, name = member.name.partition("/")
    is_known = member.name == MANIFEST or (RUN_FOLDER.fullmatch(folder) and name in KNOWN)
    if not member.isreg() or not is_known:
        kind = "a link" if member.issym() or member.islnk() else "no file of a run"
        raise UserError(f"{archive}: {member.name!r}: is {kind}; nothing was taken from it")
    if member.size > free_bytes:
        raise UserError(f"{archive}: {member.name!r}: {member.size} bytes, more than there is room")


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}


def _write_folder(target: Path, manifest: str, files: Mapping[str, Path]) -> None:
    for name, path in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / name)
    write_atomically(target / MANIFEST, manifest)


def _write_archive(target: Path, manifest: str, files: Mapping[str, Path]) -> None:
    draft = target.with_name(f".{target.name}-{os.getpid()}")
    try:
        with tarfile.open(draft, "w:gz") as made:
            _add(made, MANIFEST, io.BytesIO(manifest.encode()), len(manifest.encode()))
            for name, path in files.items():
                with path.open("rb") as file:
                    _add(made, name, file, path.stat().st_size)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _add(made: tarfile.TarFile, name: str, content: Any, size: int) -> None:
    """A file without owner, so that the archive says nothing of the machine."""
    facts = tarfile.TarInfo(name)
    facts.size, facts.mode = size, 0o644
    made.addfile(facts, content)
