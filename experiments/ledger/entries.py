"""What the suite can say of each printed number: counted, confirmed, or why not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from experiments.counting import full_size
from experiments.ledger.checkpoints import CheckpointScores
from experiments.ledger.printed import Printed
from experiments.pricing import PASSES, PUBLISHED_PICTURES
from experiments.study import COUNTED, Study, Variant
from spinenet.config import SpineNetConfig
from spinenet.search.space import space

if TYPE_CHECKING:
    from spinenet.counts import Complexity

Status = Literal[
    "exact",
    "within 1 %",
    "differs",
    "confirmed",
    "not confirmed",
    "counted",
    "replicated",
    "contradicted",
    "inconclusive",
    "not attempted",
    "cannot be settled",
]

CLOSE = 0.01  # what a count may differ by
CONFIRMED = 0.1  # percent; what an imported checkpoint's score may differ by

EPOCHS = {"A": 250, "B": 350, "C": 500}  # sections 4.1 and 5; method of the protocols
TRAINING_PICTURES = {
    "COCO": PUBLISHED_PICTURES["coco"],
    "ImageNet": PUBLISHED_PICTURES["folder"],
    "iNaturalist-2017": PUBLISHED_PICTURES["inaturalist"],
    "iNaturalist-bbox": PUBLISHED_PICTURES["inaturalist-bbox"],
}

LATENCY = ("v100_ms", "p100_ms", "latency_ms")
BLOCKS = ("stem_blocks", "permuted_blocks")
SIZE = "networks"  # of a part of the search space
FIRST_LEVEL = 2
RESNET_BLOCK = re.compile(r"layer(\d)\.\d+$")  # a block of timm's ResNets, whose layer1 is level 2


@dataclass(frozen=True)
class Entry:
    """A line of the ledger: what is printed, what was found, and what that amounts to; `study` is
    the one that judges a claim.
    """

    place: str
    subject: str
    quantity: str
    printed: str
    status: Status
    found: str = ""
    detail: str = ""
    study: str = ""


Judged = tuple[Status, str, str]  # what it amounts to, what was found, and why
Networks = Mapping[str, tuple[Study, Variant]]
Counts = Mapping[str, "Complexity"]


def networks(studies: Mapping[str, Study]) -> dict[str, tuple[Study, Variant]]:
    """Every variant of every study, as STUDY/VARIANT."""
    return {f"{s.id}/{v.id}": (s, v) for s in studies.values() for v in s.variants.values()}


def judge_number(
    number: Printed, known: Networks, counts: Counts, scores: Sequence[CheckpointScores]
) -> Entry:
    """What can be said of one printed number; `scores` are of the checkpoints that measure it."""
    status, found, detail = _judged(number, known, counts, scores)
    note = "; ".join(part for part in (detail, number.note) if part)
    return Entry(number.place, _subject(number), number.quantity, number.text, status, found, note)


def _subject(number: Printed) -> str:
    facts = [number.model, number.data, f"{number.side} px" if number.side else ""]
    if number.protocol or number.epochs:
        facts.append(f"{number.protocol or ''} {_epochs(number)} epochs".strip())
    return ", ".join(fact for fact in facts if fact)


def _judged(
    number: Printed, known: Networks, counts: Counts, scores: Sequence[CheckpointScores]
) -> Judged:
    if number.beyond:
        return "cannot be settled", "", number.beyond
    if number.open:
        return "not attempted", "", number.open
    if number.quantity == SIZE:
        return _judge_space(number)
    if number.quantity in BLOCKS:
        return _judge_blocks(number, known, counts)
    if number.quantity in LATENCY:
        return "cannot be settled", "", "the authors' accelerator; `spinenet bench` measures yours"
    if not number.variant:
        return "cannot be settled", "", "not a network of the paper"
    if number.variant not in counts:
        return "cannot be settled", "", known[number.variant][1].unpublished
    if number.quantity in COUNTED:
        return _judge_count(number, counts[number.variant])
    return _judge_accuracy(number, counts[number.variant], scores)


def _judge_count(number: Printed, counted: Complexity) -> Judged:
    found, printed = float(getattr(counted, number.quantity)), _single(number)
    difference = found / printed - 1
    told = f"{found:.2f} ({difference:+.2%})"
    # A count agrees when it rounds to what is printed; beyond that print leaves nothing to say.
    if abs(found - printed) <= number.rounding * (1 + 1e-9):
        return "exact", told, ""
    return ("within 1 %" if abs(difference) <= CLOSE else "differs"), told, ""


def _judge_blocks(number: Printed, known: Networks, counts: Counts) -> Judged:
    study, variant = known[number.variant]
    if variant.unpublished:
        return "cannot be settled", "", variant.unpublished
    backbone = full_size(study, variant).model.backbone
    if isinstance(backbone, SpineNetConfig):
        genotype = backbone.genotype
        is_stem = number.quantity == "stem_blocks"
        levels = Counter(genotype.stem if is_stem else (block.level for block in genotype.blocks))
    else:
        modules = map(RESNET_BLOCK.search, counts[number.variant].macs_b_by_module)
        levels = Counter(int(found[1]) + FIRST_LEVEL - 1 for found in modules if found)
    blocks = tuple(levels[FIRST_LEVEL + i] for i in range(len(number.value)))  # type: ignore[arg-type]
    return ("exact" if blocks == number.value else "differs"), " ".join(map(str, blocks)), ""


def _judge_space(number: Printed) -> Judged:
    """The size of a part of the space in which SpineNet-49 was found."""
    part = number.model.partition(",")[0]
    found, printed = space("spinenet").sizes()[part], _single(number)
    digits = len(number.text.partition(".")[2].partition("e")[0])
    agrees = found == printed if isinstance(printed, int) else f"{found:.{digits}e}" == number.text
    told = str(found) if isinstance(printed, int) else f"{found:.{digits + 2}e}"
    return ("exact" if agrees else "differs"), told, ""


def _judge_accuracy(
    number: Printed, counted: Complexity, scores: Sequence[CheckpointScores]
) -> Judged:
    if "test-dev" in number.data:
        why = "test-dev's labels stay on its server; the zoos' rows are on val2017"
        return "cannot be settled", "", why
    printed = _single(number)
    measured = [score.metrics[number.quantity] for score in scores]
    if measured:
        best = min(measured, key=lambda value: abs(value - printed))
        close = abs(best - printed) <= CONFIRMED
        how = "by the imported checkpoint"
        return ("confirmed" if close else "not confirmed"), f"{best:.2f}", how
    return "not attempted", "", _price(number, counted)


def _single(number: Printed) -> float:
    assert not isinstance(number.value, tuple)
    return number.value


def _epochs(number: Printed) -> int:
    return number.epochs or EPOCHS.get(number.protocol, 0)


def _price(number: Printed, counted: Complexity) -> str:
    """What training it would take, in multiply-adds, which are the same everywhere."""
    pictures = TRAINING_PICTURES[number.data.split()[0]]
    if not _epochs(number):
        return "its schedule is not printed"
    work = PASSES * counted.macs_b * 1e9 * pictures * _epochs(number)
    return f"{work:.1e} multiply-adds of training"
