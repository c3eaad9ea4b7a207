"""A study's tables as data, and as Markdown; other forms are `experiments.table_formats`', the
terminal's is in `experiments.cli`.

Three tables: the study's metrics (AP, accuracy) as measured in the profile beside the paper's;
multiply-adds and parameters at the paper's own size; and the claims. A cell without a printed
number stays empty, it is never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules import DataSourceConfig
from experiments import statistics
from experiments.claims import Judgement, judge
from experiments.counting import as_trained, counts, full_size
from experiments.durations import duration
from experiments.errors import UserError
from experiments.grid import collect
from experiments.provenance import trained_on
from experiments.recipe import Recipe, run_id
from experiments.statistics import Estimate, estimate
from experiments.store import Result, Store, metric_values, write_atomically
from experiments.study import COUNTED, Cell, Metric, PaperValue, Study, Variant

if TYPE_CHECKING:
    from spinenet.counts import Complexity

LEARNED = 1.0  # percent; below this on average, a variant has learned nothing


@dataclass(frozen=True)
class Row:
    """One variant: what was measured, what is printed, and the counts at both sizes; nothing but
    what is printed where the network is unpublished.
    """

    variant: Variant
    measured: Mapping[str, Estimate]
    runs: tuple[str, ...]
    full: Complexity | None
    small_macs_b: float | None
    small_params_m: float | None
    octaves: Mapping[str, float] = field(default_factory=dict)
    deviates: tuple[str, ...] = ()

    def paper(self, metric: str) -> PaperValue | None:
        """The printed value of a metric, if there is one."""
        return self.variant.paper.get(metric)


@dataclass(frozen=True)
class Report:
    """Everything a study's tables show; `seeds` are the most of a variant, `fewest` the fewest of
    those that have any; `hours` are those of its runs, added up, `machines` say how many each
    processor or GPU trained, and `other_runs` are those of other versions of its variants that the
    store in `folder` holds.
    """

    study: Study
    profile: str
    data: str
    seeds: int
    fewest: int
    rows: tuple[Row, ...]
    judgements: tuple[Judgement, ...]
    deviation: float | None
    hours: float
    machines: Mapping[str, int]
    other_runs: int = 0
    folder: str = ""

    @property
    def metric(self) -> str:
        """What the study is about; noise and the smallest detectable difference are in it."""
        return self.study.metrics[0]

    def detectable(self, seeds: int) -> float | None:
        """The smallest true difference that so many seeds show with 80 % power; None without a
        noise band.
        """
        return statistics.detectable(self.deviation, seeds) if self.deviation else None


def make_report(
    study: Study,
    cells: Sequence[Cell],
    store: Store,
    counted: Mapping[str, Complexity] | None = None,
) -> Report:
    """Collect a grid's results into its tables. `counted` are the networks at the paper's size by
    variant, for a caller that has them already.
    """
    results = collect(cells, store)
    chosen = {c.variant: c.recipe for c in cells}
    is_whole = len(chosen) == len(study.published)
    rows = tuple(
        _row(study, v, chosen.get(v.id), results.get(v.id, {}), (counted or {}).get(v.id))
        for v in study.variants.values()
        if v.id in chosen or (v.unpublished and is_whole)
    )
    full = {row.variant.id: row.full for row in rows if row.full}
    deviations: dict[str, float | None] = {m: noise(results, m) for m in study.metrics}
    deviation = deviations[study.metrics[0]]
    claims = [c for c in study.claims if c.a in full and c.b in full]
    seeds = sorted(len(found) for found in results.values() if found) or [0]
    # Each once, where variants share it.
    runs = {r.run_id: r for found in results.values() for r in found.values()}.values()
    return Report(
        study=study,
        profile=cells[0].profile,
        data=_data_name(cells[0].recipe.data.source),
        seeds=seeds[-1],
        fewest=seeds[0],
        rows=rows,
        judgements=tuple(judge(claims, results, full, deviations)),
        deviation=deviation,
        hours=sum(run.all_seconds for run in runs) / 3600,
        machines=Counter(trained_on(run.environment) for run in runs),
        other_runs=other_runs(cells, store),
        folder=str(store.root),
    )


def _data_name(source: DataSourceConfig) -> str:
    """Its kind, and of a user's own the folder's name."""
    root = getattr(source, "root", "")
    return f"{source.kind}:{Path(root).name}" if root else source.kind


def other_runs(cells: Sequence[Cell], store: Store) -> int:
    """Runs that were made for these entries of a grid when they were other recipes."""
    today = {cell.entry: cell.recipe for cell in cells}
    known = {(cell.entry, cell.run_id) for cell in cells}

    def is_todays(result: Result, entry: str) -> bool:
        if (entry, result.run_id) in known:
            return True
        recipe = replace(today[entry], seed=result.seed)
        return run_id(recipe, result.data_fingerprint) == result.run_id

    return sum(
        any(entry in today and not is_todays(result, entry) for entry in result.cells)
        for result in store.results()
    )


def noise(results: Mapping[str, Mapping[int, Result]], metric: str) -> float | None:
    """Spread over seeds, pooled over the variants that learn; one stuck at zero has none to add,
    and what several variants share adds it once.
    """
    runs = {frozenset(r.run_id for r in found.values()): found for found in results.values()}
    groups = [list(metric_values(found, metric).values()) for found in runs.values()]
    return statistics.pooled_deviation([g for g in groups if g and sum(g) / len(g) > LEARNED])


def _row(
    study: Study,
    variant: Variant,
    recipe: Recipe | None,
    results: Mapping[int, Result],
    full: Complexity | None,
) -> Row:
    if recipe is None:  # its network is unpublished
        return Row(variant, {}, (), None, None, None)
    if full is None:
        full = counts(full_size(study, variant), study.classes)
    found = {m: list(metric_values(results, m).values()) for m in study.metrics}
    small = next(iter(results.values()), None) or counts(*as_trained(recipe))
    octaves = dict.fromkeys(k for r in results.values() for k in r.metrics if "AP_" in k)
    return Row(
        variant=variant,
        measured={m: estimate(values) for m, values in found.items() if values},
        runs=tuple(r.run_id for r in results.values()),
        full=full,
        small_macs_b=small.macs_b,
        small_params_m=small.params_m,
        octaves={
            k: estimate([r.metrics[k] for r in results.values() if k in r.metrics]).mean
            for k in octaves
        },
        deviates=tuple(dict.fromkeys(d for r in results.values() for d in r.deviates)),
    )


def to_markdown(report: Report) -> str:
    """The report as three Markdown tables."""
    parts = [f"### {report.study.title}", f"{caption(report)}", markdown(*metric_table(report))]
    parts += ["Multiply-adds and parameters at the paper's size:", markdown(*count_table(report))]
    if report.judgements:
        parts += [markdown(*claim_table(report)), noise_line(report)]
    return "\n\n".join(parts) + "\n"


def write_into(path: Path, report: Report) -> None:
    """Replace the block `STUDY PROFILE` in a file by the report's tables."""
    replace_block(path, f"{report.study.id} {report.profile}", to_markdown(report))


def replace_block(path: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- table: NAME -->` and `<!-- end -->` in a Markdown file.

    Raises UserError when the file or the block is missing.
    """
    start, end = f"<!-- table: {name} -->", "<!-- end -->"
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    before, found, rest = path.read_text(encoding="utf-8").partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise UserError(f"{path}: has no block {start} … {end} to write the table into")
    write_atomically(path, f"{before}{start}\n\n{text}\n{end}{after}")


def caption(report: Report) -> str:
    """What the first table's figures are."""
    if report.seeds:
        count = str(report.seeds)
        if report.fewest < report.seeds:
            count = f"{report.fewest} to {count}"
        what = "seeds: mean ± 95 % interval" if report.seeds > 1 else "seed"
        text = (
            f"{report.metric} on `{report.data}`, profile `{report.profile}`, {count} {what}. The "
            "paper's is that of its own data: compare the steps, not the levels."
        )
    else:
        text = f"No run of this study at profile `{report.profile}` is here."
    if report.hours:
        where = " and ".join(f"{name} ({runs})" for name, runs in sorted(report.machines.items()))
        text += f" The runs took {duration(report.hours * 3600)}, added up, on {where}."
    if report.other_runs:
        text += (
            f" Not shown: {report.other_runs} run{'s' * (report.other_runs > 1)} in the store of "
            "other versions of these variants, edited since or changed by --set."
        )
    return text


def metric_table(
    report: Report, metrics: Sequence[Metric] | None = None
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each metric, or some of them, measured, printed, difference; seeds; size in
    the profile.
    """
    header, shown = ["variant"], metrics or report.study.metrics
    for metric in shown:
        header += [metric, "paper", "diff"]
    rows = []
    for row in report.rows:
        cells = [", ".join([_labelled(row.variant), *(f"deviates: {d}" for d in row.deviates)])]
        for metric in shown:
            cells += _beside(row.measured.get(metric), row.paper(metric))
        macs = "" if row.small_macs_b is None else f"{row.small_macs_b * 1e3:.0f}"
        params = "" if row.small_params_m is None else f"{row.small_params_m:.2f}"
        rows.append([*cells, str(len(row.runs)), macs, params])
    return [*header, "seeds", "MACs M", "params M"], rows


def _labelled(variant: Variant) -> str:
    return variant.label + (" (unpublished)" if variant.unpublished else "")


def _beside(measured: Estimate | None, paper: PaperValue | None) -> list[str]:
    found = "" if measured is None else with_interval(measured)
    gap = f"{measured.mean - paper.value:+.1f}" if measured and paper else ""
    return [found, printed(paper), gap]


def count_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and rows: multiply-adds (1e9) and parameters (1e6), counted, printed, difference."""
    header = ["variant", "MACs B", "paper", "diff", "params M", "paper", "diff"]
    rows = []
    for row in report.rows:
        cells = [_labelled(row.variant)]
        for count in ("macs_b", "params_m"):
            counted, value = getattr(row.full, count, None), row.paper(count)
            cells += ["" if counted is None else f"{counted:.2f}", printed(value)]
            cells.append("" if counted is None else relative(counted, value))
        rows.append(cells)
    return header, rows


def claim_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and rows: each claim's effect, interval, the paper's effect, corrected p, verdict,
    seeds that both of its variants have, seeds needed.
    """
    header = ["claim", "effect", "95 % interval", "paper", "p", "verdict", "seeds", "needs"]
    rows = []
    for j in report.judgements:
        effect = "" if j.effect is None else f"{j.effect:+.1f}"
        counted = j.claim.metric in COUNTED
        interval = "" if j.low is None or counted else f"{j.low:+.1f} to {j.high:+.1f}"
        paper = "" if j.claim.paper is None else f"{j.claim.paper:+.1f}"
        unit = {"macs_b": " B", "params_m": " M"}.get(j.claim.metric, "")
        cells = [j.claim.text, effect + unit, interval, paper, p_value(j.p), j.verdict]
        rows.append([*cells, str(j.seeds or ""), str(j.seeds_needed or "")])
    return header, rows


def noise_line(report: Report) -> str:
    """The noise band and what it lets one see, and what the claims' intervals and p are."""
    return f"{_noise(report)}{_corrected(report)}"


def _noise(report: Report) -> str:
    if not report.seeds:
        return f"Without runs no claim about {report.metric} is judged."
    if report.seeds == 1:
        return (
            f"One seed: no noise band, so no claim about {report.metric} can be judged. "
            "Run more seeds."
        )
    if report.deviation is None:
        return (
            f"No noise band: no variant that learns ({report.metric} above {LEARNED:.0f} on "
            "average) has two seeds."
        )
    text = (
        f"Noise over seeds: ± {report.deviation:.2f} {report.metric} (standard deviation, pooled "
        "over the variants that learn)."
    )
    if (shown := report.detectable(report.seeds)) is not None:
        text += f" {report.seeds} seeds show a true difference of {shown:.1f} {report.metric} with "
        text += "80 % power, "
        fewer = report.detectable(report.fewest)
        if fewer is not None and report.fewest < report.seeds:
            text += f"{report.fewest} seeds one of {fewer:.1f}, "
        text += "judged alone."
    return text


def _corrected(report: Report) -> str:
    """How many claims share the correction, which --only makes fewer."""
    tested = sum(judgement.p is not None for judgement in report.judgements)
    if not tested:
        return ""
    alone = "Intervals are of each claim alone"
    if tested == 1:
        family = f"{alone}, and so is p"
    else:
        family = f"{alone}; p is corrected for judging {tested} claims together (Holm)"
    return (
        f" {family}; needs: seeds that would settle the claim if the paper's effect held here, "
        "judged alone, four times in five."
    )


def p_value(p: float | None) -> str:
    """Three decimals; no p is zero."""
    if p is None:
        return ""
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def with_interval(value: Estimate) -> str:
    """`45.2 ± 1.3`, or the mean alone for one seed."""
    return f"{value.mean:.1f}" if value.half is None else f"{value.mean:.1f} ± {value.half:.1f}"


def printed(value: PaperValue | None) -> str:
    """A printed number as it was printed."""
    return "" if value is None else str(value.value)


def relative(counted: float, value: PaperValue | None) -> str:
    """Difference from a printed count in percent."""
    return "" if value is None else f"{(counted / value.value - 1) * 100:+.1f}%"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, the first column to the left and the numbers to the right."""
    align = "| --- |" + " ---: |" * (len(header) - 1)
    escaped = ([cell.replace("|", "\\|") for cell in cells] for cells in (header, *rows))
    lines = ["| " + " | ".join(cells) + " |" for cells in escaped]
    return "\n".join([lines[0], align, *lines[1:]])
