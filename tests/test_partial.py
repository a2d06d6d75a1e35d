"""Partial collapse: the paper's spectra, the widened net, the rule that reads three runs, the screen, the claims."""
import math

import numpy as np
import pytest
import torch

from evidence_kit import record
from simsiam_explained.collapse import auc
from simsiam_explained.encoders import resnet
from simsiam_explained.evidence import decide, judge
from simsiam_explained.narrow import NARROW, SCREEN, SLOW
from simsiam_explained.partial import CLAIMS, INDEX, RELEASED, screen, separate, widened
from simsiam_explained.recipe import base, seconds
from simsiam_explained.records import Shelf

WORLD = base("small").but(**NARROW)


def whole(sigma):
    """The 512 values of a spectrum of which those at INDEX are quoted: straight lines over the logarithm of the index."""
    return torch.from_numpy(np.interp(np.log(np.arange(1, 513)), np.log(INDEX), sigma))


@pytest.mark.parametrize("share", RELEASED)
def test_the_released_spectra_have_the_papers_auc(share):
    area, sigma = RELEASED[share]
    assert abs(float(auc(whole(sigma))) - area) < 0.003


@pytest.mark.parametrize(("share", "area"), [(1, 0.738), (5, 0.882), (10, 0.970), (20, 0.983), (50, 0.972), (100, 0.979)])
def test_squares_of_the_released_spectra_have_another_auc(share, area):
    assert abs(float(auc(whole(RELEASED[share][1]) ** 2)) - area) < 0.01 < abs(area - RELEASED[share][0])


def test_a_widened_net_has_the_size_asked_for_and_the_weights_of_the_net_inside(device):
    net, inner = (made.to(device).eval() for made in (widened(4, (1, 1), channels=1, out=24, seed=3), resnet(4, (1, 1), channels=1, seed=3)))
    x = torch.randn(5, 1, 12, 12, device=device)
    assert net(x).shape == (5, 24) and net.dim == 24 and net.stages == ("layer1", "layer2", "layer3")
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in inner.state_dict().items())
    assert (net(x) >= 0).all() and {"layer3.1.weight", "layer3.1.running_mean"} <= set(net.state_dict())      # its batch norm


def test_widened_nets_of_one_seed_are_alike_and_leave_the_global_randomness_alone():
    before = torch.get_rng_state()
    a, b, c = (widened(4, (1,), out=8, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(a.layer2[0].weight, b.layer2[0].weight) and not torch.equal(a.layer2[0].weight, c.layer2[0].weight)
    with pytest.raises(ValueError, match="out"):
        widened(4, (1,), out=0)


def row(gain, AUC=0.8):
    return {"gain": gain, "AUC": AUC}


@pytest.mark.parametrize(("longer", "control", "word"), [
    (row(0.20), row(0.10), "slow"),
    (row(0.20), row(0.30, 0.7), "slow"),               # what more steps can mend is not called collapsed
    (row(0.10), row(0.20, 0.7), "collapsed"),
    (row(0.05), row(0.13, 0.7), "collapsed"),
    (row(0.10), row(0.20, 0.9), "limited"),            # the control gains more, but not by a flatter spectrum
    (row(0.11), row(0.11, 0.7), "limited"),
    (None, row(0.2), "not tested"), (row(0.2), None, "not tested"),
    (row(math.nan), row(0.2), "not tested"), (row(0.2), row(0.2, math.nan), "not tested")])
def test_the_three_readings(longer, control, word):
    assert separate(row(0.10), longer, control) == word


def test_the_screen_reads_right_while_records_are_missing():
    table = screen(Shelf())
    assert list(table.index) == list(SCREEN) and (table["seeds"] == 0).all() and table["gain"].isna().all()
    assert set(table["reading"]) == {"not tested", "control"}
    assert table.loc["8 × 3", ["width", "blocks", "pixels", "steps", "order"]].tolist() == [8, 3, 16, 1500, "shuffled"]


def shelf(**rows):
    """A shelf with records of {arm of the screen: one value of kNN for each seed}; untrained kNN is 0.5."""
    recipes = {arm: WORLD.but(**SCREEN[arm]) for arm in rows}
    found = [record(recipes[arm], seed, kNN=value, AUC=area) for arm, (area, of) in rows.items() for seed, value in enumerate(of)]
    return Shelf({(r.key, r.seed): r for r in found})


def test_the_screen_takes_means_over_seeds_and_reads_a_point_by_its_two_partners():
    found = {"8 × 3": (0.9, (0.60, 0.62)), "3,000 steps": (0.9, (0.61,)), "slow target, 8 × 3": (0.8, (0.70,))}
    table = screen(shelf(**found))
    here = table.loc["8 × 3"]
    assert here["seeds"] == 2 and abs(here["gain"] - 0.11) < 1e-9 and here["reading"] == "collapsed (n = 1)"
    assert table.loc["8 × 1", "reading"] == "not tested" and table.loc["slow target, 8 × 3", "reading"] == "control"
    assert table.loc["slow target, 8 × 3", "loss"] == here["loss"] - 1      # their records have one loss; BYOL's scale is 1 off
    assert screen(shelf(**found | {"3,000 steps": (0.9, (0.68,))})).loc["8 × 3", "reading"] == "slow (n = 1)"
    assert screen(shelf(**found | {"slow target, 8 × 3": (0.95, (0.7,))})).loc["8 × 3", "reading"] == "limited (n = 1)"


def test_the_screen_reads_a_point_on_the_seeds_that_all_three_runs_share():
    """Seed 1 of the point alone gains much; on seed 0, which all have, it gains less than its longer run."""
    found = {"8 × 3": (0.9, (0.60, 0.90)), "3,000 steps": (0.9, (0.65,)), "slow target, 8 × 3": (0.9, (0.60,))}
    assert screen(shelf(**found)).loc["8 × 3", "reading"] == "slow (n = 1)"


POINTS = {"collapse-screen", "collapse-12-made"}       # these queue the screen
SMALL = [claim for claim in CLAIMS if claim.arms and claim.scales == ("small",) and claim.id not in POINTS]
FULL, MORE = ([claim for claim in CLAIMS if claim.scales == ("full",) and claim.id.endswith(end)] for end in ("-full", "-more"))


def test_every_claim_has_its_own_id_and_one_rule_in_all_worlds():
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
    for end, told, others in (("-full", "", FULL), ("-more", "With CIFAR-100's images besides: ", MORE)):
        assert [f"{claim.id}{end}" for claim in SMALL] == [claim.id for claim in others]
        assert all(a.rule == b.rule and told + a.sentence == b.sentence and a.priority < b.priority for a, b in zip(SMALL, others))


def test_more_images_change_the_images_and_nothing_else():
    for full, more in zip(FULL, MORE):
        there, besides = full.recipes("full"), more.recipes("full")
        assert besides == {arm: recipe.but(unlabelled="cifar100") for arm, recipe in there.items()}
        assert {r.count for r in besides.values()} == {100_000} and {r.images for r in besides.values()} == {"cifar10"}


def test_the_screen_is_queued_whole_and_its_corners_have_both_partners():
    queued = {r.key for claim in CLAIMS if claim.id in POINTS for r in claim.recipes("small").values()}
    points = {name: WORLD.but(**changes) for name, changes in SCREEN.items()}
    assert queued == {r.key for r in points.values()} and len(queued) == len(points)
    for corner in ("8 × 1", "8 × 3", "8 × 6"):
        r = points[corner]
        assert {r.but(steps=2 * r.steps).key, r.but(**SLOW["small"]).key} < queued, corner


def test_the_screens_rule_asks_whether_gain_and_auc_go_together():
    claim = next(claim for claim in CLAIMS if claim.id == "collapse-screen")
    def pooled(sign):
        return {f"arm {k}": [{"gain": 0.01 * k + 0.001 * seed, "AUC": 0.8 + sign * 0.005 * k} for seed in range(3)] for k in range(20)}
    assert decide(claim.rule, pooled(-1))[0] == "direction reproduced" and decide(claim.rule, pooled(1))[0] == "contradicted"
    assert decide(claim.rule, {arm: of[:1] for arm, of in pooled(-1).items()})[0] == "not tested"      # one seed is a search


def test_points_of_the_screen_take_five_minutes_at_most():
    assert all(seconds(r) < 300 for claim in CLAIMS if claim.id in POINTS for r in claim.recipes("small").values())


@pytest.mark.parametrize("claim", SMALL + FULL + MORE, ids=lambda claim: claim.id)
def test_arms_differ_and_a_rule_names_them_all(claim):
    recipes = claim.recipes(*claim.scales)
    assert len({recipe.key for recipe in recipes.values()}) == len(recipes) >= 2
    assert all(any(repr(arm) in repr(condition) for condition in claim.rule) for arm in recipes)
    assert judge(claim, Shelf(), *claim.scales).word == "not tested"


def test_small_arms_cost_five_minutes_at_most():
    for claim in SMALL:
        assert all(seconds(recipe) < 300 for recipe in claim.recipes("small").values()), claim.id


def test_what_is_compared_differs_in_nothing_else():
    arms = {claim.id: claim.recipes("small") for claim in SMALL}
    nets = {arm: recipe.build() for arm, recipe in arms["collapse-9-dim"].items()}
    assert {net.backbone.dim for net in nets.values()} == {64}
    assert len({sum(w.numel() for w in net.projector.parameters()) for net in nets.values()}) == 1
    assert all({r.build().projector.fc1.out_features for r in of.values()} == {512} for of in arms.values())
    assert {r.count for r in arms["collapse-12"].values()} == {50_000}     # the probes keep their images
    wide = {arm: recipe.build().backbone for arm, recipe in arms["collapse-11-dim"].items()}
    assert {net.dim for net in wide.values()} == {128}
    assert {recipe.steps for recipe in arms["collapse-10-why"].values()} == {1500, 3000}


def rows(**arms):
    """Rows of three seeds from {arm: figures}, with a little spread."""
    return {arm.replace("_", " "): [{m: v + 0.001 * seed for m, v in figures.items()} for seed in range(3)] for arm, figures in arms.items()}


@pytest.mark.parametrize(("number", "good", "bad"), [
    ("10", rows(shallow={"linear": 0.5, "gain": 0.2, "AUC rise": 0.1}, deep={"linear": 0.4, "gain": 0.1, "AUC rise": 0.3}),
     rows(shallow={"linear": 0.4, "gain": 0.1, "AUC rise": 0.3}, deep={"linear": 0.5, "gain": 0.2, "AUC rise": 0.1})),
    ("13", rows(shallow={"loss": -0.7, "gain": 0.2}, deep={"loss": -0.8, "gain": 0.1}),
     rows(shallow={"loss": -0.8, "gain": 0.1}, deep={"loss": -0.7, "gain": 0.2})),
    ("10-why", rows(deep={"gain": 0.1, "AUC": 0.9}, twice_the_steps={"gain": 0.1, "AUC": 0.9}, slow_target={"gain": 0.2, "AUC": 0.8}),
     rows(deep={"gain": 0.1, "AUC": 0.9}, twice_the_steps={"gain": 0.2, "AUC": 0.9}, slow_target={"gain": 0.05, "AUC": 0.95})),
    ("20-depth", rows(shallow={"gain": 0.16, "AUC": 0.75}, deep={"gain": 0.10, "AUC": 0.90},
                      **{"shallow, slow target": {"gain": 0.18, "AUC": 0.75}, "deep, slow target": {"gain": 0.17, "AUC": 0.80}}),
     rows(shallow={"gain": 0.16, "AUC": 0.75}, deep={"gain": 0.15, "AUC": 0.80},
          **{"shallow, slow target": {"gain": 0.20, "AUC": 0.70}, "deep, slow target": {"gain": 0.17, "AUC": 0.80}})),
    ("12", rows(**{"1%": {"AUC": 0.7}, "20%": {"AUC": 0.8}}), rows(**{"1%": {"AUC": 0.8}, "20%": {"AUC": 0.7}})),
    ("22", rows(shallow={"std": 0.9, "AUC rise": 0.1}, deep={"std": 0.9, "AUC rise": 0.3}),
     rows(shallow={"std": 0.9, "AUC rise": 0.3}, deep={"std": 0.2, "AUC rise": 0.1})),
])
def test_rules_hold_and_swapped_arms_contradict_them(number, good, bad):
    claim = next(claim for claim in CLAIMS if claim.id == f"collapse-{number}")
    assert decide(claim.rule, good)[0] == "direction reproduced"
    assert decide(claim.rule, bad)[0] == "contradicted"


def test_a_slow_target_that_helps_the_healthy_net_as_much_is_no_cure():
    claim = next(claim for claim in CLAIMS if claim.id == "collapse-20-depth")
    same = rows(shallow={"gain": 0.16, "AUC": 0.75}, deep={"gain": 0.10, "AUC": 0.90},
                **{"shallow, slow target": {"gain": 0.20, "AUC": 0.75}, "deep, slow target": {"gain": 0.14, "AUC": 0.80}})
    assert decide(claim.rule, same)[0] == "no difference seen"


@pytest.mark.parametrize("worse", [{"gain": 0.1, "AUC rise": 0.3}, {"gain": 0.05, "AUC rise": 0.1}])
def test_worse_from_the_start_is_not_made_worse_by_training(worse):
    """A deep net that begins with a poorer probe, or a higher AUC, must gain less and raise its AUC more besides."""
    claim = next(claim for claim in CLAIMS if claim.id == "collapse-10")
    same = rows(shallow={"linear": 0.5, "gain": 0.1, "AUC rise": 0.1}, deep={"linear": 0.4} | worse)
    assert decide(claim.rule, same)[0] == "no difference seen"
