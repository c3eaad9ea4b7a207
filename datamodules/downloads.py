"""Large files from the network, in as many goes as it takes, and checked before they are used.

A download goes on where the last one stopped, also after days: what has arrived lies beside the
target as ``NAME.part`` and is asked to be continued by byte range. The usual libraries for this
(torchvision's, pooch) begin an interrupted file anew, which with 19 GB means never.
"""

import hashlib
import time
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from datamodules.digits import Progress
from datamodules.errors import DataError

ATTEMPTS = 5  # in a row without a byte
PAUSE_S = 2.0  # between them
TIMEOUT_S = 60.0
CHUNK_BYTES = 2**20
RANGE_REFUSED = 416
SERVER_ERRORS = 500  # and above: they pass


@dataclass(frozen=True)
class RemoteFile:
    """A file and what is known of it; ``size_bytes`` and ``md5`` are None where nobody says, and
    ``url`` where it takes an account.
    """

    name: str
    url: str | None = None
    size_bytes: int | None = None
    md5: str | None = None

    def __str__(self) -> str:
        known = [] if self.size_bytes is None else [f"{self.size_bytes:,} bytes"]
        known += [] if self.md5 is None else [f"md5 {self.md5}"]
        return f"{self.name} ({', '.join(known)})" if known else self.name


def fetch(file: RemoteFile, target: Path, on_progress: Progress | None = None) -> None:
    """Download ``file`` to ``target``, which appears when it is whole and checked. ``on_progress``
    hears of bytes that have come, of how many.
    """
    if file.url is None:
        raise ValueError(f"{file.name} has no address")
    part = _part(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    failures = 0
    while True:
        before = _size(part)
        try:
            _continue(file.url, part, on_progress)
            break
        except HTTPError as error:
            if error.code == RANGE_REFUSED and before:  # nothing is left to come
                break
            problem = f"the server answers {error.code} {error.reason}"
            may_pass = error.code >= SERVER_ERRORS
        except URLError as error:
            problem = str(error.reason)
            may_pass = before > 0 or failures > 0  # otherwise nobody is there
        except (OSError, HTTPException) as error:
            problem, may_pass = str(error), True
        failures = 0 if _size(part) > before else failures + 1
        if not may_pass or failures == ATTEMPTS:
            raise DataError(f"{file.url}: {problem}")
        time.sleep(PAUSE_S)
    try:
        check(file, part)
    except DataError:
        part.unlink()
        raise
    part.rename(target)


def arrived(target: Path) -> int:
    """Bytes of a file that are there, whole or in part."""
    return _size(target) or _size(_part(target))


def check(file: RemoteFile, path: Path) -> None:
    """Raise DataError where ``path`` is not ``file``, by its size and its checksum."""
    size = path.stat().st_size
    if file.size_bytes is not None and size != file.size_bytes:
        raise DataError(
            f"{path}: {size:,} bytes, and {file.name} has {file.size_bytes:,}; remove it and get "
            f"it again"
        )
    if file.md5 is not None:
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False))
        if found.hexdigest() != file.md5:
            raise DataError(
                f"{path}: its md5 is {found.hexdigest()}, and {file.name} has {file.md5}; remove "
                f"it and get it again"
            )


def _continue(url: str, part: Path, on_progress: Progress | None) -> None:
    """Append to ``part`` what is still missing, or begin anew where the server cannot continue."""
    have = _size(part)
    request = Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urlopen(request, timeout=TIMEOUT_S) as response:
        continued = response.status == 206
        have = have if continued else 0
        total = have + int(response.headers["Content-Length"] or 0)
        with part.open("ab" if continued else "wb") as out:
            while chunk := response.read(CHUNK_BYTES):
                have += out.write(chunk)
                if on_progress is not None:
                    on_progress(have, total)
    if have < total:
        raise ConnectionError(f"the connection ended after {have:,} of {total:,} bytes")


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
