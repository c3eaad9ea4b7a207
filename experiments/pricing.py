"""What runs will cost before they are started: multiply-adds, and seconds of one process here.

The seconds follow from the speed of runs measured on this processor and GPU, else from a short
probe. A run is priced by the measured one nearest in multiply-adds, scaled by them; so a price far
from anything measured is an order of magnitude.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datamodules import DataSourceConfig, OnError, training_samples
from experiments.counting import macs_by_run
from experiments.errors import UserError
from experiments.provenance import gpu_name, processor, trained_on
from experiments.store import Store
from experiments.study import Cell

PASSES = 3  # a training step is a forward pass and a backward pass of twice its cost
# Pictures of the training splits that the paper uses, by the kind of source that reads them.
PUBLISHED_PICTURES = {
    "coco": 118_287,
    "folder": 1_281_167,
    "inaturalist": 579_184,
    "inaturalist-bbox": 496_164,
}
LEAST_MEASURED_S = 10.0  # of training, below which a run says more about its start


@dataclass(frozen=True)
class Speed:
    """A network of `macs_b` trained at so many pictures per second, and what its run took beside
    training.
    """

    macs_b: float
    images_per_second: float
    beside_s: float


@dataclass(frozen=True)
class Price:
    """Of one run: seconds of one process, and the multiply-adds of its training. `known_runs` of
    this machine gave the speed; none where it was probed.
    """

    seconds: float
    macs: float
    known_runs: int = 0


def price_runs(cells: Sequence[Cell], store: Store) -> dict[str, Price]:
    """The price of each cell's run by run id. Where a source names no folder, the pictures are
    those of the data set that the paper used.
    """
    if not cells:
        return {}  # no other run needs to be read, and no network counted
    # Counting forks, which is safe before a probe has started torch's threads.
    macs_b = macs_by_run(cells)
    measured = measured_speeds(store)
    known = measured or [_probed()]
    data = {c.run_id: (c.recipe.data.source, c.recipe.data.on_error) for c in cells}
    pictures = {key: _pictures(*key) for key in dict.fromkeys(data.values())}
    prices = {}
    for cell in cells:
        images = pictures[data[cell.run_id]] * cell.recipe.train.epochs
        found = macs_b[cell.run_id]
        seconds = seconds_of(found, images, known)
        prices[cell.run_id] = Price(seconds, PASSES * found * 1e9 * images, len(measured))
    return prices


def measured_speeds(store: Store) -> list[Speed]:
    """Speeds of the store's runs that were made on what runs here take: the GPU if there is one,
    else the processor.
    """
    here = gpu_name() or processor()
    return [
        Speed(r.macs_b, r.images_per_second, r.seconds - r.train_seconds)
        for r in store.results()
        if trained_on(r.environment) == here
        and r.environment.get("processes", 1) == 1
        and r.train_seconds >= LEAST_MEASURED_S
    ]


def _probed() -> Speed:
    from experiments.probe import probed_speed

    return Speed(*probed_speed())


def _pictures(source: DataSourceConfig, on_error: OnError) -> int:
    if getattr(source, "root", None) == "":
        if source.kind not in PUBLISHED_PICTURES:
            raise UserError(
                f"data.source.kind: the paper has no data set of kind {source.kind!r}; name a "
                f"folder: --data {source.kind}:FOLDER"
            )
        return PUBLISHED_PICTURES[source.kind]
    return training_samples(source, on_error)


def seconds_of(macs_b: float, images: float, known: Sequence[Speed]) -> float:
    """A run of a network over so many pictures, from the known speed nearest in multiply-adds."""
    nearest = min(known, key=lambda speed: abs(speed.macs_b - macs_b))
    training = images / nearest.images_per_second * macs_b / nearest.macs_b
    return training + nearest.beside_s
