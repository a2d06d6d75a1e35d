"""Conditions, rules and verdicts by hand; and of every claim of the chapters: its rule, its recipes, its test."""
import ast
import math
from dataclasses import dataclass, replace
from math import nan
from pathlib import Path

import pytest
import torch
from evidence_kit import TINY, figures, record
from torch.nn import functional as F

from simsiam_explained import evidence
from simsiam_explained.evidence import (CHAPTERS, VERDICTS, Between, Claim, Collapses, Lower, Near, Number,
                                        claims, decide, direction, judge)
from simsiam_explained.images import textures
from simsiam_explained.moco_v3 import stability
from simsiam_explained.named import PARTS, find
from simsiam_explained.recipe import SCALES
from simsiam_explained.records import Shelf
from simsiam_explained.runs import run_recipe
from simsiam_explained.views import make_views

SAME, CONTRA, NONE, UNTESTED = "direction reproduced", "contradicted", "no difference seen", "not tested"
ALL = list(claims().values())
WITH_RUNS = [claim for claim in ALL if claim.arms]


def rows(measure="kNN", **arms):
    """Rows of figures: {arm: [row of each seed]}, from {arm: values of one measure}."""
    return {arm: [figures(**{measure: value}) for value in of] for arm, of in arms.items()}


def shelf(*records):
    return Shelf({(r.key, r.seed): r for r in records})


# ---- the conditions

def test_a_pair_needs_a_partner():
    with pytest.raises(ValueError, match="3 and 2 values, expected one pair for each seed"):
        direction([1.0, 1, 1], [0.0, 0])


@pytest.mark.parametrize("low, high, word", [
    ([0.1, 0.12, 0.11], [0.9, 0.92, 0.91], SAME), ([0.9, 0.92, 0.91], [0.1, 0.12, 0.11], CONTRA),
    ([0.1, 0.9, 0.1], [0.9, 0.1, 0.9], NONE),                 # mixed signs
    ([0.5, 0.1, 0.3], [0.55, 0.15, 0.35], NONE),              # one sign, but within the spread
    ([0.5] * 3, [0.5] * 3, NONE), ([0.5, 0.5, 0.5], [0.6, 0.6, 0.6], SAME), ([0.1, 0.1], [0.9, 0.9], UNTESTED),
    ([0.1, nan, 0.1], [0.9, 0.9, 0.9], UNTESTED), ([], [], UNTESTED), ([0.1] * 4 + [0.9], [0.9] * 5, NONE),
])
def test_lower(low, high, word):
    assert Lower("kNN", "a", "b")(rows(a=low, b=high)) == word
    mirror = {SAME: CONTRA, CONTRA: SAME}
    assert Lower("kNN", "b", "a")(rows(a=low, b=high)) == mirror.get(word, word)


def test_lower_of_two_measures_of_one_arm():
    seen = {"a": [figures(kNN=0.6 + i / 100) | {"projector kNN": 0.4 + i / 100} for i in range(3)]}
    assert Lower("projector kNN", "a", "a", "kNN")(seen) == SAME
    assert Lower("kNN", "a", "a", "projector kNN")(seen) == CONTRA


def test_a_measure_that_no_run_has_decides_nothing():
    assert Lower("knn", "a", "b")(rows(a=[0.1] * 3, b=[0.9] * 3)) == UNTESTED
    assert Number("knn", "a", 0, 1)(rows(a=[0.5] * 3)) == UNTESTED


@pytest.mark.parametrize("values, word", [
    ([0.5, 0.6, 0.7], SAME), ([0.1, 0.9, 0.95], CONTRA), ([0.5, 0.6, 0.9], NONE), ([0.5, 0.6], UNTESTED),
    ([0.5, 0.6, nan], UNTESTED), ([0.4, 0.5, 0.6], NONE), ([0.8, 0.8, 0.8], CONTRA),     # the ends are outside
])
def test_between(values, word):
    assert Between("kNN", "a", 0.4, 0.8)(rows(a=values)) == word


@pytest.mark.parametrize("std, rank, by, word", [
    (0.1, 20, "std", SAME), (0.1, 20, "rank", CONTRA), (0.1, 20, "either", SAME),
    (0.9, 4.9, "rank", SAME), (0.9, 4.9, "std", CONTRA), (0.9, 4.9, "either", SAME),
    (0.1, 1, "std", SAME), (0.1, 1, "rank", SAME), (0.46, 5.1, "either", CONTRA), (nan, nan, "either", UNTESTED),
])
def test_collapses(std, rank, by, word):
    seen = {"ok": [figures(std=0.9, rank=20.0)] * 3, "off": [figures(std=std, rank=rank)] * 3}
    assert Collapses("off", "ok", by)(seen) == word
    mirror = {SAME: CONTRA, CONTRA: SAME}
    assert Collapses("off", "ok", by, holds=False)(seen) == mirror.get(word, word)
    if word != UNTESTED:
        one_well = {**seen, "off": [*seen["off"][:2], figures(std=0.9, rank=20.0)]}
        assert Collapses("off", "ok", by)(one_well) == (NONE if word == SAME else CONTRA)
        assert Collapses("off", "ok", by)({arm: of[:2] for arm, of in seen.items()}) == UNTESTED


@pytest.mark.parametrize("here, there, word", [
    ([0.70, 0.71, 0.72], [0.70, 0.71, 0.72], SAME), ([0.700, 0.701, 0.702], [0.715, 0.716, 0.717], SAME),
    ([0.5, 0.51, 0.52], [0.7, 0.71, 0.72], CONTRA), ([0.7, 0.71, 0.72], [0.5, 0.51, 0.52], CONTRA),
    ([0.5, 0.9, 0.5], [0.9, 0.5, 0.7], NONE), ([0.7, 0.7], [0.7, 0.7], UNTESTED),
    ([0.7, 0.7, nan], [0.7] * 3, UNTESTED),
])
def test_near(here, there, word):
    assert Near("kNN", "a", "b", 0.02)(rows(a=here, b=there)) == word


@pytest.mark.parametrize("ours, word", [
    ([0.9, 0.9, 0.9], "reproduced"), ([0.881, 0.881, 0.881], "reproduced"), ([0.879, 0.879, 0.879], CONTRA),   # a point
    ([0.85, 0.87, 0.89], "reproduced"), ([0.80, 0.82, 0.84], CONTRA), ([0.914, 0.914, 0.914], "reproduced"),
    ([0.95, 0.95, 0.95], CONTRA), ([0.9, 0.9], UNTESTED), ([0.9, 0.9, nan], UNTESTED),
])
def test_number(ours, word):
    assert Number("kNN", "a", 0.89, 0.905)(rows(a=ours)) == word


@pytest.mark.parametrize("words, verdict", [
    ([SAME, SAME], SAME), ([SAME, NONE], NONE), ([NONE, UNTESTED], UNTESTED), ([SAME, UNTESTED, CONTRA, NONE], CONTRA),
    (["reproduced", "reproduced"], "reproduced"), (["reproduced", SAME], "reproduced"), ([], UNTESTED),
])
def test_all_conditions_must_hold(words, verdict):
    conditions = tuple(lambda _, word=word: word for word in words)
    found, each = decide(conditions, {})
    assert found == verdict and list(each.values()) == words and found in VERDICTS


# ---- a claim and its records

@pytest.fixture
def claim(monkeypatch):
    """A claim of two tiny arms; the shelf of `its_runs` supports it."""
    monkeypatch.setattr(evidence, "base", lambda scale: TINY)
    return Claim("test-1", "It falls.", "§1", "1 → 0", {"on": {}, "off": {"stop_gradient": False}},
                 (Lower("kNN", "off", "on"),), ("small",))


def its_runs(claim, seeds=(0, 1, 2), rules=None, swap=False):
    on, off = claim.recipes("small").values()
    rules = {claim.id: claim.rule_hash} if rules is None else rules
    high, low = (off, on) if swap else (on, off)
    return [record(recipe, seed, rules, kNN=kNN + seed / 100)
            for seed in seeds for recipe, kNN in ((high, 0.6), (low, 0.2))]


def test_a_claim_is_judged_by_its_records(claim):
    verdict = judge(claim, shelf(*its_runs(claim)), "small")
    assert verdict.seeds == (0, 1, 2) and not verdict.late and str(verdict) == f"{SAME} (n = 3)"
    assert verdict.rows["off"][2]["kNN"] == 0.22 and list(verdict.conditions.values()) == [SAME]
    assert judge(claim, shelf(*its_runs(claim, swap=True)), "small").word == CONTRA


def test_without_three_common_seeds_nothing_is_judged(claim):
    assert str(judge(claim, Shelf(), "small")) == UNTESTED
    assert str(judge(claim, shelf(*its_runs(claim, (0, 1))), "small")) == f"{UNTESTED} (n = 2)"
    runs = its_runs(claim, (0, 1, 2, 3))
    assert judge(claim, shelf(*runs[:-1]), "small").seeds == (0, 1, 2)         # the fourth pair is not whole
    assert str(judge(claim, shelf(*runs), "full")) == UNTESTED                # the claim has no such scale
    stopped = [replace(r, status="stopped") if r.seed == 2 else r for r in runs[:6]]
    assert judge(claim, shelf(*stopped), "small").seeds == (0, 1)


def test_a_diverged_run_is_no_evidence(claim):
    runs = its_runs(claim)
    runs[-1] = replace(runs[-1], status="diverged", final=dict.fromkeys(runs[-1].final, nan) | {"layers": {}})
    assert judge(claim, shelf(*runs), "small").word == UNTESTED


def test_a_rule_that_is_newer_than_its_runs_is_said(claim):
    assert str(judge(claim, shelf(*its_runs(claim, rules={})), "small")).endswith("(n = 3), rule newer than its runs")
    one_late = its_runs(claim)[:-1] + its_runs(claim, rules={claim.id: "another"})[-1:]
    assert judge(claim, shelf(*one_late), "small").late
    on, off = its_runs(claim, rules={})[::2], its_runs(claim)[1::2]         # a baseline from before the rule
    assert not judge(claim, shelf(*on, *off), "small").late
    assert judge(claim, shelf(*on, *its_runs(claim)[1:4:2], *its_runs(claim, rules={})[5:]), "small").late
    softer = replace(claim, rule=(Lower("kNN", "on", "off"),))
    assert softer.rule_hash != claim.rule_hash and judge(softer, shelf(*its_runs(claim)), "small").late


def test_the_hash_of_a_rule_is_of_its_code_too(claim, monkeypatch):
    before = claim.rule_hash
    assert replace(claim, sentence="Another.", priority=1).rule_hash == before
    monkeypatch.setattr(evidence, "direction", lambda on, off: SAME)
    assert claim.rule_hash != before


def test_a_new_kind_of_condition_does_not_touch_the_hashes_of_others(claim):
    @dataclass(frozen=True)
    class Higher(Lower):
        """Another condition."""

    assert replace(claim, rule=(Higher("kNN", "off", "on"),)).rule_hash != claim.rule_hash


def test_an_exact_claim_is_exact_at_every_scale():
    assert all(str(judge(Claim("t", "s", "§", test="a::b"), Shelf(), scale)) == "exact" for scale in SCALES)


def test_changes_for_one_scale_are_for_all_arms(claim):
    longer = replace(claim, also={"small": {"steps": 9}})
    assert {r.steps for r in longer.recipes("small").values()} == {9} and longer.recipes("full") == {}


# ---- the claims of the chapters

def test_claims_are_found_by_id_and_by_the_beginning_of_one():
    assert list(claims(["simsiam-9"])) == ["simsiam-9"]
    assert len(claims(["simsiam"])) > 20 and claims([]) == claims()
    assert list(claims(["simsiam-10", "simsiam-9"])) == ["simsiam-10", "simsiam-9"]
    with pytest.raises(ValueError, match="(?i)claim: got 'simsiam9'.*did you mean 'simsiam-9'"):
        claims(["simsiam9"])


def test_no_claim_has_the_name_of_another():
    names = [claim.id for chapter in CHAPTERS for claim in find(f"{chapter}.CLAIMS")]
    assert sorted(names) == sorted(set(names))
    assert {f"simsiam-{n}" for n in range(1, 24)} <= set(names)          # every claim taken from the paper


@pytest.mark.parametrize("claim", ALL, ids=lambda claim: claim.id)
def test_a_claim_is_whole(claim):
    assert claim.sentence.endswith(".") and claim.source and set(claim.scales) <= set(SCALES)
    assert bool(claim.arms) == bool(claim.rule) and not (claim.test and claim.arms)
    for scale in claim.scales:
        recipes = claim.recipes(scale)
        assert len({recipe.key for recipe in recipes.values()}) == len(recipes), "two arms are one recipe"


@pytest.mark.parametrize("claim", [c for c in ALL if c.test], ids=lambda claim: claim.id)
def test_the_test_of_an_exact_claim_exists(claim):
    file, name = claim.test.split("::")
    tree = ast.parse((Path(__file__).parent / file).read_text(encoding="utf-8"))
    assert name in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


@pytest.fixture(scope="module")
def row():
    """The row of a real run, and what a watched one tells besides."""
    level, spiked = [1.0] * 40, [1.0] * 20 + [9.0] + [1.0] * 19
    return run_recipe(TINY, device="cpu")[0].row | stability([0.5, 0.4, 0.6], [0.5, 0.45, 0.6], spiked, [*level[:4], *spiked])


@pytest.mark.parametrize("claim", WITH_RUNS, ids=lambda claim: claim.id)
def test_a_rule_reads_what_a_run_leaves(claim, row):
    """No arm and no measure is misspelt: of three equal seeds, each condition says something."""
    word, conditions = decide(claim.rule, {arm: [row] * 3 for arm in claim.arms})
    assert word in VERDICTS and len(conditions) == len(claim.rule)
    assert {condition: word for condition, word in conditions.items() if word == UNTESTED} == {}


DIFFERENCES = [c for c in WITH_RUNS if any(isinstance(x, Lower) and x.arm != x.than for x in c.rule)]


@pytest.mark.parametrize("claim", DIFFERENCES, ids=lambda claim: claim.id)
def test_equal_arms_support_no_claim_of_a_difference(claim, row):
    assert decide(claim.rule, {arm: [row] * 3 for arm in claim.arms})[0] in (NONE, CONTRA)


def test_every_arm_can_be_built():
    asked = {recipe for claim in ALL for scale in claim.scales for recipe in claim.recipes(scale).values()}
    nets = {tuple(getattr(r, f) for f in ("shape", "count", "batch", *PARTS, *PARTS.values())): r for r in asked}
    with torch.device("meta"):               # shapes without numbers: a ResNet-18 costs nothing
        for recipe in nets.values():
            assert {"backbone", "projector", "predictor"} <= set(dir(recipe.build()))
    for recipe in asked:
        assert recipe.make_views() and recipe.batches(0)


# ---- an exact claim of the paper

def test_the_mean_over_views_minimises_the_squared_distance(device):
    """SimSiam §5.1, eq. 9: η_x = E_T[F(T(x))] for a real network and real views, in float64."""
    net = TINY.build(seed=3).to(device).double().eval()
    images, generator = textures(6, 16, seed=0, device=device), torch.Generator(device).manual_seed(0)
    views = make_views("textures")
    with torch.no_grad():
        x = [x for _ in range(8) for x in views(images.pixels, generator)]
        z = torch.stack([net.projector(net.backbone(x.double())) for x in x])                    # (views, images, d)
    loss = lambda eta: (z - eta).square().sum(-1).mean()  # noqa: E731
    mean = z.mean(0)
    assert z.std(0).min() > 1e-3                                                                 # the views differ
    random = torch.Generator().manual_seed(0)
    for scale in (1e-3, 0.1, 1.0):
        for _ in range(5):
            step = scale * torch.randn(mean.shape, generator=random, dtype=z.dtype).to(device)
            assert loss(mean + step) > loss(mean)
            torch.testing.assert_close(loss(mean + step) - loss(mean), step.square().sum(-1).mean())   # by how much
    eta = z[0].clone().requires_grad_()
    optimiser = torch.optim.LBFGS([eta], max_iter=100, tolerance_grad=1e-12, tolerance_change=1e-16)

    def closure():
        optimiser.zero_grad()
        loss(eta).backward()
        return loss(eta)

    optimiser.step(closure)
    torch.testing.assert_close(eta.detach(), mean, atol=1e-8, rtol=1e-8)
    unit = F.normalize(z, dim=-1).mean(0)                                      # of normalised z: footnote 5
    assert unit.norm(dim=-1).max() < 1 and not math.isclose(float(loss(unit)), float(loss(mean)))
