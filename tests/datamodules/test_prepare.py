"""Data sets are fetched in several goes, checked, unpacked inside their folder and counted."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
from scipy.io import savemat

from datamodules import CocoFolderConfig, DataError, ImageFolderConfig
from datamodules.downloads import RemoteFile, check, fetch
from datamodules.prepare import DATA_SETS, Archive, Count, DataSet, prepare, verify
from datamodules.staging import staged
from datamodules.unpacking import DEVKIT, unpack

BODY = np.random.default_rng(0).bytes(300_000)
MD5 = hashlib.md5(BODY).hexdigest()


class Server:
    """Files by name over HTTP; ``cut`` bytes at most per answer, ``ranges`` or not, ``busy`` for
    so many answers. ``asked`` has the Range headers.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.cut, self.ranges, self.busy = files, 10**9, True, 0
        self.asked: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever, daemon=True)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        said = request.headers["Range"]
        self.asked.append(said)
        if self.busy:
            self.busy -= 1
            request.send_error(503)
            return
        body = self.files.get(request.path.strip("/"))
        start = int(said.removeprefix("bytes=").rstrip("-")) if said and self.ranges else 0
        if body is None or start >= len(body):
            request.send_error(404 if body is None else 416)
            return
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        request.wfile.write(body[start : start + self.cut])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("datamodules.downloads.PAUSE_S", 0)
    running = Server({"file.bin": BODY})
    running.thread.start()
    yield running
    running.http.shutdown()
    running.http.server_close()


def remote(server: Server, **known: object) -> RemoteFile:
    return replace(RemoteFile("file.bin", f"{server.url}/file.bin", len(BODY), MD5), **known)


def test_a_file_arrives_whole_and_its_progress_is_told(server, tmp_path):
    heard: list[tuple[int, int]] = []
    fetch(remote(server), tmp_path / "new" / "file.bin", lambda *n: heard.append(n))
    assert (tmp_path / "new" / "file.bin").read_bytes() == BODY
    assert heard[-1] == (len(BODY), len(BODY))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["file.bin"]


def test_a_cut_connection_goes_on_where_it_stopped(server, tmp_path):
    server.cut = 100_000
    fetch(remote(server), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]


def test_a_later_call_goes_on_where_an_earlier_one_was_killed(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(BODY[:299_000])
    fetch(remote(server), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY
    assert server.asked == ["bytes=299000-"]
    (tmp_path / "file.bin").rename(tmp_path / "file.bin.part")  # killed before its check
    fetch(remote(server), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_a_server_without_ranges_is_asked_anew(server, tmp_path):
    server.ranges = False
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    fetch(remote(server), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_a_connection_that_never_gives_a_byte_ends(server, tmp_path):
    server.cut = 0
    with pytest.raises(DataError, match=r"file\.bin: the connection ended after 0 of 300,000"):
        fetch(remote(server), tmp_path / "file.bin")
    assert len(server.asked) == 5


def test_a_server_that_is_busy_is_asked_again(server, tmp_path):
    server.busy = 4
    fetch(remote(server), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY
    server.busy = 5
    with pytest.raises(DataError, match=r"file\.bin: the server answers 503"):
        fetch(remote(server), tmp_path / "again.bin")


def test_a_lost_connection_may_take_several_goes_to_come_back(server, tmp_path, monkeypatch):
    gone = [TimeoutError("timed out"), *[URLError("no route to host")] * 3]

    def reconnecting(*arguments, **options):
        if gone:
            raise gone.pop(0)
        return urlopen(*arguments, **options)

    monkeypatch.setattr("datamodules.downloads.urlopen", reconnecting)
    fetch(remote(server), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY


def test_what_is_not_the_file_is_refused_and_fetched_anew(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"y" * 1000)  # of another file
    with pytest.raises(DataError, match=rf"its md5 is \w+, and file\.bin has {MD5}"):
        fetch(remote(server), tmp_path / "file.bin")
    assert not (tmp_path / "file.bin").exists()
    fetch(remote(server), tmp_path / "file.bin")
    assert (tmp_path / "file.bin").read_bytes() == BODY
    with pytest.raises(DataError, match=r"300,000 bytes, and file\.bin has 299,999; remove it"):
        check(remote(server, size_bytes=299_999), tmp_path / "file.bin")


def test_files_come_from_disk_too_and_a_missing_one_is_named(tmp_path):
    (tmp_path / "file.bin").write_bytes(BODY)
    file = RemoteFile("file.bin", (tmp_path / "file.bin").as_uri(), len(BODY), MD5)
    fetch(file, tmp_path / "copy.bin")
    assert (tmp_path / "copy.bin").read_bytes() == BODY
    with pytest.raises(DataError, match=r"file://.*gone\.bin: "):
        fetch(replace(file, url=(tmp_path / "gone.bin").as_uri()), tmp_path / "other.bin")


def tar_of(files: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, body in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            archive.addfile(entry, io.BytesIO(body))
    return out.getvalue()


def zip_of(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return out.getvalue()


@pytest.mark.parametrize("evil", ["../evil.txt", "/spinenet-evil.txt", "a/../../evil.txt"])
@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz"])
def test_nothing_is_unpacked_outside_of_the_folder(evil, suffix, tmp_path):
    archive = tmp_path / f"bad{suffix}"
    files = {"good.txt": b"good", evil: b"evil"}
    made = zip_of(files) if suffix == ".zip" else tar_of(files, f"w:{suffix[5:]}")
    archive.write_bytes(made)
    folder = tmp_path / "deep" / "folder"
    with pytest.raises(DataError, match=r"bad\S+: not an archive that can be unpacked"):
        unpack(archive, folder, "tree")
    assert list(folder.iterdir()) == []
    assert not Path("/spinenet-evil.txt").exists()
    assert not list(tmp_path.glob("**/evil.txt"))


def test_links_in_an_archive_are_refused(tmp_path):
    archive = tmp_path / "links.tar"
    with tarfile.open(archive, "w") as opened:
        link = tarfile.TarInfo("innocent.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        opened.addfile(link)
    with pytest.raises(DataError, match="neither a file nor a folder"):
        unpack(archive, tmp_path / "folder", "tree")


def test_a_damaged_archive_leaves_nothing_behind(tmp_path):
    archive = tmp_path / "cut.zip"
    archive.write_bytes(zip_of({"a.txt": b"a" * 1000})[:200])
    with pytest.raises(DataError, match=r"cut\.zip: not an archive .* get it again"):
        unpack(archive, tmp_path / "folder", "tree")
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_flat_archive_loses_its_folders_and_a_tree_fills_up_what_is_there(tmp_path):
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of({"deep/er/one.json": b"1", "two.json": b"2"}))
    unpack(archive, tmp_path / "flat", "flat")
    assert sorted(p.name for p in (tmp_path / "flat").iterdir()) == ["one.json", "two.json"]
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "mine.txt").write_text("kept")
    unpack(archive, tmp_path / "tree", "tree")
    assert (tmp_path / "tree" / "deep" / "mine.txt").read_text() == "kept"
    assert (tmp_path / "tree" / "deep" / "er" / "one.json").read_text() == "1"


def archives_of(content: dict) -> dict[str, bytes]:
    """COCO's three archives, small."""
    pictures = [entry["file_name"] for entry in content["images"]]
    text = json.dumps(content).encode()
    names = [f"annotations/instances_{split}2017.json" for split in ("train", "val")]
    made = {"annotations_trainval2017.zip": zip_of(dict.fromkeys(names, text))}
    for split in ("train2017", "val2017"):
        made[f"{split}.zip"] = zip_of({f"{split}/{name}": b"pixels" for name in pictures})
    return made


def small_coco(content: dict, url: str | None, files: dict[str, bytes]) -> DataSet:
    """COCO as it is described, with the sizes, sums and counts of small archives."""
    archives = tuple(
        replace(
            archive,
            file=RemoteFile(
                archive.file.name,
                url and f"{url}/{archive.file.name}",
                len(files[archive.file.name]),
                hashlib.md5(files[archive.file.name]).hexdigest(),
            ),
        )
        for archive in DATA_SETS["coco"].archives
    )
    count = len(content["images"])
    return replace(
        DATA_SETS["coco"], archives=archives, counts=(Count(CocoFolderConfig(), count, count, 2),)
    )


def quietly(data: DataSet, folder: Path, mirror: str | None = None) -> list[str]:
    return prepare(data, folder, mirror=mirror, say=lambda _: None, watch=lambda *_: None)


def test_a_data_set_is_fetched_unpacked_and_counted_once(content, server, tmp_path):
    server.files = archives_of(content)
    data = small_coco(content, server.url, server.files)
    lines = quietly(data, tmp_path / "coco")
    assert lines == [
        f"COCO 2017: 3 training and 3 validation samples of 2 classes as coco:{tmp_path / 'coco'}"
    ]
    asked = len(server.asked)
    assert asked == 3
    assert quietly(data, tmp_path / "coco") == lines
    assert len(server.asked) == asked  # what is in place is left alone


def test_only_what_is_missing_is_fetched(content, server, tmp_path):
    server.files = archives_of(content)
    (tmp_path / "val2017").mkdir()
    for entry in content["images"]:
        (tmp_path / "val2017" / entry["file_name"]).write_bytes(b"pixels")
    quietly(small_coco(content, server.url, server.files), tmp_path)
    assert len(server.asked) == 2


def test_a_mirror_serves_archives_by_their_names(content, tmp_path):
    files = archives_of(content)
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    for name, body in files.items():
        (mirror / name).write_bytes(body)
    data = small_coco(content, "http://127.0.0.1:9", files)  # nobody listens there
    assert "3 training" in quietly(data, tmp_path / "coco", f"{mirror.as_uri()}/")[0]


def test_without_a_network_it_says_what_to_put_where_and_then_takes_it(content, tmp_path):
    files = archives_of(content)
    data = small_coco(content, "http://127.0.0.1:9", files)
    with pytest.raises(DataError) as caught:
        quietly(data, tmp_path)
    message = str(caught.value)
    for name, body in files.items():
        sums = f"{name} ({len(body):,} bytes, md5 {hashlib.md5(body).hexdigest()})"
        assert f"{sums} from http://127.0.0.1:9/{name}" in message
    assert f"put them into {tmp_path / 'archives'} and run the command again" in message
    (tmp_path / "archives").mkdir(exist_ok=True)
    for name, body in files.items():
        (tmp_path / "archives" / name).write_bytes(body)
    assert "3 training" in quietly(data, tmp_path)[0]


def test_a_placed_archive_that_is_another_is_refused_and_kept(content, tmp_path):
    files = archives_of(content)
    placed = tmp_path / "archives" / "train2017.zip"
    placed.parent.mkdir()
    placed.write_bytes(files["val2017.zip"])
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text("")
    data = small_coco(content, None, files)
    with pytest.raises(DataError, match=r"train2017\.zip: .* remove it and get it again"):
        quietly(data, tmp_path)
    assert placed.exists()


def test_other_counts_than_published_are_named(content, tmp_path):
    files = archives_of(content)
    (tmp_path / "archives").mkdir()
    for name, body in files.items():
        (tmp_path / "archives" / name).write_bytes(body)
    data = small_coco(content, None, files)
    published = replace(data, counts=DATA_SETS["coco"].counts)
    message = (
        r"3 training and 3 validation samples of 2 classes, and COCO 2017 has 118,287 training and "
        r"5,000 validation samples of 80 classes; remove what is incomplete"
    )
    with pytest.raises(DataError, match=message):
        quietly(published, tmp_path)
    assert len(list(verify(data, tmp_path))) == 1


def test_a_disk_too_small_is_said_before_anything_is_fetched(content, server, tmp_path):
    files = archives_of(content)
    data = small_coco(content, server.url, files)
    huge = replace(data.archives[0], file=replace(data.archives[0].file, size_bytes=10**18))
    with pytest.raises(
        DataError, match=r"GB are free and about 2000000000\.0 GB needed; make room"
    ):
        quietly(replace(data, archives=(huge,)), tmp_path)
    assert server.asked == []


def test_what_has_arrived_is_no_longer_needed_and_archives_that_are_there_need_room_too(
    content, server, tmp_path, monkeypatch
):
    server.files = archives_of(content)
    data = small_coco(content, server.url, server.files)
    train = replace(data, archives=(data.archives[2],))
    name, size = train.archives[0].file.name, train.archives[0].file.size_bytes
    placed = tmp_path / "archives" / name
    placed.parent.mkdir()

    def free(there: int) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=there))

    placed.with_name(f"{name}.part").write_bytes(server.files[name][:100])
    free(2 * size - 101)
    with pytest.raises(DataError, match="make room"):
        quietly(train, tmp_path)
    assert server.asked == []
    placed.write_bytes(server.files[name])
    free(size - 1)
    with pytest.raises(DataError, match="make room"):
        quietly(train, tmp_path)
    placed.unlink()
    free(2 * size - 100)
    with pytest.raises(DataError, match="instances_train"):  # of the archives left out here
        quietly(train, tmp_path)
    assert (tmp_path / "train2017").is_dir()


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_fills_is_not(tmp_path):
    for name in ("fresh", "left"):
        (tmp_path / f".unpacking-{name}").mkdir()
    with staged(tmp_path, ".unpacking-") as living:
        (living / "a.txt").write_text("a")
        for folder in (living, tmp_path / ".unpacking-left"):
            os.utime(folder, (0, 0))
        with staged(tmp_path, ".unpacking-") as other:
            found = set(tmp_path.iterdir())
            assert found == {living, other, tmp_path / ".unpacking-fresh"}
    assert [p.name for p in tmp_path.iterdir()] == [".unpacking-fresh"]


def imagenet_archives() -> dict[str, bytes]:
    """ImageNet's three archives with two classes, of one and two training pictures."""
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O")]
    synsets = np.array(
        [(1, "n01", "cat, tom", "", 0), (2, "n02", "dog", "", 0), (3, "n03", "pet", "", 2)],
        dtype=[*kinds, ("num_children", "O")],
    )
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    data = "ILSVRC2012_devkit_t12/data/"
    truth = {f"{data}meta.mat": meta.getvalue()}
    truth[f"{data}ILSVRC2012_validation_ground_truth.txt"] = b"2\n1\n"
    pictures = {"n01": ["n01_1.JPEG"], "n02": ["n02_1.JPEG", "n02_2.JPEG"]}
    inner = {f"{wnid}.tar": tar_of(dict.fromkeys(n, b"px")) for wnid, n in pictures.items()}
    val = {f"ILSVRC2012_val_0000000{i}.JPEG": b"px" for i in (1, 2)}
    return {
        DEVKIT: tar_of(truth, "w:gz"),
        "ILSVRC2012_img_train.tar": tar_of(inner),
        "ILSVRC2012_img_val.tar": tar_of(val),
    }


@pytest.fixture
def small_imagenet(monkeypatch: pytest.MonkeyPatch) -> tuple[DataSet, dict[str, bytes]]:
    from torchvision.datasets import imagenet

    files = imagenet_archives()
    known = {
        part: (name, hashlib.md5(files[name]).hexdigest())
        for part, (name, _) in imagenet.ARCHIVE_META.items()
    }
    monkeypatch.setattr(imagenet, "ARCHIVE_META", known)
    archives = tuple(
        Archive(RemoteFile(a.file.name), a.makes, a.form) for a in DATA_SETS["imagenet"].archives
    )
    counts = (Count(ImageFolderConfig(), 3, 2, 2),)
    return replace(DATA_SETS["imagenet"], archives=archives, counts=counts), files


def test_imagenet_needs_an_account_and_is_then_sorted_into_its_classes(small_imagenet, tmp_path):
    data, files = small_imagenet
    with pytest.raises(DataError, match=rf"needs an account: get {DEVKIT}, .*img_train\.tar"):
        quietly(data, tmp_path)
    (tmp_path / "archives").mkdir(exist_ok=True)
    for name, body in files.items():
        (tmp_path / "archives" / name).write_bytes(body)
    assert "3 training and 2 validation samples of 2 classes" in quietly(data, tmp_path)[0]
    assert (tmp_path / "val" / "n02" / "ILSVRC2012_val_00000001.JPEG").is_file()
    assert sorted(p.name for p in (tmp_path / "train" / "n02").iterdir()) == files_of("n02")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["archives", "train", "val"]


def files_of(wnid: str) -> list[str]:
    return [f"{wnid}_1.JPEG", f"{wnid}_2.JPEG"]


def test_imagenets_archives_are_checked_before_they_are_opened(small_imagenet, tmp_path):
    data, files = small_imagenet
    (tmp_path / "archives").mkdir()
    for name, body in files.items():
        (tmp_path / "archives" / name).write_bytes(body)
    (tmp_path / "archives" / "ILSVRC2012_img_val.tar").write_bytes(tar_of({"a.JPEG": b"other"}))
    with pytest.raises(DataError, match=r"img_val\.tar.*corrupted"):
        quietly(data, tmp_path)
    assert not (tmp_path / "val").exists()


def test_every_address_and_sum_is_well_formed():
    for data in DATA_SETS.values():
        for archive in data.archives:
            file = archive.file
            assert file.url is None or file.url.endswith(f"/{file.name}")
            assert file.md5 is None or len(bytes.fromhex(file.md5)) == 16
