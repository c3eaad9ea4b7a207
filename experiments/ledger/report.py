"""The whole ledger, and its renderings: by status, by place, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import get_args

from experiments.counting import count_full_size
from experiments.ledger.checkpoints import CheckpointScores, answered
from experiments.ledger.entries import Counts, Entry, Networks, Status, judge_number, networks
from experiments.ledger.printed import Book, load_book
from experiments.ledger.verdicts import (
    CellsOf,
    all_cells,
    judge_claim,
    judge_sentence,
    verdicts,
)
from experiments.store import Store
from experiments.study import COUNTED, Study
from experiments.study_file import load_profile, load_study, shipped_profiles, shipped_studies
from experiments.tables import markdown

STATUSES: tuple[Status, ...] = get_args(Status)
MEANINGS: dict[Status, str] = {
    "exact": "counted here, and equal to every printed digit",
    "within 1 %": "counted here, and no more than 1 % from what is printed",
    "differs": "counted here, and further off than that",
    "confirmed": "an imported official checkpoint scores within 0.1 of it",
    "not confirmed": "an imported official checkpoint scores otherwise",
    "counted": "the claim holds by counting, without a run",
    "replicated": "the claim held where it was tried, beyond the noise over seeds",
    "contradicted": "the opposite of the claim holds, by counting or beyond the noise over seeds",
    "inconclusive": "tried, and the runs cannot tell",
    "not attempted": "could be tried, at the price that is named",
    "cannot be settled": "no run of this suite could, for the reason that is named",
}
HEADER = ["what", "quantity", "printed", "status", "found", "why, or at what price"]


@dataclass(frozen=True)
class Ledger:
    """Every entry, in the order of the paper: numbers, then claims, then sentences."""

    numbers: tuple[Entry, ...]
    claims: tuple[Entry, ...]
    sentences: tuple[Entry, ...]
    book: Book

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All lines."""
        return self.numbers + self.claims + self.sentences


def make_ledger(
    stores: Sequence[Store],
    scores: Sequence[CheckpointScores] = (),
    processes: int = 1,
    counts: Counts | None = None,
    cells_of: CellsOf = all_cells,
) -> Ledger:
    """Judge everything that was printed by what is at hand: the code, the runs of the stores, and
    the scores of imported checkpoints. `counts` of all networks and `cells_of` are for a caller
    that has them already.
    """
    book = load_book()
    studies = {name: load_study(name) for name in shipped_studies()}
    known = networks(studies)
    if counts is None:
        names = _counted_names(book, studies, known)
        counted = count_full_size([known[name] for name in names], processes)
        counts = dict(zip(names, counted, strict=True))
    profiles = [p for name in shipped_profiles() if (p := load_profile(name)).is_evidence]
    answers = answered(book.numbers, scores)
    lines: dict[str, Entry] = {}
    for study in studies.values():
        found = verdicts(study, profiles, stores, counts, cells_of)
        of_paper = (claim for claim in study.claims if claim.paper is not None)
        lines |= {f"{study.id}/{c.id}": judge_claim(study, c, found[c.id]) for c in of_paper}
    return Ledger(
        numbers=tuple(
            judge_number(number, known, counts, answers.get(number, ())) for number in book.numbers
        ),
        claims=tuple(lines.values()),
        sentences=tuple(judge_sentence(said, lines) for said in book.sentences),
        book=book,
    )


def _counted_names(book: Book, studies: dict[str, Study], known: Networks) -> list[str]:
    """The networks that printed numbers and claims of counts are about, where they can be had."""
    named = dict.fromkeys(number.variant for number in book.numbers if number.variant)
    for study in studies.values():
        claims = [claim for claim in study.claims if claim.metric in COUNTED]
        named |= dict.fromkeys(f"{study.id}/{v}" for c in claims for v in (c.a, c.b))
    return [name for name in named if not known[name][1].unpublished]


def summary(entries: Sequence[Entry]) -> list[list[str]]:
    """Status, how many, meaning; a status that nothing has is left out."""
    found = Counter(entry.status for entry in entries)
    return [[s, str(found[s]), MEANINGS[s]] for s in STATUSES if found[s]]


def in_short(ledger: Ledger) -> str:
    """The counts and verdicts in a few sentences."""
    counted = [entry for entry in ledger.numbers if entry.quantity in COUNTED]
    numbers, claims = (
        Counter(entry.status for entry in entries) for entries in (counted, ledger.claims)
    )
    differing = (
        f"{numbers['differs']} differ by more" if numbers["differs"] else "none is further off"
    )
    return (
        f"Of the printed multiply-adds and parameters {numbers['exact']} are met to the last digit "
        f"and {numbers['within 1 %']} within 1 %; {differing}. Of the paper's claims "
        f"{claims['counted']} hold by counting. Trained at the small sizes that are stored here, "
        f"{claims['replicated']} are replicated and {claims['contradicted']} contradicted, and "
        f"{claims['inconclusive']} cannot be told from noise."
    )


def row(entry: Entry) -> list[str]:
    """An entry as the cells of a table under its place."""
    return [
        entry.subject,
        entry.quantity,
        entry.printed,
        entry.status,
        entry.found,
        entry.detail,
    ]


def by_place(entries: Sequence[Entry]) -> list[tuple[str, list[Entry]]]:
    """Entries that stand together, in order."""
    return [(place, list(group)) for place, group in groupby(entries, key=lambda e: e.place)]


def to_markdown(ledger: Ledger) -> str:
    """The ledger as a page: counts by status, sentences, claims, then every number."""
    parts = [
        f"{len(ledger.entries)} lines: {len(ledger.numbers)} numbers, {len(ledger.claims)} claims, "
        f"{len(ledger.sentences)} sentences.",
        markdown(["status", "lines", "meaning"], summary(ledger.entries)),
        "## In words",
        markdown(HEADER, [row(entry) for entry in ledger.sentences]),
        "## Claims that the studies judge",
        markdown(HEADER, [row(entry) for entry in ledger.claims]),
        "## Numbers",
    ]
    for place, entries in by_place(ledger.numbers):
        parts += [f"### {place[0].upper()}{place[1:]}", markdown(HEADER, list(map(row, entries)))]
        if unseen := ledger.book.unseen.get(place):
            parts.append(f"Not seen in print: {unseen}.")
    parts += ["## Where the numbers were read", _sources(ledger.book)]
    return "\n\n".join(parts) + "\n"


def _sources(book: Book) -> str:
    return "\n".join(f"- **{key}**: {text}" for key, text in book.sources.items())
