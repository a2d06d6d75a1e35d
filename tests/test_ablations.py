"""The claims of chapter 10: what their rules accept and refuse, and that moving them left them as the records know them."""
import pytest

from simsiam_explained.ablations import CLAIMS
from simsiam_explained.evidence import Near, decide
from simsiam_explained.recipe import base
from simsiam_explained.records import read_shelf
from simsiam_explained.report import report
from simsiam_explained.training import fit

OUR = "SimSiam"
MEANS = {  # a linear accuracy for each arm with which the claim holds
    "simsiam-13": {OUR: 0.8, "batch 64": 0.79, "batch 512": 0.815},
    "simsiam-13-large": {OUR: 0.8, "batch 1024": 0.81},
    "simsiam-14": {OUR: 0.8, "BN none": 0.4},
    "simsiam-14-hidden": {OUR: 0.8, "BN hidden": 0.79},
    "simsiam-14-all": {OUR: 0.8, "BN all": 0.7},
    "simsiam-14-warm": {OUR: 0.8, "BN none, warm-up": 0.4},
    "simsiam-14-slow": {OUR: 0.8, "BN none, slow": 0.4},
    "simsiam-15": {OUR: 0.8, "cross-entropy": 0.75},
    "simsiam-16": {OUR: 0.8, "asymmetric": 0.7, "asymmetric 2x": 0.75},
    "simsiam-19": {OUR: 0.8, "d = 256": 0.75},
}
BY_ID = {claim.id: claim for claim in CLAIMS}


def rows(means, **fallen):
    """Return three seeds of each arm, all of them healthy but those `fallen`."""
    return {arm: [{"linear": mean + 0.001 * seed, "std": fallen.get("std", 0.9) if arm == fallen.get("arm") else 0.9, "rank": 20.0,
                   "untrained std": 0.5}
                  for seed in range(3)] for arm, mean in means.items()}


def others(name):
    return [arm for arm in MEANS[name] if arm != OUR]


def test_the_chapter_has_these_claims():
    assert list(BY_ID) == list(MEANS)


@pytest.mark.parametrize("name", MEANS)
def test_a_rule_holds_for_what_the_paper_saw_and_not_for_swapped_arms(name):
    claim, means = BY_ID[name], MEANS[name]
    assert decide(claim.rule, rows(means))[0] == "direction reproduced"
    margins = [c.margin for c in claim.rule if isinstance(c, Near)]
    for arm in others(name):
        swapped = means | {OUR: means[arm], arm: means[OUR]} if not margins else means | {arm: means[OUR] + 2 * margins[0]}
        assert decide(claim.rule, rows(swapped))[0] == "contradicted", arm
    if not margins:
        assert decide(claim.rule, rows(dict.fromkeys(means, 0.8)))[0] == "no difference seen"


@pytest.mark.parametrize("name", [name for name in MEANS if name != "simsiam-19"])
def test_a_collapsed_arm_contradicts_whatever_its_accuracy(name):
    for arm in others(name):
        assert decide(BY_ID[name].rule, rows(MEANS[name], arm=arm, std=0.2))[0] == "contradicted"


def test_two_seeds_decide_nothing():
    few = {arm: of[:2] for arm, of in rows(MEANS["simsiam-14"]).items()}
    assert decide(BY_ID["simsiam-14"].rule, few)[0] == "not tested"


def test_batches_see_equally_many_images_and_arms_differ_from_each_other():
    for claim in CLAIMS:
        for scale in claim.scales:
            recipes = claim.recipes(scale)
            assert len({recipe.key for recipe in recipes.values()}) == len(recipes), (claim.id, scale)
            seen = [recipe.steps * recipe.batch for recipe in recipes.values()]
            assert max(seen) - min(seen) <= 1024, (claim.id, scale)
    assert BY_ID["simsiam-13"].recipes("small")["batch 64"].steps == 4 * base("small").steps


def test_the_rules_are_those_that_the_records_were_made_under():
    known = {(name, of) for record in read_shelf().records.values() for name, of in record.rules.items() if name in BY_ID}
    assert known <= {(claim.id, claim.rule_hash) for claim in CLAIMS}


def std_of_bare_heads(seed, **changes):
    """Return std·√d at the end of chapter 10's live recipe: of the default, of heads without BN, of the same with `changes`."""
    from simsiam_explained.images import textures
    from simsiam_explained.views import make_views
    train, test, views = textures(4000, 24, seed=1), textures(1000, 24, seed=2), make_views("textures")
    runs = {}
    for arm, change in {OUR: {}, "BN none": {"bn": "none"}, "changed": {"bn": "none"} | changes}.items():
        r = base("live").but(**change)
        runs[arm] = fit(r.build(seed), train, views, steps=r.steps, batch=r.batch, base_lr=r.base_lr, warmup=r.warmup,
                        weight_decay=r.weight_decay, seed=seed, every=10, device="cpu", progress=False)
    return report(runs, train, test, views, k=50, linear=False)["std"][list(runs)]


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"base_lr": 0.1}, {"base_lr": 0.02}, {"layers": 3}], ids=str)
def test_neither_a_lower_rate_nor_a_third_layer_keeps_heads_without_batch_norm_from_collapse(changes):
    default, _, changed = std_of_bare_heads(100, **changes)
    assert changed < 0.5 * default


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 101, 102])
def test_a_warm_up_softens_the_fall_of_heads_without_batch_norm(seed):
    default, bare, warmed = std_of_bare_heads(seed, warmup=60)
    assert bare < 0.5 * default and warmed > 1.25 * bare
