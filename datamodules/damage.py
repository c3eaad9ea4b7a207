"""Damaged entries and pictures: refused at once, or left out and counted.

What cannot be used is left out by the picture. A picture that lost only the object whose annotation
is damaged would teach that there is nothing.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, TypeVar

from datamodules.errors import DataError

OnError = Literal["raise", "skip"]
Item = TypeVar("Item")
MOST_THREADS = 8  # that decode at once


class Damage:
    """What is wrong with the pictures of a split: under "raise" the first complaint ends the
    reading, under "skip" there is one ``complaints`` for each picture, by its id or name.
    """

    def __init__(self, on_error: OnError = "raise") -> None:
        self.on_error = on_error
        self.complaints: dict[object, str] = {}

    def take(self, error: DataError, picture: object = None) -> None:
        """Raise ``error``, or note it; ``picture`` is None where it is not known."""
        if self.on_error == "raise":
            raise error
        key = picture if isinstance(picture, int | str) else ("unknown", len(self.complaints))
        self.complaints.setdefault(key, str(error))

    def spares(self, picture: int | str) -> bool:
        """Whether nothing is wrong with the picture."""
        return picture not in self.complaints


def unreadable(items: Sequence[Item], read: Callable[[Item], object]) -> dict[int, str]:
    """Places of the items that ``read`` cannot decode, and why; all are tried, on every core."""

    def complaint(item: Item) -> str:
        try:
            read(item)
        except DataError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
        found = enumerate(pool.map(complaint, items))
        return {place: said for place, said in found if said}
