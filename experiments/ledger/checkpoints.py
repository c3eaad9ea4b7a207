"""Scores of imported official checkpoints, which confirm printed accuracy without training.

`spinenet eval` writes `scores.json` beside what it found; for weights that `spinenet import` made,
it says which network of which code base they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import TypeAdapter, ValidationError

from experiments.errors import UserError, first_problem
from experiments.ledger.printed import Printed

LONG = 400  # epochs, from which detectors were trained with swish
SWISH_STUDIES = ("mobile/", "classification_improved/")
TASKS = {"one_stage": "retinanet", "two_stage": "mask-rcnn", "mobile": "retinanet"}
CODE_BASES = {"tpu": "tensorflow/tpu", "garden": "the Model Garden"}
VALIDATION_PICTURES = {
    "COCO val2017": 5000,
    "ImageNet": 50_000,
    "iNaturalist-2017": 95_986,
    "iNaturalist-bbox": 48_736,
}


@dataclass(frozen=True)
class CheckpointScores:
    """Metrics in percent of one imported checkpoint on a validation split of so many pictures, and
    which network of which code base it is.
    """

    metrics: Mapping[str, float]
    pictures: int
    model: str
    task: str
    code_base: str
    activation: str
    side: int

    def answers(self, number: Printed) -> bool:
        """Whether this is a measurement of the printed number: the same network and data, and the
        activation of its protocol. A table of one code base's zoo asks for that code base.
        """
        base = next((v for k, v in CODE_BASES.items() if number.table.startswith(k)), "")
        return (
            number.quantity in self.metrics
            and self.model == zoo_name(number.model)
            and self.task == TASKS.get(number.variant.partition("/")[0], "classifier")
            and self.side == number.side
            and self.pictures == VALIDATION_PICTURES.get(number.data)
            and base in ("", self.code_base)
            and self.activation == activation_of(number)
        )


def answered(
    numbers: Sequence[Printed], scores: Sequence[CheckpointScores]
) -> dict[Printed, list[CheckpointScores]]:
    """The checkpoints that measure each number. Of a table's rows that differ in their schedule
    only, which a checkpoint does not tell, it answers the one that it is nearest to.
    """
    found: dict[Printed, list[CheckpointScores]] = {}
    for score in scores:
        rows: dict[tuple[str, str], dict[tuple[str, int | None], list[Printed]]] = {}
        for number in numbers:
            if score.answers(number):
                schedules = rows.setdefault((number.table, number.model), {})
                schedules.setdefault((number.protocol, number.epochs), []).append(number)
        for schedules in rows.values():
            for number in min(schedules.values(), key=partial(_distance, score)):
                found.setdefault(number, []).append(score)
    return found


def _distance(score: CheckpointScores, row: Sequence[Printed]) -> float:
    """How far the scores are from a row's numbers, on average."""
    return fmean(abs(score.metrics[n.quantity] - n.value) for n in row)  # type: ignore[operator]


def zoo_name(model: str) -> str:
    """What `spinenet import --model` calls a printed network."""
    name = model.lower().replace(" ", "-")
    resnet = name.removeprefix("resnet-")
    return name if resnet == name else f"r{resnet}-fpn"


def activation_of(number: Printed) -> str:
    """That of the printed network: where it is not said, swish in protocol C and its kin."""
    is_long = (number.epochs or 0) >= LONG and number.variant.startswith(tuple(TASKS))
    is_swish = number.protocol == "C" or is_long or number.variant.startswith(SWISH_STUDIES)
    return number.activation or ("swish" if is_swish else "relu")


def read_scores(path: Path) -> CheckpointScores:
    """One `scores.json`. Raises UserError for another file, and for weights that were not
    imported.
    """
    try:
        data = json.loads(path.read_bytes())
        origin = data["origin"]
        found = _read(data) if origin else None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; `spinenet eval` writes it") from None
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        what = repr(error)
        if isinstance(error, ValidationError):
            what = ": ".join(first_problem(error))
        raise UserError(
            f"{path}: not a scores.json as `spinenet eval` writes it: {what}; evaluate again"
        ) from None
    if found is None:
        raise UserError(
            f"{path}: these weights were not imported from an official checkpoint, so they confirm "
            "nothing printed; of runs of one's own, in a store (--runs), claims are judged"
        )
    return found


def _read(data: Mapping[str, Any]) -> CheckpointScores:
    recipe = data["recipe"]
    return _reader().validate_python(
        {
            "metrics": data["metrics"],
            "pictures": data["pictures"],
            "activation": recipe["model"]["layers"]["activation"],
            "side": recipe["data"]["transform"]["side"],
            **data["origin"],
        }
    )


@cache
def _reader() -> TypeAdapter[CheckpointScores]:
    return TypeAdapter(CheckpointScores)
