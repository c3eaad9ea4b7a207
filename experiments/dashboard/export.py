"""The site as files that open from disk, without a server or a network."""

from __future__ import annotations

from pathlib import Path

from experiments.dashboard.site import Site
from experiments.errors import UserError


def export(site: Site, folder: Path) -> int:
    """Write every page below `folder`; how many files that was. Pages of an earlier export are
    replaced; what else is in the folder stays.
    """
    count = 0
    try:
        for path in site.paths():
            page = site.page(path)
            if page is not None:
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(page.body)
                count += 1
    except OSError as error:
        raise UserError(
            f"--export {folder}: cannot write {error.filename}: {error.strerror}; give a folder "
            "that can be written to"
        ) from None
    return count
