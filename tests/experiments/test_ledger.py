"""The ledger: printed numbers are consistent and each gets the status that it deserves."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.claims import Judgement
from experiments.counting import full_size
from experiments.errors import UserError
from experiments.ledger.checkpoints import (
    CheckpointScores,
    activation_of,
    answered,
    read_scores,
    zoo_name,
)
from experiments.ledger.entries import Entry, judge_number, networks
from experiments.ledger.printed import Printed, Sentence, load_book
from experiments.ledger.report import (
    MEANINGS,
    STATUSES,
    in_short,
    make_ledger,
    summary,
    to_markdown,
)
from experiments.ledger.verdicts import Verdict, judge_claim, judge_sentence
from experiments.store import Store
from experiments.study import COUNTED, Claim
from experiments.study_file import load_study, shipped_studies
from spinenet import zoo
from spinenet.complexity import Complexity

ROOT = Path(__file__).parents[2]
BOOK = load_book()
STUDIES = {name: load_study(name) for name in shipped_studies()}
NETWORKS = networks(STUDIES)
COUNTS = {"one_stage/spinenet-49": Complexity(85.284, 28.54, {})}

NUMBER = Printed(
    table="tpu-zoo-retinanet",
    place="model zoo",
    model="SpineNet-49",
    quantity="AP",
    value=42.8,
    sources=("tpu_zoo",),
    variant="one_stage/spinenet-49",
    data="COCO val2017",
    protocol="B",
    side=640,
)
SCORES = CheckpointScores(
    metrics={"AP": 42.85},
    pictures=5000,
    model="spinenet-49",
    task="retinanet",
    code_base="tensorflow/tpu",
    activation="relu",
    side=640,
)
CLAIM = Claim("better", "A beats B", "a", "b", "greater", "table 2", paper=2.9)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory):
    return make_ledger([Store(tmp_path_factory.mktemp("no-runs"))])


def changed(number: Printed, **facts: object) -> Printed:
    return Printed(**{**number.__dict__, **facts})


class TestPrinted:
    def test_every_number_names_a_network_and_sources_that_exist(self):
        assert len(BOOK.numbers) > 400
        for number in BOOK.numbers:
            assert number.variant in NETWORKS or not number.variant, number
            assert set(number.sources) <= set(BOOK.sources), number

    def test_every_sentence_is_judged_by_claims_that_exist_or_says_why_not(self):
        claims = {f"{s.id}/{c.id}" for s in STUDIES.values() for c in s.claims}
        for said in BOOK.sentences:
            assert set(said.judged_by) <= claims
            assert bool(said.judged_by) + bool(said.beyond) + bool(said.open) == 1, said

    def test_a_row_is_about_the_network_of_its_size(self):
        for number in BOOK.numbers:
            study, variant = NETWORKS.get(number.variant, (None, None))
            if study is not None and not variant.unpublished and number.side:
                assert full_size(study, variant).data.transform.side == number.side, number

    def test_studies_print_what_the_book_prints(self):
        """A study repeats printed values where its reader needs them; none may differ."""
        printed = {}
        for n in BOOK.numbers:
            if not n.beyond:
                printed.setdefault(n.quantity, set()).add(n.value)
        for study in STUDIES.values():
            for variant in study.variants.values():
                for metric, value in variant.paper.items():
                    assert value.value in printed[metric], (study.id, variant.id, metric)

    @pytest.mark.parametrize(
        ("value", "rounding"), [(85.4, 0.05), (2.34, 0.005), (524, 0.5), (1885.0, 0.05)]
    )
    def test_rounding_is_half_the_last_digit(self, value, rounding):
        assert changed(NUMBER, value=value).rounding == pytest.approx(rounding)


class TestNumbers:
    def judged(self, number: Printed, scores: tuple[CheckpointScores, ...] = ()) -> Entry:
        return judge_number(number, NETWORKS, COUNTS, scores)

    @pytest.mark.parametrize(
        ("value", "status"),
        [(85.3, "exact"), (85.4, "within 1 %"), (86.0, "within 1 %"), (87.0, "differs")],
    )
    def test_counts_agree_by_their_printed_digits(self, value, status):
        entry = self.judged(changed(NUMBER, quantity="macs_b", value=value))
        assert entry.status == status
        assert entry.found.startswith("85.28")

    def test_accuracy_is_priced_by_its_schedule(self):
        entry = self.judged(NUMBER)
        assert entry.status == "not attempted"
        work = 3 * 85.284e9 * 118_287 * 350
        assert float(entry.detail.split()[0]) == pytest.approx(work, rel=0.05)
        twice = self.judged(changed(NUMBER, epochs=700))
        assert float(twice.detail.split()[0]) == pytest.approx(2 * work, rel=0.05)

    @pytest.mark.parametrize(("printed", "status"), [(42.8, "confirmed"), (42.7, "not confirmed")])
    def test_an_imported_checkpoint_confirms_what_it_scores(self, printed, status):
        entry = self.judged(changed(NUMBER, value=printed), (SCORES,))
        assert (entry.status, entry.found) == (status, "42.85")

    @pytest.mark.parametrize(
        "facts",
        [
            {"protocol": "C"},
            {"side": 896},
            {"model": "SpineNet-96"},
            {"variant": "two_stage/spinenet-49"},
            {"table": "garden-retinanet"},
            {"quantity": "AP50"},
            {"data": "COCO test-dev"},
        ],
    )
    def test_a_checkpoint_says_nothing_of_other_rows(self, facts):
        assert not SCORES.answers(changed(NUMBER, **facts))
        assert SCORES.answers(NUMBER)

    def test_of_rows_that_differ_in_their_schedule_it_answers_the_nearest(self):
        found = answered(BOOK.numbers, (SCORES,))
        rows = [n for n in found if n.table == "tpu-zoo-retinanet"]
        assert [(n.model, n.epochs, n.value) for n in rows] == [("SpineNet-49", 350, 42.8)]
        short = replace(SCORES, metrics={"AP": 37.9})
        rows = [n for n in answered(BOOK.numbers, (short,)) if n.table == "tpu-zoo-retinanet"]
        assert [(n.epochs, n.value) for n in rows] == [(72, 37.7)]

    @pytest.mark.parametrize(
        ("table", "model", "epochs", "activation"),
        [
            ("garden-mask-rcnn", "SpineNet-96", 500, "swish"),
            ("garden-mask-rcnn", "SpineNet-49", 350, "relu"),
            ("garden-mobile", "Mobile SpineNet-49S", 600, "hard_swish"),
            ("tpu-zoo-mobile", "Mobile SpineNet-49", 600, "swish"),
            ("table-11-inaturalist", "SpineNet-49", 200, "swish"),
            ("garden-classification", "ResNet-50", 200, "relu"),
        ],
    )
    def test_the_activation_follows_from_the_row(self, table, model, epochs, activation):
        rows = [n for n in BOOK.numbers if (n.table, n.model, n.epochs) == (table, model, epochs)]
        assert rows
        assert {activation_of(n) for n in rows} == {activation}

    def test_a_few_pictures_are_not_val2017(self):
        few = CheckpointScores(**{**SCORES.__dict__, "pictures": 100})
        assert not few.answers(NUMBER)

    def test_test_dev_cannot_be_scored(self):
        entry = self.judged(changed(NUMBER, data="COCO test-dev"), (SCORES,))
        assert entry.status == "cannot be settled"
        assert "server" in entry.detail

    def test_blocks_are_counted_in_genotypes(self):
        blocks = {"quantity": "permuted_blocks", "value": (1, 2, 4, 4, 2, 2)}
        assert self.judged(changed(NUMBER, **blocks)).status == "exact"
        blocks["value"] = (1, 2, 4, 4, 3, 1)
        assert self.judged(changed(NUMBER, **blocks)).status == "differs"

    @pytest.mark.parametrize(
        ("part", "value", "status", "found"),
        [
            ("scale permutations", 435456000, "exact", "435456000"),
            ("scale permutations", 435456001, "differs", "435456000"),
            ("cross-scale connections", 8.3497e20, "exact", "8.349"),
            ("cross-scale connections", 8.3496e20, "differs", "8.349"),
        ],
    )
    def test_sizes_of_the_space_agree_by_their_printed_digits(self, part, value, status, found):
        facts = {"quantity": "networks", "model": f"{part}, 15 blocks", "variant": ""}
        entry = self.judged(changed(NUMBER, value=value, **facts))
        assert entry.status == status
        assert entry.found.startswith(found)

    def test_printed_names_are_those_of_import(self):
        names = {n.model for n in BOOK.numbers if n.variant.startswith(("one", "two", "mob"))}
        known = {name for name in names if zoo_name(name) in zoo.MODELS}
        assert {"SpineNet-49", "R50-NAS-FPN", "Mobile SpineNet-49XS"} - known <= {
            "Mobile SpineNet-49XS"
        }
        assert zoo_name("ResNet-152") in zoo.MODELS


class TestClaims:
    def entry(self, *verdicts: Verdict) -> Entry:
        return judge_claim(STUDIES["ladder"], CLAIM, verdicts)

    def verdict(self, word: str, pictures: int, profile: str = "embedded") -> Verdict:
        judged = Judgement(CLAIM, word, 1.5, 0.5, 2.5, 0.01, seeds=3)
        return Verdict(judged, profile, pictures)

    def test_without_runs_it_is_not_attempted_and_says_how(self):
        entry = self.entry()
        assert entry.status == "not attempted"
        assert "spinenet reproduce ladder" in entry.detail

    def test_the_longest_runs_decide_and_the_others_are_named(self):
        entry = self.entry(
            self.verdict("contradicted", 9, "embedded-long"), self.verdict("replicated", 3)
        )
        assert entry.status == "contradicted"
        assert entry.found == "+1.5 AP (+0.5 to +2.5), embedded-long, 3 seeds"
        assert entry.detail == "embedded, 3 seeds: replicated"

    @pytest.mark.parametrize(
        ("statuses", "expected"),
        [
            (("replicated", "replicated"), "replicated"),
            (("replicated", "counted"), "replicated"),
            (("counted", "counted"), "counted"),
            (("replicated", "inconclusive"), "inconclusive"),
            (("replicated", "not attempted"), "not attempted"),
            (("contradicted", "inconclusive"), "contradicted"),
        ],
    )
    def test_a_sentence_is_as_good_as_its_weakest_claim(self, statuses, expected):
        names = [f"study/{i}" for i in range(len(statuses))]
        lines = {
            name: Entry("", "", "claim", "", status)
            for name, status in zip(names, statuses, strict=True)
        }
        said = Sentence("It does", "abstract", judged_by=tuple(names))
        assert judge_sentence(said, lines).status == expected


class TestLedger:
    def test_every_number_has_a_line_with_a_status(self, empty):
        assert len(empty.numbers) == len(BOOK.numbers)
        assert {e.status for e in empty.entries} <= set(STATUSES) == set(MEANINGS)
        for entry in empty.entries:
            assert entry.found or entry.detail, entry

    def test_every_printed_count_of_a_network_at_hand_agrees(self, empty):
        counted = [e for e in empty.numbers if e.quantity in COUNTED and e.found]
        assert len(counted) > 100
        assert [e for e in counted if e.status == "differs"] == []

    def test_the_blocks_of_table_1_are_those_of_the_networks(self, empty):
        rows = [e for e in empty.numbers if e.quantity.endswith("_blocks")]
        assert {e.status for e in rows if "SP18" not in e.subject and "SP39" not in e.subject} == {
            "exact"
        }

    def test_the_sizes_of_the_space_are_the_printed_ones(self, empty):
        sizes = [e for e in empty.numbers if e.quantity == "networks"]
        assert [e.status for e in sizes] == ["exact"] * 4

    def test_without_runs_nothing_is_said_to_have_been_tried(self, empty):
        told = {status: meaning for status, _, meaning in summary(empty.entries)}
        assert "counted" in told
        assert not any(re.search(r"was tried|^tried", meaning) for meaning in told.values())

    def test_what_is_replicated_was_trained(self):
        made = make_ledger([Store(ROOT / "results" / "embedded")])
        by_status = {s: [e for e in made.claims if e.status == s] for s in STATUSES}
        assert all(e.found.endswith(", counted") for e in by_status["counted"])
        assert all(e.found.endswith(" seeds") for e in by_status["replicated"])
        assert min(len(by_status["counted"]), len(by_status["replicated"])) > 0

    def test_the_page_is_that_of_the_committed_results(self):
        stores = [Store(ROOT / "results" / name) for name in ("embedded", "embedded-long")]
        page = (ROOT / "docs" / "ledger.md").read_text()
        block = page.partition("<!-- table: ledger -->")[2].partition("<!-- end -->")[0]
        made = make_ledger(stores)
        assert block.strip() == to_markdown(made).strip()
        page = (ROOT / "README.md").read_text()
        short = page.partition("<!-- table: ledger in short -->")[2].partition("<!-- end -->")[0]
        assert short.strip() == in_short(made)
        exact = [e for e in made.numbers if e.status == "exact"]
        counted = [e for e in exact if e.quantity in ("macs_b", "params_m")]
        assert 0 < len(counted) < len(exact)
        assert f"multiply-adds and parameters {len(counted)} are met to the last" in short


class TestCommand:
    def test_lines_of_one_status_as_json(self, run, tmp_path):
        _, out, _ = run("ledger", "--runs", str(tmp_path), "--status", "exact", "--json")
        assert {line["status"] for line in json.loads(out)} == {"exact"}

    def test_an_unknown_status_is_told_the_nearest(self, run):
        code, _, err = run("ledger", "--status", "exakt")
        assert code == 2
        assert "did you mean 'exact'" in err

    @pytest.mark.parametrize(
        ("content", "told"),
        [
            (None, "no such file"),
            ("{", "evaluate again"),
            ('{"metrics": {}, "pictures": 1, "recipe": {}, "origin": {}}', "not imported"),
        ],
    )
    def test_scores_that_confirm_nothing_are_refused(self, tmp_path, content, told):
        path = tmp_path / "scores.json"
        if content is not None:
            path.write_text(content)
        with pytest.raises(UserError, match=told) as error:
            read_scores(path)
        assert re.search(r"scores\.json", str(error.value))
