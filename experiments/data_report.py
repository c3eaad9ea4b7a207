"""What the data are and whether the recipe suits them, in the few lines that a command prints
before it trains on a user's own data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from datamodules import ClassSource, DataSourceConfig, DigitsClassesConfig, DigitsConfig, Source
from datamodules.survey import TINY_SHARE, Survey, survey
from experiments.fitting import Fit, anchoring, fit
from experiments.recipe import Recipe

CLASSES_NAMED = 3
# Steps of the optimiser from which a network of the embedded profile has begun to learn: its own
# data give as many.
LEARNING_STEPS = 600


@dataclass(frozen=True)
class Schedule:
    """How long a recipe trains on `pictures`."""

    pictures: int
    batch: int
    epochs: int

    @property
    def steps(self) -> int:
        """Of the optimiser."""
        return self.pictures // self.batch * self.epochs

    @property
    def better_epochs(self) -> int | None:
        """What gives `LEARNING_STEPS`, where there are less than half of them and a batch fits."""
        if self.pictures < self.batch or 2 * self.steps >= LEARNING_STEPS:
            return None
        return math.ceil(LEARNING_STEPS / (self.pictures // self.batch))


@dataclass(frozen=True)
class DataReport:
    """A data set's kind and folder, what it holds, how each recipe's anchors fit it and how long
    each trains on it.
    """

    kind: str
    root: str
    survey: Survey
    fits: tuple[Fit, ...] = ()
    schedules: tuple[Schedule, ...] = ()

    def lines(self) -> list[str]:
        """For people."""
        fits, schedules = map(_fit_line, self.fits), map(_schedule_line, self.schedules)
        return [*_described(self), *fits, *schedules]


def is_own(config: DataSourceConfig) -> bool:
    """Whether the data are a user's, not drawn here."""
    return not isinstance(config, DigitsConfig | DigitsClassesConfig)


def report_data(source: Source | ClassSource, recipes: Sequence[Recipe]) -> DataReport:
    """Survey an opened source that all of `recipes` train on; equal anchors and schedules are told
    once.
    """
    config = recipes[0].data.source
    found = survey(source)
    settings = dict.fromkeys(a for r in recipes if (a := anchoring(r)))
    fits: list[Fit] = []
    if not isinstance(source, ClassSource) and found.splits["train"].objects:
        fits = [fit(source.index("train"), anchors) for anchors in settings]
    pictures = found.splits["train"].pictures
    schedules = dict.fromkeys(
        Schedule(pictures, r.train.batch_size, r.train.epochs) for r in recipes
    )
    root = str(getattr(config, "root", ""))
    return DataReport(config.kind, root, found, tuple(fits), tuple(schedules))


def _described(report: DataReport) -> list[str]:
    found = report.survey
    train, val = found.splits["train"], found.splits["val"]
    detects = found.median_share is not None
    head = f"data: {report.root} ({report.kind}): {train.pictures:,} training and "
    lines = [f"{head}{val.pictures:,} validation pictures"]
    if detects:
        lines[0] += f", {train.objects:,} and {val.objects:,} objects"
    if empty := train.empty + val.empty:
        lines[0] += f"; {empty:,} pictures show none"
    lines.append(_class_line(found.per_class, "objects" if detects else "pictures"))
    if found.median_share is not None and found.tiny_share is not None:
        lines.append(
            f"sizes: a training object's box is {found.median_share:.1%} of its picture in the "
            f"median; {found.tiny_share:.0%} are below {TINY_SHARE:.0%}"
        )
    return lines


def _class_line(per_class: dict[str, int], what: str) -> str:
    ordered = sorted(per_class, key=lambda name: -per_class[name])
    named = [f"{name} {per_class[name]:,}" for name in ordered]
    if len(named) > 2 * CLASSES_NAMED:
        named = [*named[:CLASSES_NAMED], "…", *named[-CLASSES_NAMED:]]
    unused = sum(count == 0 for count in per_class.values())
    note = f"; {unused} without any" if unused else ""
    return f"classes: {len(per_class)} by training {what}: {', '.join(named)}{note}"


def _fit_line(found: Fit) -> str:
    line = (
        f"anchors: with {found.key}={found.size:g} at {found.side} pixels, {found.share:.0%} of "
        "training's objects are overlapped by half or more"
    )
    if found.better_share is None:
        return line
    size = f" --set {found.key}={found.better_size:g}" if found.better_size != found.size else ""
    side = f" --set data.transform.side={found.better_side}"
    side = side if found.better_side != found.side else ""
    return f"{line}: they fit badly;{size}{side} makes that {found.better_share:.0%}"


def _schedule_line(schedule: Schedule) -> str:
    line = (
        f"schedule: {schedule.steps:,} steps of {schedule.batch} pictures in {schedule.epochs} "
        "epochs"
    )
    if (epochs := schedule.better_epochs) is None:
        return line
    remedy = f"--set train.epochs={epochs} gives {LEARNING_STEPS}"
    return f"{line}: too few to learn much from nothing; {remedy}"
