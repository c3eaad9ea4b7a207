"""What was found of searching as Markdown: the blocks of docs/search.md, each from stored data."""

from __future__ import annotations

import math
from collections.abc import Sequence

from experiments.durations import duration
from experiments.provenance import trained_on
from experiments.search.contest import (
    CHANCE,
    CONTESTS,
    Contest,
    ContestName,
    Gain,
    gains,
    table_marks,
)
from experiments.search.finals import SEEDS
from experiments.search.findings import Findings
from experiments.search.places import FOUND
from experiments.search.sampling import PAPERS
from experiments.search.table import Table
from experiments.search.worth import Correlation, Worth, within, worth
from experiments.statistics import Estimate, estimate
from experiments.tables import markdown
from spinenet.genotype import OUTPUT_LEVELS
from spinenet.search.space import Space, space, spaces

SPACES_BLOCK, PROXY_BLOCK, FOUND_BLOCK = "search spaces", "search proxy", "search found"
CONTEST_BLOCKS: dict[ContestName, str] = {name: f"search {name}" for name in CONTESTS}
NO_TABLE = "No table is stored yet; `spinenet search-table` trains one."
NO_CONTEST: dict[ContestName, str] = {
    "synthetic": "Not held yet; `spinenet search-contest synthetic` does, in minutes.",
    "replay": "Not held yet; `spinenet search-contest replay` does, once there is a table.",
}
NO_FINDINGS = (
    "No search is kept yet; `spinenet search-report NAME --out "
    f"{FOUND.as_posix()}/NAME.json` keeps one."
)
PICTURES: dict[ContestName, str] = {
    "synthetic": "![Regret of the choices, with intervals](figures/search-synthetic.svg)",
    "replay": "![AP of the choices, with intervals](figures/search-replay.svg)",
}
PROXY_PICTURE = (
    "![AP by the proxy, by a longer training, and multiply-adds](figures/search-proxy.svg)"
)
FOUND_PICTURE = "![Rewards over samples, and over multiply-adds](figures/search-found.svg)"
FOUND_HEADER = [
    "search",
    "space",
    "controller",
    "samples",
    "most M",
    "networks",
    "best",
    "chosen, again",
    "its M",
    "core hours",
    "an hour and core",
    "outside training",
]
SPACES_HEADER = ["space", "stem", "inner blocks", "networks as the paper counts them", "rows"]
SEARCHED = "spinenet"  # the space of which the table has most
STANDINGS_HEADER = ["network", "AP by the proxy", "above so much of its space", "samples"]


def spaces_rows() -> list[list[str]]:
    """Each space: the levels of its stem and of its inner blocks, its size by parts, and how many
    rows of choices it has.
    """
    return [_space_row(space(name)) for name in spaces()]


def _space_row(found: Space) -> list[str]:
    inner = found.intermediates if found.order is None else found.order[: -len(OUTPUT_LEVELS)]
    parts = [f"{_count(count)} {name}" for name, count in found.sizes().items()]
    levels = ["".join(map(str, some)) for some in (found.stem, inner)]
    return [found.name, *levels, " × ".join(parts), f"1e{math.log10(found.rows()):.0f}"]


def _count(count: int) -> str:
    return f"{count:,}" if count < 1e10 else f"{count:.4e}"


def contest_markdown(name: ContestName, contest: Contest | None) -> str:
    """A contest's table, what its numbers are, and what follows."""
    if contest is None:
        return NO_CONTEST[name]
    table = markdown(*contest_table(contest))
    parts = [contest_caption(contest), table, contest_verdict(contest), PICTURES[name]]
    return "\n\n".join(parts)


def contest_caption(contest: Contest) -> str:
    """What the table's numbers are."""
    config, facts = contest.config, contest.facts
    if contest.optimum is not None:
        return (
            f"Regret of the chosen network ({contest.optimum:g} less its worth) after so many "
            f"samples in the space `{config.space}`: mean ± 95 % interval over {config.seeds} "
            "seeds."
        )
    return (
        f"AP of the chosen network after so many samples in the space `{config.space}`: mean ± "
        f"95 % interval over {contest.replicates} halvings of the table. Rewards are by a model "
        "of one half, AP by one of the other; and once more with the halves exchanged, the mean of "
        "both counting as one. Intervals and p are of this table: another would move all halvings "
        "alike. Of a network of this space in the half that it has not seen "
        f"({facts['networks']} in both) a model is off by {facts['rmse']:.2f} AP (root mean "
        f"square); Kendall's rank correlation is {facts['kendall']:.2f}, and "
        f"{float(facts['explained']):.0%} of the variance are explained. Of the third that it "
        f"ranks highest, where a search ends, it is off by {facts['rmse_highest']:.2f} AP, and the "
        f"rank correlation is {facts['kendall_highest']:.2f}. Rewards have the noise that was "
        f"measured over seeds, {contest.noise:.2f} AP."
    )


def contest_table(contest: Contest) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each controller after some numbers of samples, and its gain over chance."""
    marks = table_marks(contest.config.samples)
    over = {gain.controller: gain for gain in gains(contest) if gain.over == CHANCE}
    rows = []
    for name in contest.curves:
        found = [estimate(_shown(contest, contest.after(name, mark))) for mark in marks]
        gain = over.get(name)
        last = ["", ""] if gain is None else [_number(gain.difference, "+"), f"{gain.p:.1g}"]
        rows.append([name, *map(_number, found), *last])
    return ["controller", *map(str, marks), "over chance", "p"], rows


def _shown(contest: Contest, values: list[float]) -> list[float]:
    return values if contest.optimum is None else [contest.optimum - value for value in values]


def _number(value: Estimate, sign: str = "") -> str:
    half = "" if value.half is None else f" ± {value.half:.3f}"
    return f"{value.mean:{sign}.3f}{half}"


def contest_verdict(contest: Contest) -> str:
    """Who beat chance, and whom else, in a sentence."""
    told = "; ".join(f"{gain.controller} {_verdict(gain)}" for gain in gains(contest))
    return (
        f"After {contest.config.samples} samples: {told} (paired t-tests over "
        f"{'seeds' if contest.config.sharing == 1 else 'halvings'}, corrected for all of them by "
        "Holm's method)."
    )


def _verdict(gain: Gain) -> str:
    over = "chance" if gain.over == CHANCE else gain.over
    if gain.p >= 0.05:
        return f"cannot be told from {over}"
    return f"beats {over}" if gain.difference.mean > 0 else f"is worse than {over}"


def proxy_markdown(table: Table | None) -> str:
    """What a table says of the proxy."""
    found = None if table is None else worth(table)
    if table is None or found is None:
        return NO_TABLE
    parts = [
        f"{len(table.runs)} of the table's {table.config.runs} runs are there: {found.networks} "
        f"networks sampled from the spaces and {len(PAPERS)} of the paper, profile "
        f"`{table.config.profile}`, AP in percent:",
        markdown(*worth_table(table)),
    ]
    if found.standings:
        parts += ["The paper's networks among the samples:", markdown(*standings_table(found))]
    return "\n\n".join([*parts, PROXY_PICTURE])


def worth_table(table: Table) -> tuple[list[str], list[list[str]]]:
    """Header and rows: what the proxy is worth within the space that is searched, and over all.

    A search ranks networks of one space. The levels of the spaces differ, so over all of them a
    proxy ranks well that does no more than tell them apart.
    """
    told = {
        title: {(what, how): value for what, value, how in worth_rows(found)} if found else {}
        for title, found in (
            (f"in `{SEARCHED}`", worth(within(table, SEARCHED))),
            ("in all spaces", worth(table)),
        )
    }
    lines = dict.fromkeys(line for column in reversed(told.values()) for line in column)
    rows = [[what, *(told[t].get((what, how), "") for t in told), how] for what, how in lines]
    return ["of the proxy", *told, "how"], rows


def worth_rows(found: Worth) -> list[list[str]]:
    """What the proxy is worth, a line for each number that is known: what, the number, how."""
    rows = [
        ["networks", str(found.networks), "sampled and trained"],
        ["AP of a sample", f"{found.mean:.2f} ± {found.spread:.2f}", "mean, standard deviation"],
        ["AP of the best sample", f"{found.best:.2f}", "of one seed"],
    ]
    if found.diverged:
        rows.append(["runs whose loss was not finite", str(found.diverged), "their AP is 0"])
    if found.noise is not None and found.reliability is not None:
        rows += [
            ["noise over seeds", f"{found.noise:.2f}", "standard deviation, pooled"],
            ["reliability", f"{found.reliability:.2f}", "variance that another seed finds again"],
        ]
    rows += _correlation("rank correlation with another seed", "Kendall", found.between_seeds)
    rows += _correlation("rank correlation with the longer training", "Kendall", found.kendall)
    rows += _correlation(
        "the same, of the better half by the proxy", "Kendall", found.kendall_better
    )
    rows += _correlation("rank correlation with the longer training", "Spearman", found.spearman)
    rows += _correlation("rank correlation with multiply-adds", "Kendall", found.with_macs)
    if found.overlap is not None:
        again, best = found.overlap
        rows.append(["best fifth found again", f"{again} of {best}", "a fifth of them by chance"])
    for part, seconds in found.seconds.items():
        rows.append([f"time of a run, {part}", duration(seconds), f"median, on {found.machine}"])
    if found.outside_training is not None:
        share = f"{found.outside_training:.1%}"
        rows.append(["time outside training", share, "start, data and validation of a run"])
    return rows


def _correlation(what: str, kind: str, found: Correlation | None) -> list[list[str]]:
    if found is None:
        return []
    told = f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f}), {found.pairs} networks"
    return [[what, told, f"{kind}, 95 % interval"]]


def standings_table(found: Worth) -> tuple[list[str], list[list[str]]]:
    """Header and rows: where the paper's networks stand among the samples of their spaces."""
    rows = [
        [one.name, f"{one.ap:.2f} ({one.seeds} seeds)", f"{one.below:.0%}", str(one.samples)]
        for one in found.standings
    ]
    return STANDINGS_HEADER, rows


def found_markdown(found: Sequence[Findings]) -> str:
    """The searches that are kept, one beside the other."""
    if not found:
        return NO_FINDINGS
    return "\n\n".join(
        [found_caption(found), markdown(FOUND_HEADER, found_rows(found)), FOUND_PICTURE]
    )


def found_caption(found: Sequence[Findings]) -> str:
    """What the table's numbers are."""
    profiles = " and ".join(dict.fromkeys(f"`{one.config.profile}`" for one in found))
    rewards = " or ".join(dict.fromkeys(one.config.reward for one in found))
    machines = " and ".join(dict.fromkeys(trained_on(one.environment) for one in found))
    return (
        f"Searches by profile {profiles}, on {machines}. The best has the largest reward, "
        f"{rewards} in percent of one seed; the chosen, of so many finalists, the largest mean "
        f"over {SEEDS} other seeds, which as the largest of several still promises somewhat too "
        "much. M are 1e6 multiply-adds of the proxy network. Core hours are of all workers, those "
        "that wait included, and of finalists too; a session that was killed is not counted, nor "
        "its runs."
    )


def found_rows(found: Sequence[Findings]) -> list[list[str]]:
    """A row for each search."""
    return [_found_row(one) for one in found]


def _found_row(found: Findings) -> list[str]:
    config, chosen, pace = found.config, found.chosen, found.pace
    assert chosen is not None, "what is kept has found something"
    again = found.finals.get(chosen.number)
    told = [
        found.name,
        config.space,
        config.controller,
        str(found.tried),
        "" if config.macs_m is None else f"{config.macs_m:g}",
        str(len(found.networks)),
        f"{found.networks[0].reward:.2f}",
        "" if again is None else f"{again:.2f}, of {len(found.finals)}",
        f"{chosen.macs_m:.1f}",
    ]
    if pace is None:
        return [*told, "", "", ""]
    core_hours = pace.runs / pace.per_core_hour
    return [*told, f"{core_hours:.1f}", f"{pace.per_core_hour:.0f}", f"{pace.outside_training:.1%}"]
