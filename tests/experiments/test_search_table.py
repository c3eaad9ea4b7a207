"""The table of trained networks: a fair sample, resumable, validated; what it says of the proxy."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from sklearn.ensemble import ExtraTreesRegressor

from experiments.counting import Job, counts
from experiments.errors import UserError
from experiments.search import documents, sampling, stored, table
from experiments.search.proxy import base_recipe, with_genotype
from experiments.search.sampling import PAPERS, SHARES, Network, sizes
from experiments.search.surrogate import Surrogate
from experiments.search.table import Plan, Run, Table, TableConfig, plan, read
from experiments.search.worth import within, worth
from experiments.store import Failure, Store, write_failure
from experiments.study import Cell
from spinenet.complexity import Complexity
from spinenet.search.features import NAMES, features
from spinenet.search.graph_hash import graph_hash
from spinenet.search.space import space
from tests.experiments.search_helpers import finish

CONFIG = TableConfig(
    samples=16, repeated=4, repeats=3, longer=8, profile="smoke", long_profile="smoke"
)


def by_hand(jobs: list[Job], processes: int) -> list[Complexity]:
    """Counting hundreds of networks takes a minute; a sum over their blocks will do."""
    genotypes = [recipe.model.backbone.genotype for recipe, _ in jobs]
    return [Complexity(features(g)[NAMES.index("work")], 1.0, {}) for g in genotypes]


@pytest.fixture
def _cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.search.sampling.count_all", by_hand)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.search.sampling.count_all", by_hand)
        return plan(CONFIG, tmp_path_factory.mktemp("none") / "table.json")


def made(networks: int, seed: int = 0, noise: float = 1.0) -> Table:
    """A table whose AP follows from the network's cost, with noise over seeds."""
    rng, where = np.random.default_rng(seed), space("spinenet")
    rows = [where.sample(rng) for _ in range(networks)]
    found = [
        Network("spinenet", row, graph_hash(where.decode(row)), float(place), 1.0)
        for place, row in enumerate(rows)
    ]
    runs = [
        Run(one.hash, part, s, scale * one.macs_m + noise * rng.standard_normal(), 10, 9, f"{i}{s}")
        for i, one in enumerate(found)
        for part, s, scale in (("proxy", 0, 1), ("proxy", 1, 1), ("longer", 0, 2))
    ]
    return Table(CONFIG, {}, tuple(found), tuple(runs))


class TestSample:
    @pytest.mark.parametrize("samples", [1, 16, 100, 300])
    def test_every_space_has_its_share(self, samples):
        found = sizes(samples)
        assert sum(found.values()) == samples
        assert all(abs(found[name] - samples * share) < 1 for name, share in SHARES.items())

    def test_the_papers_networks_come_first_and_then_others(self, planned):
        assert [one.name for one in planned.networks[: len(PAPERS)]] == list(PAPERS)
        others = planned.networks[len(PAPERS) :]
        assert Counter(one.space for one in others) == Counter(
            {name: count for name, count in sizes(CONFIG.samples).items() if count}
        )
        assert len({one.hash for one in planned.networks}) == len(planned.networks)

    def test_each_is_from_another_part_of_the_costs(self):
        networks = [
            replace(one, macs_m=7.0 * place % 60) for place, one in enumerate(made(60).networks)
        ]
        spread = sampling._spread(networks, np.random.default_rng(0))
        costs = sorted(one.macs_m for _, one in spread)
        assert [cost // sampling.GROUP for cost in costs] == list(range(60 // sampling.GROUP))
        places = [place for place, _ in spread]
        assert len(set(places)) == len(places)
        assert places != sorted(places)

    def test_costs_are_those_of_the_network_as_it_is_trained(self):
        base = base_recipe("proxy", "smoke")
        (network,) = made(1).networks
        recipe = with_genotype(base, network.genotype, 0)
        (known,) = sampling.costed([network], base)
        assert known.macs_m == counts(recipe, 11).macs_b * 1e3
        assert known.macs_m < counts(recipe).macs_b * 1e3  # with the official head

    @pytest.mark.usefixtures("_cheap")
    def test_the_same_settings_draw_the_same(self, planned, tmp_path):
        assert plan(CONFIG, tmp_path / "none.json").networks == planned.networks
        other = plan(replace(CONFIG, seed=1), tmp_path / "none.json")
        assert not {one.hash for one in other.networks} <= {one.hash for one in planned.networks}

    @pytest.mark.usefixtures("_cheap")
    def test_another_proxy_is_judged_by_the_networks_of_a_table(self, planned, tmp_path):
        path, none = tmp_path / "table.json", tmp_path / "none.json"
        theirs = tuple(replace(one, macs_m=1.0) for one in reversed(planned.networks[3:]))
        networks = (*planned.networks[:3], *theirs)
        stored.write(path, Table(CONFIG, {}, networks))
        found = plan(replace(CONFIG, profile="embedded"), none, path)
        assert [one.hash for one in found.networks] == [one.hash for one in networks]
        assert found.networks[3].macs_m == planned.networks[-1].macs_m
        with pytest.raises(UserError, match=r"--networks .*: seed is 0, not 1; give --seed 0"):
            plan(replace(CONFIG, seed=1), none, path)
        with pytest.raises(UserError, match=r"--networks .*: there is no such table"):
            plan(CONFIG, none, none)


class TestRuns:
    def test_every_part_has_its_runs(self, planned):
        assert len(planned.entries) == CONFIG.runs
        parts = Counter((e.part, e.cell.seed) for e in planned.entries)
        papers = len(PAPERS)
        assert parts == {
            ("proxy", 0): 16 + papers,
            ("proxy", 1): 4 + papers,
            ("proxy", 2): 4 + papers,
            ("longer", 0): 8 + papers,
        }
        assert len({e.cell.run_id for e in planned.entries}) == len(planned.entries)

    def test_what_is_trained_more_than_once_is_of_each_space_its_share(self):
        rng = np.random.default_rng(0)
        places = sorted(
            (place, name)
            for name, count in sizes(300).items()
            for place in (rng.permutation(count) + 0.5) / count
        )
        networks = [SimpleNamespace(space=name) for _, name in places]
        for number in (30, 50):
            chosen = table._chosen(number, networks)
            assert len(chosen) == number
            found = Counter(networks[place].space for place in chosen)
            for name, share in SHARES.items():
                assert abs(found[name] - number * share) <= 1, name

    def test_the_beginning_is_a_smaller_table(self, planned):
        half = planned.entries[: len(planned.entries) // 2]
        parts = Counter(e.part for e in half)
        assert 0.15 < parts["longer"] / len(half) < 0.5
        assert {e.cell.seed for e in half} == {0, 1, 2}

    def test_it_goes_on_from_the_file_and_from_the_store(self, planned, tmp_path):
        store, path = Store(tmp_path / "runs"), tmp_path / "table.json"
        done = [entry.cell for entry in planned.entries[:10]]
        for cell in done:
            finish(store, cell)
        stored.write(path, planned.table(store))
        again = plan(CONFIG, path)
        assert again.missing(Store(tmp_path / "elsewhere")) == planned.missing(store)
        assert {cell.run_id for cell in planned.missing(store)}.isdisjoint(c.run_id for c in done)
        later = planned.entries[20].cell
        finish(store, later)
        assert len(again.table(store).runs) == 11
        assert later not in again.missing(store)

    def test_what_another_process_wrote_meanwhile_is_kept(self, planned, tmp_path):
        path, stores = tmp_path / "table.json", [Store(tmp_path / name) for name in "ab"]
        for store, entries in zip(stores, (planned.entries[:3], planned.entries[3:8]), strict=True):
            for entry in entries:
                finish(store, entry.cell)
            stored.write(path, planned.table(store, path))
        assert len(read(path).runs) == 8

    def test_runs_of_a_profile_that_has_changed_are_refused(self, planned, tmp_path, monkeypatch):
        path = tmp_path / "table.json"
        stored.write(path, planned.table(Store(tmp_path)))
        plan(CONFIG, path)
        monkeypatch.setattr(table, "base_recipe", lambda *of: replace(base_recipe(*of), seed=7))
        with pytest.raises(
            UserError, match=r"bases\.proxy is .*'smoke' or what.*has changed since"
        ):
            plan(CONFIG, path)

    def test_a_loss_that_diverged_is_a_result_and_another_failure_is_not(self, planned, tmp_path):
        store = Store(tmp_path)
        first, second = (entry.cell for entry in planned.entries[:2])
        write_failure(store.folder(first.run_id, "x"), Failure("NonFiniteLossError", "loss"))
        write_failure(store.folder(second.run_id, "x"), Failure("ProcessDied", "killed"))
        (run,) = planned.table(store).runs
        assert (run.run_id, run.ap, run.diverged) == (first.run_id, 0.0, True)
        assert second in planned.missing(store)


class TestFile:
    def test_it_comes_back_as_it_was_written(self, planned, tmp_path):
        store = Store(tmp_path / "runs")
        for entry in planned.entries:
            finish(store, entry.cell)
        whole = planned.table(store)
        stored.write(tmp_path / "table.json", whole)
        assert read(tmp_path / "table.json") == whole
        assert len((tmp_path / "table.json").read_text().splitlines()) > len(whole.runs)
        run = whole.runs[0]
        assert (run.commit, run.processor, run.seconds) == ("0123456789", "made up", 2.0)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda t: t | {"schema_version": 9}, "schema_version: 9"),
            (
                lambda t: t["networks"][0].update(hash="0" * 16),
                r"networks\.0.*not 0000000000000000",
            ),
            (lambda t: t["networks"][0].update(space="fihs"), "did you mean 'fish'"),
            (lambda t: t["networks"][0].update(choices=[2]), r"networks\.0.*no choice is left"),
            (lambda t: t["runs"][0].update(network="none"), "none is no network of the table"),
            (lambda t: t["runs"][0].update(ap="high"), r"runs\.0\.ap"),
            (lambda t: t["config"].update(samples=-1), "samples -1"),
        ],
    )
    def test_a_damaged_file_is_refused_with_the_field(self, tmp_path, change, told):
        path = tmp_path / "table.json"
        stored.write(path, made(3))
        body = json.loads(path.read_text())
        body = change(body) or body
        path.write_text(json.dumps(body))
        with pytest.raises(UserError, match=told) as caught:
            read(path)
        assert "restore the file" in str(caught.value)

    def test_a_file_that_is_no_json_is_refused(self, tmp_path):
        path = tmp_path / "table.json"
        for text, told in (("{", "not JSON"), ("[]", "schema_version: None")):
            path.write_text(text)
            with pytest.raises(UserError, match=told):
                read(path)
        assert read(tmp_path / "none.json") is None

    def test_other_settings_are_refused(self, planned, tmp_path):
        stored.write(tmp_path / "t.json", planned.table(Store(tmp_path)))
        with pytest.raises(UserError, match=r"longer is 8, not 5.*--out"):
            plan(replace(CONFIG, longer=5), tmp_path / "t.json")

    @pytest.mark.parametrize("change", [{"samples": 0}, {"repeated": 17}, {"longer": -1}])
    def test_settings_that_make_no_sense_are_refused(self, change):
        (name,) = change
        with pytest.raises(UserError, match=name):
            replace(CONFIG, **change)


class TestWorth:
    def test_noise_and_spread_are_those_of_the_runs(self):
        found = worth(made(200, noise=2.0))
        assert found is not None
        assert found.noise == pytest.approx(2.0, rel=0.15)
        assert found.spread == pytest.approx(np.std(np.arange(200), ddof=1), rel=0.05)
        assert found.reliability == pytest.approx(1 - (found.noise / found.spread) ** 2)
        assert found.outside_training == pytest.approx(0.1)
        assert found.seconds == {"proxy": 10, "longer": 10}

    def test_times_are_of_the_machine_that_trained_most(self):
        table = made(20)
        quick = [replace(run, seconds=1.0, processor="a GPU") for run in table.runs[::3]]
        others = [run for place, run in enumerate(table.runs) if place % 3]
        found = worth(replace(table, runs=(*quick, *others)))
        assert found.machine == others[0].processor
        assert found.seconds == {"proxy": 10, "longer": 10}
        lost = [replace(run, diverged=True, ap=0.0) for run in table.runs]
        assert worth(replace(table, runs=tuple(lost))).seconds == {}

    def test_correlations_are_scipys_and_their_intervals_hold_the_truth(self):
        table = made(40, noise=10.0)
        found = worth(table)
        assert found is not None
        assert found.kendall is not None
        proxy, longer = table.ap("proxy"), table.ap("longer")
        pairs = [(proxy[name][0], longer[name][0]) for name in longer]
        assert found.kendall.value == stats.kendalltau(*zip(*pairs, strict=True)).statistic
        assert found.spearman.value == stats.spearmanr(*zip(*pairs, strict=True)).statistic
        assert found.kendall.low < found.kendall.value < found.kendall.high
        assert found.kendall.pairs == 40
        wider = worth(made(10, noise=10.0)).kendall
        assert wider.high - wider.low > found.kendall.high - found.kendall.low

    def test_the_best_of_one_are_the_best_of_the_other_where_nothing_is_by_chance(self):
        assert worth(made(20, noise=0.0)).overlap == (4, 4)
        again, best = worth(made(200, noise=1e6)).overlap
        assert best == 40
        assert again < 20

    def test_the_better_half_and_multiply_adds_are_looked_at_apart(self):
        table = made(40, noise=0.5)
        proxy, longer = table.ap("proxy"), table.ap("longer")
        pairs = sorted((proxy[name][0], longer[name][0]) for name in longer)[20:]
        macs = [(one.macs_m, proxy[one.hash][0]) for one in table.networks]
        found = worth(table)
        for correlation, expected in ((found.kendall_better, pairs), (found.with_macs, macs)):
            kendall = stats.kendalltau(*zip(*expected, strict=True)).statistic
            assert (correlation.value, correlation.pairs) == (kendall, len(expected))

    def test_resamples_that_are_all_alike_leave_the_interval(self):
        table = made(12, noise=0.0)
        odd = table.networks[0].hash
        runs = tuple(replace(run, ap=float(run.network == odd)) for run in table.runs)
        found = worth(replace(table, runs=runs)).kendall
        assert (found.low, found.value, found.high) == pytest.approx((1.0, 1.0, 1.0))

    def test_a_network_of_the_paper_stands_among_samples_of_its_space(self):
        table = made(11, noise=0.0)
        named = tuple(
            replace(one, name="spinenet-49" if place == 7 else "")
            for place, one in enumerate(table.networks)
        )
        (found,) = worth(replace(table, networks=named)).standings
        assert (found.name, found.ap, found.seeds) == ("spinenet-49", 7.0, 2)
        assert (found.below, found.samples) == (0.7, 10)

    def test_a_space_is_judged_by_itself(self):
        """Two spaces of different levels, in each of which the proxy ranks by chance."""
        first, where, rng = made(30), space("fish"), np.random.default_rng(9)
        rows = [where.sample(rng) for _ in range(30)]
        others = tuple(Network("fish", r, graph_hash(where.decode(r)), 1.0, 1.0) for r in rows)
        runs = tuple(
            Run(one.hash, part, 0, level + rng.standard_normal(), 10, 9, f"{one.hash}{part}")
            for level, some in ((10, first.networks), (30, others))
            for one in some
            for part in ("proxy", "longer")
        )
        both = replace(first, networks=first.networks + others, runs=runs)
        assert worth(both).kendall.value > 0.4
        inside = worth(within(both, "fish"))
        assert inside.networks == 30
        assert inside.kendall.low < 0 < inside.kendall.high
        header, lines = documents.worth_table(both)
        assert header[1:3] == ["in `spinenet`", "in all spaces"]
        told = {what: (here, everywhere) for what, here, everywhere, _ in lines}
        assert told["networks"] == ("30", "60")

    def test_too_little_says_nothing(self):
        assert worth(made(1)) is None
        few = worth(made(4))
        assert few.kendall is None
        assert few.overlap is None
        alike = made(8)
        runs = tuple(replace(run, ap=0.0) for run in alike.runs)
        nothing = worth(replace(alike, runs=runs))
        assert (nothing.kendall, nothing.reliability, nothing.noise) == (None, None, 0.0)
        assert documents.proxy_markdown(None) == documents.NO_TABLE
        assert documents.proxy_markdown(made(1)) == documents.NO_TABLE

    def test_as_markdown_it_says_all_that_is_known(self):
        text = documents.proxy_markdown(made(40))
        for word in ("noise over seeds", "Kendall", "Spearman", "40 networks", "best fifth"):
            assert word in text


class TestSurrogate:
    def test_it_tells_networks_apart_that_it_has_not_seen(self):
        """AP follows from how many blocks stand at level 3, which is one of the features."""
        table = fine(80)
        model = Surrogate(table, space("spinenet"), 10)
        assert model.error.networks == 80
        assert model.error.kendall > 0.5
        assert model.error.explained > 0.5
        assert model.noise == pytest.approx(0.1, rel=0.5)
        where, rng = space("spinenet"), np.random.default_rng(5)
        rows = [where.sample(rng) for _ in range(20)]
        truth = [blocks_at_3(where.decode(row)) for row in rows]
        assert stats.spearmanr(model.worths(rows), truth).statistic > 0.6

    def test_what_rewards_a_seed_does_not_judge_it(self):
        where = space("spinenet")
        model = Surrogate(fine(60), where, 5)
        row = where.sample(np.random.default_rng(5))
        told = model.worths([row] * len(model.models))
        assert len(set(told)) > 1
        for seed in range(len(told)):
            assert model.judged(row, seed) == told[seed ^ 1]
        assert model.judged(row, len(told) + 2) == told[3]
        assert model.worths([row] * 3) == told[:3]

    def test_models_that_judge_each_other_know_different_halves_of_the_table(self, monkeypatch):
        fitted: list[set[bytes]] = []

        class Recorded(ExtraTreesRegressor):
            def fit(self, inputs, aps):
                fitted.append({row.tobytes() for row in inputs})
                return super().fit(inputs, aps)

        monkeypatch.setattr("experiments.search.surrogate._model", lambda: Recorded(5))
        table = fine(60)
        Surrogate(table, space("spinenet"), 6)
        every = {features(one.genotype).tobytes() for one in table.networks}
        assert len(fitted) == 6
        for first, second in zip(fitted[::2], fitted[1::2], strict=True):
            assert first | second == every
            assert len(first & second) <= len(table.networks) - len(every)  # features alike
        assert fitted[0] not in fitted[2:]

    def test_where_there_is_nothing_to_learn_its_error_says_so(self):
        error = Surrogate(made(60, noise=1e4), space("spinenet"), 10).error
        assert abs(error.kendall) < 0.4
        assert error.explained < 0.2

    def test_it_never_promises_more_than_the_table_has(self):
        table = fine(60)
        where, rng = space("spinenet"), np.random.default_rng(3)
        found = Surrogate(table, where, 10).worths([where.sample(rng) for _ in range(100)])
        assert max(found) <= max(run.ap for run in table.runs)

    def test_a_table_that_is_too_small_is_refused(self):
        with pytest.raises(UserError, match="8 trained networks, 8 of the space spinenet, and a"):
            Surrogate(made(8), space("spinenet"), 2)
        with pytest.raises(UserError, match="60 trained networks, 0 of the space fish, and a mod"):
            Surrogate(made(60), space("fish"), 2)


def fine(networks: int) -> Table:
    """A table in which blocks at level 3 are what counts."""
    table, rng = made(networks), np.random.default_rng(1)
    of = {one.hash: blocks_at_3(one.genotype) for one in table.networks}
    runs = [replace(run, ap=of[run.network] + 0.1 * rng.standard_normal()) for run in table.runs]
    return replace(table, runs=tuple(runs))


def blocks_at_3(genotype) -> int:
    return sum(genotype.nodes[i].level == 3 for i in genotype.built())


@pytest.mark.usefixtures("_cheap")
def test_the_table_on_the_command_line(run, tmp_path, monkeypatch):
    """Stopped, it keeps what there is; the same command goes on and says what was found."""
    started: list[Cell] = []

    def some(executor, cells, store, runtimes, workers, watch, max_seconds):
        for cell in cells[: 10 if not started else len(cells)]:
            watch(cell, {"kind": "start"})
            finish(store, cell)
            watch(cell, {"kind": "done"})
            started.append(cell)
        if len(started) == 10:
            assert len(read(out).runs) == 10  # before the session ends
            raise KeyboardInterrupt
        return []

    monkeypatch.setattr("experiments.executors.run_cells", some)
    monkeypatch.setattr("experiments.pricing.price_runs", lambda cells, store: {})
    out: Path = tmp_path / "table.json"
    small = ("-n", 16, "--repeated", 4, "--longer", 8, "-p", "smoke", "--long-profile", "smoke")
    asked = ("search-table", *map(str, small), "--runs", tmp_path / "runs", "--out", out)
    code, _, err = run(*asked)
    assert code == 130
    assert "10 of" in err
    assert len(read(out).runs) == 10
    code, text, _ = run(*asked, "--json")
    assert code == 0
    assert len({cell.run_id for cell in started}) == len(started) == len(read(out).runs)
    assert json.loads(text)["networks"] == 16
    page, drawn = tmp_path / "page.md", tmp_path / "proxy.svg"
    page.write_text("<!-- table: search proxy -->\n<!-- end -->\n")
    code, *_ = run("search-table", "--stored", "--out", out, "--into", page, "--figure", drawn)
    assert code == 0
    assert documents.proxy_markdown(read(out)) in page.read_text()
    assert "<svg" in drawn.read_text()


def test_checkpoints_of_finished_runs_make_room(planned, tmp_path):
    store, (first, second) = Store(tmp_path), (entry.cell for entry in planned.entries[:2])
    finish(store, first)
    for cell in (first, second):
        (store.folder(cell.run_id, cell.recipe.name) / "checkpoints").mkdir(parents=True)
        store.drop_checkpoints(cell.run_id)
    kept = [(store.find(cell.run_id) / "checkpoints").is_dir() for cell in (first, second)]
    assert kept == [False, True]
