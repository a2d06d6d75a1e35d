"""The ledger: the table of verdicts, the figures behind one, where records come from, the README's block."""
import math
from dataclasses import replace
from pathlib import Path

import pytest
from evidence_kit import TINY, claims_on_tiny, record

from simsiam_explained import evidence, ledger
from simsiam_explained.conditions import NoGain
from simsiam_explained.em import AtLeast
from simsiam_explained.evidence import Between, Claim, Collapses, Lower, Near, Number, claims, judge
from simsiam_explained.ledger import MARKS, conditions, numbers, page, provenance, verdicts, write_results
from simsiam_explained.recipe import SCALES
from simsiam_explained.records import Shelf, read_shelf

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.fixture
def shelf(monkeypatch):
    """Three whole pairs for simsiam-9 at every scale: without the stop-gradient it falls."""
    claims_on_tiny(monkeypatch)
    claim, found = claims()["simsiam-9"], {}
    on, off = claim.recipes("small").values()
    for seed in range(3):
        for recipe, values in ((on, (0.6, -0.8, 0.9)), (off, (0.2, -0.99, 0.01))):
            row = {measure: value + seed / 1000 for measure, value in zip(("kNN", "loss", "std"), values)}
            found[recipe.key, seed] = record(recipe, seed, {claim.id: claim.rule_hash}, **row)
    return Shelf(found)


def test_the_table_has_every_claim_and_a_word_for_every_scale(shelf):
    table = verdicts(shelf=shelf)
    assert list(table.index) == list(claims()) and list(table.columns) == ["claim", "source", "paper", *SCALES]
    assert list(table.loc["simsiam-9", [*SCALES]]) == ["direction reproduced (n = 3)"] * 3
    assert list(table.loc["simsiam-1", [*SCALES]]) == ["exact"] * 3
    assert table.loc["simsiam-21", "small"] == "–" and table.loc["simsiam-21", "full"].startswith("not tested")
    assert list(verdicts(["simsiam-9"], shelf, ["small"]).columns) == ["claim", "source", "paper", "small"]


def test_the_figures_behind_a_verdict(shelf):
    table = numbers(judge(claims()["simsiam-9"], shelf, "small"))
    assert list(table.index) == [(arm, seed) for arm in ("SimSiam", "no stop-gradient") for seed in range(3)]
    assert table.loc[("no stop-gradient", 2), "kNN"] == pytest.approx(0.202) and set(table["untrained kNN"]) == {0.5}
    assert len(numbers(judge(claims()["simsiam-9"], Shelf(), "small"))) == 0


def test_each_condition_says_what_it_asks_and_what_was_seen(shelf):
    table = conditions(judge(claims()["simsiam-9"], shelf, "small"))
    assert list(table["verdict"]) == ["direction reproduced"] * 3
    assert table.asked[0] == "loss: no stop-gradient below SimSiam" and table.seen[0] == "loss −0.989 against −0.799"
    assert table.asked[1] == "no stop-gradient is collapsed, by std·√d, every seed"
    assert table.seen[1] == "std·√d 0.011 against 0.901"


@pytest.mark.parametrize("condition, asked, seen", [
    (Lower("kNN", "a", "b"), "kNN: a below b", "kNN 0.200 against 0.600"),
    (Lower("kNN", "a", "a", "linear"), "kNN: a below a in linear", "kNN 0.200 against linear 0.700"),
    (Between("kNN", "a", -1, 0.5), "kNN of a from −1 to 0.5, every seed", "kNN 0.200"),
    (Collapses("a", "b"), "a is collapsed, by std·√d or rank, every seed",
     "std·√d 0.900 against 0.900; rank 20.0 against 20.0"),
    (Collapses("a", "b", by="rank", holds=False), "a is not collapsed, by rank, every seed", "rank 20.0 against 20.0"),
    (Near("kNN", "a", "b", 0.02), "kNN: a within 0.02 of b", "kNN 0.200 against 0.600"),
    (Number("kNN", "a", 0.1, 0.3), "kNN of a is the paper's 0.1 to 0.3", "kNN 0.200"),
    (Number("kNN", "a", 0.1, 0.1), "kNN of a is the paper's 0.1", "kNN 0.200"),
])
def test_the_words_of_a_condition(condition, asked, seen):
    rows = {"a": [record(kNN=0.2).row] * 3, "b": [record().row] * 3}
    row = conditions(evidence.Verdict("", (0, 1, 2), {condition: "x"}, rows)).iloc[0]
    assert (row.asked, row.seen, row.verdict) == (asked, seen, "x")


@pytest.mark.parametrize("condition, doubt", [
    (NoGain("kNN", "a", "b", 0.15), " (± 0.115)"), (Near("kNN", "a", "b", 0.15), " (± 0.115)"), (AtLeast("kNN", "c", "b", 0.15), " (± 0.115)"),
    (NoGain("kNN", "a", "b", 0.25), ""), (NoGain("kNN", "a", "b", 0.05), ""),      # far from the margin, on either side
    (AtLeast("kNN", "a", "b", 0.05), ""), (Lower("kNN", "b", "a"), "")])
def test_a_margin_that_holds_by_the_means_and_not_by_the_seeds_is_marked(condition, doubt):
    """Differences 0, 0.1, 0.2: two standard errors are 0.115."""
    rows = {arm: [record(kNN=x).row for x in of] for arm, of in {"a": (0.5, 0.6, 0.7), "b": (0.5,) * 3, "c": (0.3, 0.4, 0.5)}.items()}
    seen = conditions(evidence.Verdict("", (0, 1, 2), {condition: "x"}, rows)).seen[0]
    assert seen.startswith("kNN 0.") and seen[seen.index("against 0.") + 13:] == doubt


def test_a_margin_says_nothing_of_a_run_that_diverged():
    rows = {"a": [record(kNN=x).row for x in (0.5, float("nan"), 0.7)], "b": [record(kNN=0.5).row] * 3}
    assert "±" not in conditions(evidence.Verdict("", (0, 1, 2), {Near("kNN", "a", "b", 0.5): "x"}, rows)).seen[0]


def test_every_condition_of_every_claim_has_words():
    for claim in claims().values():
        rows = {arm: [record().row | {"projector kNN": 0.5, "untrained linear": 0.3}] * 3 for arm in claim.arms or {}}
        table = conditions(evidence.Verdict("", (0, 1, 2), dict.fromkeys(claim.rule, "x"), rows))
        reprs = [asked for condition, asked in zip(claim.rule, table["asked"]) if asked == repr(condition)]
        assert not reprs, "give the condition a method `says`"


def test_the_page_of_a_claim(shelf):
    said = page(claims()["simsiam-9"], shelf)
    claim = claims()["simsiam-9"]
    for word in (claim.sentence, claim.source, claim.paper, claim.rule_hash, "small: direction reproduced (n = 3)",
                 f"recipe {TINY.key}, seeds [0, 1, 2]", "loss −0.989 against −0.799", "untrained kNN", "0.602"):
        assert word in said, word
    assert "test_simsiam.py::" in page(claims()["simsiam-1"], shelf)
    assert "no runs yet" in page(Claim("x", "It is.", "§"), shelf)
    assert "not tested (n = 0)" not in page(claim, Shelf()) and "small: not tested" in page(claim, Shelf())


def test_a_single_string_is_the_name_of_one_claim_or_of_one_family(shelf):
    assert list(claims("simsiam-9")) == ["simsiam-9"] and list(verdicts("byol-1", shelf).index) == ["byol-1"]
    assert list(claims("SimSiam-9")) == ["simsiam-9"] and list(claims("relatives-13-ema")) == ["relatives-13-EMA"]
    assert list(claims("SimSiam")) == list(claims(["simsiam"])) == list(verdicts("simsiam", shelf).index)
    assert page("simsiam-9", shelf) == page(claims()["simsiam-9"], shelf)
    assert page("Zhang", shelf).count("\n\nzhang-") == len(claims("zhang")) - 1
    with pytest.raises(ValueError, match="got 'simsiam9', expected one of"):
        page("simsiam9", shelf)


def test_late_rules_and_diverged_runs_are_in_the_table(shelf):
    late = Shelf({at: replace(r, rules={}) for at, r in shelf.records.items()})
    assert verdicts(["simsiam-9"], late)["small"].item() == "direction reproduced (n = 3), rule newer than its runs"
    gone = {at: replace(r, status="diverged", final=dict.fromkeys(r.final, math.nan) | {"layers": {}})
            for at, r in shelf.records.items() if at[0] != TINY.key}
    verdict = judge(claims()["simsiam-9"], Shelf(shelf.records | gone), "small")
    assert verdict.word == "not tested" and "diverged" in set(numbers(verdict)["status"]) and "nan" in page(
        claims()["simsiam-9"], Shelf(shelf.records | gone)).lower()


def test_where_records_come_from(shelf):
    runs = {"on": list(shelf.of(TINY.key).values()), "none": []}
    said = provenance(runs)
    assert f"on  recipe {TINY.key}  seeds 0, 1, 2  1 s a run, 100 images/s" in said
    assert "commit not known, code c0de" in said and said.count("Python") == 1 and "torch" in said
    other = [replace(r, code="0ther", wall=3.0) if r.seed else r for r in runs["on"]]
    assert provenance({"on": other}).count("Python") == 2 and "1 to 3 s a run" in provenance({"on": other})


# ---- the README

def test_the_results_go_between_the_marks_and_nowhere_else(shelf, tmp_path):
    readme = tmp_path / "R.md"
    readme.write_text(f"before\n{MARKS[0]}old\n{MARKS[1]}\nafter\n", encoding="utf-8")
    assert write_results(readme, shelf) and not write_results(readme, shelf)
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{MARKS[0]}<details><summary><b>SimSiam</b>: ") and text.endswith(f"{MARKS[1]}\nafter\n")
    assert text.count("<details>") == text.count("</details>") >= 1 and "**not tested**" not in text
    line = next(line for line in text.splitlines() if "`simsiam-9`" in line)
    assert line.count("|") == 4 and "**direction reproduced** (n = 3)" in line and "kNN 0.201 against 0.601" in line
    exact = sum(bool(claim.test) for claim in claims().values())
    assert f"{exact} further claims are exact" in text
    assert write_results(readme, Shelf()) and "simsiam-9" not in readme.read_text(encoding="utf-8")


def test_a_readme_without_marks_is_refused(shelf, tmp_path):
    (tmp_path / "R.md").write_text("nothing")
    with pytest.raises(ValueError, match="no place for the results; put '<!-- results"):
        write_results(tmp_path / "R.md", shelf)
    assert (tmp_path / "R.md").read_text() == "nothing"


def test_no_text_of_a_claim_breaks_a_table():
    assert not [claim.id for claim in claims().values() if "|" in claim.sentence + claim.source + claim.paper]


def test_every_claim_belongs_to_a_family_of_the_readme():
    assert {claim.split("-")[0] for claim in claims()} == set(ledger.FAMILIES)


def test_our_readme_has_its_place_for_the_results():
    text = README.read_text(encoding="utf-8")
    assert text.count(MARKS[0]) == text.count(MARKS[1]) == 1 and text.index(MARKS[0]) < text.index(MARKS[1])
    assert ledger._results(read_shelf(README.parent / "data" / "records")).count("\n") > 2


@pytest.mark.parametrize("name", [name for name, claim in claims().items() if claim.arms])
def test_the_runs_of_every_claim_can_be_told(name):
    """Whatever kinds of conditions a chapter has: with three runs of each arm the README's cell can be written."""
    claim = claims()[name]
    scale = [scale for scale in SCALES if claim.recipes(scale)][0]
    found = {(recipe.key, seed): record(recipe, seed, {claim.id: claim.rule_hash})
             for recipe in claim.recipes(scale).values() for seed in range(3)}
    told = ledger._runs_say(claim, judge(claim, Shelf(found), scale), scale)
    assert told.startswith(f"{scale}: **") and "(n = 3)" in told
