"""Controllers compared: the optimum is what it is said to be, the comparison is fair and can be
done again, and where there is something to learn, learning pays.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments.errors import UserError
from experiments.search import contest as contests
from experiments.search import documents, stored
from experiments.search.contest import Contest, ContestConfig, gains, hold, objective
from experiments.search.objectives import Planted
from experiments.statistics import estimate
from spinenet.search.space import Choices, Space, space
from tests.experiments.test_search_table import made

CONFIG = ContestConfig("synthetic", space="fish", samples=20, seeds=3, lag=4)


class Sum:
    """The worth of a row is the sum of its choices; what is told of it has noise."""

    optimum = None

    def __init__(self, noise: float = 0.0) -> None:
        self.space, self.noise = space("fish"), noise
        self.asked: list[list[Choices]] = []

    def worths(self, rows: list[Choices]) -> list[float]:
        self.asked.append(list(rows))
        return [self.judged(row, seed) for seed, row in enumerate(rows)]

    def judged(self, row: Choices, seed: int) -> float:
        return float(sum(row))

    def identity(self, row: Choices) -> Choices:
        return row


class TestPlanted:
    @pytest.mark.parametrize("name", ["spinenet", "r0-sp53", "fish"])
    def test_only_the_hidden_row_has_the_optimum(self, name):
        planted = Planted(space(name), 4)
        assert planted.worths(planted.hidden) == [planted.optimum] * 4
        rng = np.random.default_rng(0)
        for row in planted.hidden:
            for _ in range(25):
                other = list(row)
                place = int(rng.integers(len(row)))
                other[place] += 1
                assert planted._worth(tuple(other), row) < planted.optimum

    def test_a_block_counts_more_than_its_choices_one_by_one(self):
        planted = Planted(space("spinenet"), 1)
        (hidden,) = planted.hidden
        one_block, spread = ([-9] * len(hidden) for _ in range(2))
        block = planted.blocks[0]
        for place in block:
            one_block[place] = hidden[place]
        for place in [places[0] for places in planted.blocks][1 : 1 + len(block)]:
            spread[place] = hidden[place]
        found = [planted._worth(tuple(row), hidden) for row in (one_block, spread)]
        assert found[0] > found[1] > 0

    def test_every_seed_has_its_own(self):
        assert len(set(Planted(space("fish"), 20).hidden)) == 20


class TestHold:
    def test_the_same_settings_give_the_same_curves(self):
        first, second = (hold(CONFIG, *objective(CONFIG, None)) for _ in range(2))
        assert first.curves == second.curves
        assert set(first.curves) == {"policy", "evolution", "random"}
        assert first.marks[0] == 1
        assert set(contests.table_marks(20)) == {4, 8, 12, 16, 20} <= set(first.marks)

    def test_without_noise_a_curve_is_the_best_so_far(self):
        tried = Sum()
        found = hold(CONFIG, tried, {})
        of_policy = tried.asked[: CONFIG.samples]
        for seed, curve in enumerate(found.curves["policy"]):
            best = np.maximum.accumulate([sum(rows[seed]) for rows in of_policy])
            assert list(curve) == [best[mark - 1] for mark in found.marks]

    def test_with_noise_the_choice_is_by_the_reward_and_not_by_the_worth(self):
        quiet, noisy = (hold(CONFIG, Sum(noise), {}) for noise in (0.0, 50.0))
        assert np.mean(noisy.after("random", 20)) < np.mean(quiet.after("random", 20))
        drops = [np.diff(curve).min() for curve in noisy.curves["random"]]
        assert min(drops) < 0

    def test_a_row_that_is_asked_again_is_worth_what_it_was(self):
        row = space("fish").sample(np.random.default_rng(0))

        class Stubborn:
            told: list[float] = []  # noqa: RUF012

            def ask(self, number: int) -> Choices:
                return row

            def tell(self, choices: Choices, reward: float) -> None:
                self.told.append(reward)

        searcher = contests._Searcher(Stubborn(), seed=0, objective=Sum(noise=1.0), lag=2)
        for _ in range(6):
            searcher.hear(searcher.ask(), 5.0)
        assert len(Stubborn.told) == 4  # the last two are not told yet
        assert len(set(Stubborn.told)) == 1
        assert Stubborn.told[0] != 5.0

    def test_a_table_is_replayed_by_its_model(self):
        config = ContestConfig("replay", samples=6, seeds=2)
        table = made(60)
        tried, facts = objective(config, table)
        found = hold(config, tried, facts)
        assert found.optimum is None
        assert found.noise == tried.noise > 0
        assert found.facts["networks"] == 60
        highest = max(run.ap for run in table.runs if run.part == "proxy")
        assert max(found.after("random", 6)) <= highest
        assert contests.is_of(found, table)
        assert not contests.is_of(found, made(61))

    def test_without_a_table_there_is_nothing_to_replay(self):
        with pytest.raises(UserError, match="search-table"):
            objective(ContestConfig("replay"), None)


def test_learning_beats_chance_on_the_synthetic_objective():
    """Ten seeds, at an equal number of samples; corrected for both comparisons. The space has 1e9
    rows, few enough for seconds; docs/search.md has the comparison in that of SpineNet-49.
    """
    small = Space("small", (2, 2), (3,), adjusts=True)
    config = ContestConfig("synthetic", samples=150, seeds=10)
    found = hold(config, Planted(small, config.seeds), {})
    over_chance = [gain for gain in gains(found) if gain.over == "random"]
    assert len(over_chance) == 2
    for gain in over_chance:
        assert gain.difference.low > 0, gain
        assert gain.p < 0.01, gain


def contest(values: dict[str, list[float]]) -> Contest:
    """Controllers whose seeds end at these values."""
    config = replace(CONFIG, seeds=len(values["random"]), samples=10)
    curves = {name: tuple((0.0,) * 4 + (value,) for value in ends) for name, ends in values.items()}
    return Contest(config, 0.0, 1.0, (2, 4, 6, 8, 10), curves)


class TestReport:
    GOOD, BAD = [0.9, 0.8, 0.85, 0.9], [0.5, 0.45, 0.5, 0.4]

    def test_gains_are_paired_by_seed_and_corrected(self):
        found = gains(contest({"policy": self.GOOD, "evolution": self.BAD, "random": self.BAD}))
        policy, evolution, between = found
        assert policy.difference.mean == pytest.approx(0.4)
        assert (between.controller, between.over) == ("policy", "evolution")
        assert between.difference.mean == pytest.approx(0.4)
        assert policy.p < 0.01
        assert (evolution.difference.mean, evolution.p) == (0.0, 1.0)

    def test_seeds_with_the_same_halves_of_a_table_count_once(self):
        ends = {"policy": [9.0, 7.0, 5.0, 5.0, 6.0], "random": [1.0, 1.0, 3.0, 4.0, 5.0]}
        made = contest(ends)
        replay = replace(made, config=replace(made.config, name="replay"), optimum=None)
        assert (made.replicates, replay.replicates) == (5, 3)
        assert replay.after("policy", 10) == [8.0, 5.0, 6.0]
        (gain,) = gains(replay)
        assert gain.difference == estimate([7.0, 1.5, 1.0])
        assert gain.p > gains(made)[0].p

    def test_the_verdict_says_who_won(self):
        text = documents.contest_verdict(
            contest({"policy": self.GOOD, "evolution": self.BAD, "random": self.BAD})
        )
        assert "policy beats chance" in text
        assert "evolution cannot be told from chance" in text
        assert "policy beats evolution" in text
        worse = contest({"policy": self.BAD, "random": self.GOOD})
        assert "policy is worse than chance" in documents.contest_verdict(worse)

    def test_regret_is_what_is_missing_to_the_optimum(self):
        header, rows = documents.contest_table(contest({"policy": self.GOOD, "random": self.BAD}))
        assert header[1:6] == ["2", "4", "6", "8", "10"]
        assert rows[0][5].startswith(f"{1 - np.mean(self.GOOD):.3f}")
        assert rows[0][6].startswith("+0.4")
        assert rows[1][6:] == ["", ""]

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            (lambda c: c["curves"]["random"].pop(), r"curves\.random: 3 seeds, not 4"),
            (lambda c: c["curves"]["random"][0].pop(), r"curves\.random: a curve has not 5 points"),
            (lambda c: c.update(noise="loud"), "noise"),
        ],
    )
    def test_a_damaged_file_is_refused(self, tmp_path, change, told):
        path = tmp_path / "contest.json"
        stored.write(path, contest({"random": self.GOOD}))
        body = json.loads(path.read_text())
        change(body)
        path.write_text(json.dumps(body))
        with pytest.raises(UserError, match=told):
            stored.read(path, Contest, "hold it again")


def test_a_contest_on_the_command_line(run, tmp_path, monkeypatch):
    out: Path = tmp_path / "synthetic.json"
    asked = ("search-contest", "synthetic", "--space", "fish", "-n", "10", "--seeds", "2")
    code, text, _ = run(*asked, "--out", out)
    assert code == 0
    assert "Regret" in text
    assert documents.contest_verdict(stored.read(out, Contest, "")) in text.replace("\n", " ")
    monkeypatch.setattr(contests, "hold", None)  # what was held is not held again
    page, drawn = tmp_path / "page.md", tmp_path / "contest.svg"
    page.write_text("<!-- table: search synthetic -->\n<!-- end -->\n")
    code, *_ = run(*asked, "--out", out, "--into", page, "--figure", drawn)
    assert code == 0
    held = stored.read(out, Contest, "")
    assert documents.contest_markdown("synthetic", held) in page.read_text()
    assert "<svg" in drawn.read_text()
    code, _, err = run(*asked[:-1], "3", "--out", out)
    assert code == 2
    assert f"{out}: seeds is 2, not 3; go on with the same settings, or write another" in err
    assert stored.read(out, Contest, "") == held
    code, _, err = run("search-contest", "syntetic")
    assert code == 2
    assert "did you mean 'synthetic'" in err
    code, _, err = run("search-contest", "replay", "--table", tmp_path / "none.json")
    assert code == 2
    assert "no table to replay" in err


def test_the_spaces_on_the_command_line(run, tmp_path):
    code, text, _ = run("search-spaces", "--json")
    assert code == 0
    assert json.loads(text)["spinenet"]["scale permutations"] == 435_456_000
    page = tmp_path / "page.md"
    page.write_text("<!-- table: search spaces -->\n<!-- end -->\n")
    assert run("search-spaces", "--into", page, "--json")[1] == text
    assert "435,456,000 scale permutations" in page.read_text()
