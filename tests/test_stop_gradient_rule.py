"""The rule of the claim "without stop-gradient SimSiam collapses": met by real runs, refused by swapped arms. The verdict words."""
import pytest

from simsiam_explained.collapse import collapsed
from simsiam_explained.evidence import claims, decide, direction, judge
from simsiam_explained.images import load_images
from simsiam_explained.records import read_shelf
from simsiam_explained.report import report
from simsiam_explained.training import fit
from simsiam_explained.views import make_views

CLAIM = claims(["simsiam-9"])["simsiam-9"]
ON, OFF = CLAIM.arms


def pair(seed, steps):
    """Return {arm: row of figures} of both arms, by chapter 08's live protocol."""
    train, test = load_images("textures", n=4000, size=24)
    views, runs = make_views("textures"), {}
    for arm, recipe in CLAIM.recipes("live").items():
        runs[arm] = fit(recipe.build(seed), train, views, steps=steps, batch=recipe.batch, base_lr=recipe.base_lr,
                        weight_decay=recipe.weight_decay, seed=seed, device="cpu", progress=False)
    return report(runs, train, test, views, linear=False).loc[[ON, OFF]].to_dict("index")


def verdict(on, off):
    """Return the word that the claim's rule has for rows of both arms."""
    return decide(CLAIM.rule, {ON: on, OFF: off})[0]


def test_a_short_real_pair_points_the_claims_way():
    rows = pair(seed=100, steps=80)
    on, off = rows[ON], rows[OFF]
    assert off["loss"] < on["loss"] and off["kNN"] < on["kNN"]
    assert "std" in collapsed(off["std"], off["rank"], on["std"], on["rank"])
    assert collapsed(on["std"], on["rank"], off["std"], off["rank"]) == "no"


@pytest.mark.slow
def test_other_seeds_meet_the_rule_and_swapped_arms_fail_it():
    rows = [pair(seed, steps=200) for seed in (3, 4, 5)]
    on, off = [row[ON] for row in rows], [row[OFF] for row in rows]
    assert verdict(on, off) == "direction reproduced"
    assert verdict(off, on) == "contradicted"


def test_the_ten_recorded_pairs_meet_the_rule_and_swapped_arms_fail_it():
    found = judge(CLAIM, read_shelf(), "live")
    on, off = found.rows[ON], found.rows[OFF]
    assert found.word == "direction reproduced" and len(found.seeds) == 10
    assert verdict(off, on) == "contradicted"
    assert verdict(on, on) == verdict(off, off) == "contradicted"      # equal arms: nothing is collapsed


def test_one_seed_against_the_others_is_enough_to_refuse():
    on = [{"loss": loss, "std": 0.95, "rank": 20, "kNN": knn} for loss, knn in [(-0.8, 0.6), (-0.82, 0.61), (-0.81, 0.62)]]
    off = [{"loss": loss, "std": 0.05, "rank": 9, "kNN": knn} for loss, knn in [(-0.98, 0.4), (-0.99, 0.41), (-0.97, 0.39)]]
    assert verdict(on, off) == "direction reproduced"
    for key, value in {"loss": -0.7, "std": 0.48, "kNN": 0.63}.items():
        word, conditions = decide(CLAIM.rule, {ON: on, OFF: [*off[:2], {**off[2], key: value}]})
        assert word == "no difference seen" and list(conditions.values()).count("direction reproduced") == 2, key
    assert verdict(on[:2], off[:2]) == "not tested"
    with pytest.raises(ValueError, match="3 and 2"):
        verdict(on, off[:2])


@pytest.mark.parametrize("on, off, word", [
    ([0.9, 0.92, 0.91], [0.1, 0.12, 0.11], "direction reproduced"),
    ([0.1, 0.12, 0.11], [0.9, 0.92, 0.91], "contradicted"),
    ([0.9, 0.5, 0.7], [0.8, 0.6, 0.65], "no difference seen"),   # mixed signs
    ([0.9, 0.5, 0.7], [0.85, 0.45, 0.65], "no difference seen"),  # one sign, within the spread
    ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5], "no difference seen"),
    ([0.9, 0.9], [0.1, 0.1], "not tested"),
])
def test_verdict_words(on, off, word):
    assert direction(on, off) == word
