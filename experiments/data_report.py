"""What the data are and whether the recipe suits them, in the few lines that a command prints
before it trains on a user's own data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datamodules import ClassSource, DataSourceConfig, DigitsClassesConfig, DigitsConfig, Source
from datamodules.survey import TINY_SHARE, Survey, survey
from experiments.fitting import Fit, anchoring, fit
from experiments.recipe import Recipe

CLASSES_NAMED = 3


@dataclass(frozen=True)
class DataReport:
    """A data set's kind and folder, what it holds, and how each recipe's anchors fit it."""

    kind: str
    root: str
    survey: Survey
    fits: tuple[Fit, ...] = ()

    def lines(self) -> list[str]:
        """For people."""
        return [*_described(self), *(_fit_line(found) for found in self.fits)]


def is_own(config: DataSourceConfig) -> bool:
    """Whether the data are a user's, not drawn here."""
    return not isinstance(config, DigitsConfig | DigitsClassesConfig)


def report_data(source: Source | ClassSource, recipes: Sequence[Recipe]) -> DataReport:
    """Survey an opened source that all of `recipes` train on; equal anchors are told once."""
    config = recipes[0].data.source
    found = survey(source)
    settings = dict.fromkeys(a for r in recipes if (a := anchoring(r)))
    fits: list[Fit] = []
    if not isinstance(source, ClassSource) and found.splits["train"].objects:
        fits = [fit(source.index("train"), anchors) for anchors in settings]
    return DataReport(config.kind, str(getattr(config, "root", "")), found, tuple(fits))


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
