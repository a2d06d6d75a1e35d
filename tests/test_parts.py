"""The map of parts: what a method is made of, its losses against the modules', the rule of deaths, and the trainer."""
import math
from dataclasses import replace

import pandas as pd
import pytest
import torch
from nets import Pixels
from torch.nn import functional as F

from simsiam_explained import contrast, moco_v3
from simsiam_explained.byol import BYOL, byol_loss
from simsiam_explained.codes import DINO, SwAV, sinkhorn, swapped_loss
from simsiam_explained.micro import Arm, Setting, VectorWorld, encode, predictions, train_arms
from simsiam_explained.parts import DEATHS, METHODS, PARTS, Made, Seen, cells, death_map, has, kind_of_death, without
from simsiam_explained.named import arguments
from simsiam_explained.relatives import (PROTOTYPES, QUEUE, SETTING, TAU, _Runs, aligned, apart_from_both,
                                         apart_from_other, apart_from_queue, train_relatives)
from simsiam_explained.simsiam import D
from simsiam_explained.switches import Switches


def pairs(runs=3, n=6, d=5, seed=0):
    """Return two pairs of unit rows (runs, n, d) in float64."""
    g = torch.Generator().manual_seed(seed)
    p, t = torch.randn(2, 2, runs, n, d, generator=g, dtype=torch.float64)
    return [list(F.normalize(v, dim=-1)) for v in (p, t)]


# ---- what a method is made of ----

def test_the_table_is_that_of_the_papers():
    """The taxonomy of the papers, part by part."""
    table = pd.DataFrame({name: has(made) for name, made in METHODS.items()}) != ""
    lists = {"negatives": "SimCLR MoCo_v2 MoCo_v3", "predictor": "MoCo_v3 BYOL DirectPred SimSiam",
             "EMA": "MoCo_v2 MoCo_v3 DINO BYOL DirectPred", "equal partition": "SwAV", "centring": "DINO",
             "stop-gradient": "MoCo_v2 MoCo_v3 SwAV DINO BYOL DirectPred SimSiam", "sharpening": "SwAV DINO"}
    for part, names in lists.items():
        assert [name.replace(" ", "_") for name in table.columns[table.loc[part]]] == names.split(), part
    assert list(table.index) == list(PARTS)


def test_the_table_agrees_with_the_modules_arguments():
    defaults = {name: arguments("parts", of) for name, of in {
        "SimCLR": "contrast.SimCLR", "MoCo v2": "contrast.MoCo", "SwAV": "codes.SwAV", "DINO": "codes.DINO",
        "BYOL": "byol.BYOL", "SimSiam": "simsiam.SimSiam", "MoCo v3": "moco_v3.MoCoV3"}.items()}
    for name, a in defaults.items():
        made = METHODS[name]
        assert (made.predictor != "none") == (a.get("predictor", "none") != "none"), name
        assert made.ema == (a.get("target") == "ema" or 0 < a.get("m", 0) < 1), name
        assert made.stop_gradient == a.get("stop_gradient", True), name
        assert made.partition == (a.get("rounds", 0) > 0) and made.centring == a.get("centring", False), name
        assert made.sharpening == ("eps" in a and a["eps"] < a["temperature"]), name
    assert defaults["MoCo v2"]["queue"] > 0


def test_one_method_is_another_less_a_part():
    assert without(METHODS["MoCo v3"], "negatives") == METHODS["BYOL"]
    assert without(METHODS["BYOL"], "EMA") == METHODS["SimSiam"]
    assert without(METHODS["SimCLR"], "negatives") == Made()
    assert without(METHODS["BYOL"], "stop-gradient") == without(METHODS["SimSiam"], "stop-gradient")


def test_cells_hold_every_part_of_every_method_and_no_arm_twice():
    arms, where = cells()
    assert {m: {p for n, p in where if n == m} for m in METHODS} == {
        m: {part for part, of in has(made).items() if of} for m, made in METHODS.items()}
    assert len(set(arms.values())) == len(arms) == 26
    for (method, part), arm in where.items():
        assert arms[arm] == without(METHODS[method], part)


@pytest.mark.parametrize("wrong, told", [
    ({"negatives": "some"}, "negatives: got 'some'"), ({"predictor": "linear"}, "predictor: got 'linear'"),
    ({"ema": True}, "ema: got True with stop_gradient=False"), ({"partition": True}, "codes: got False")])
def test_what_cannot_be_made_is_refused(wrong, told):
    with pytest.raises(ValueError, match=told):
        Made(**wrong)


def test_a_part_that_is_not_there_cannot_be_taken_away():
    with pytest.raises(ValueError, match="part: got 'centring', expected one of 'predictor', 'stop-gradient'"):
        without(METHODS["SimSiam"], "centring")


# ---- the rule ----

WELL, NO_CODES = Seen(1.0, 12.0, 0.7, 0.2), Seen(1.0, 12.0, math.nan, math.nan)


@pytest.mark.parametrize("run, healthy, kind", [
    (Seen(0.9, 11.0, 0.8, 0.15), WELL, "alive"),
    (Seen(0.9, 11.0, 0.02, 0.01), WELL, "one-hot"),         # of std and rank nothing is to be seen
    (Seen(0.0, 1.0, 0.99, 0.001), WELL, "uniform"),
    (Seen(0.3, 2.0, 0.7, 0.2), WELL, "complete"),
    (Seen(0.9, 2.0, 0.7, 0.2), WELL, "dimensional"),
    (Seen(0.51, 3.1, math.nan, math.nan), NO_CODES, "alive"),
    (Seen(0.49, 3.1, math.nan, math.nan), NO_CODES, "complete"),
    (Seen(0.51, 2.9, math.nan, math.nan), NO_CODES, "dimensional")])
def test_the_rule_of_deaths_by_hand(run, healthy, kind):
    assert kind_of_death(run, healthy) == kind and kind in DEATHS


def test_the_map_says_what_is_missing_what_is_split_and_what_is_another_method():
    _, where = cells()
    fates = {cell: ["alive"] * 3 for cell in where} | {("SimSiam", "predictor"): ["complete", "alive", "complete"]}
    table = death_map(fates)
    assert table.loc["SimSiam", "predictor"] == "complete 2, alive 1" and table.loc["SimSiam", "EMA"] == "–"
    assert table.loc["BYOL", "EMA"] == "alive = SimSiam" and table.loc["MoCo v3", "negatives"] == "alive = BYOL"


# ---- the losses are the modules' ----

def test_agreement_is_simsiams_and_byols_loss():
    (p1, p2), (t1, t2) = p, t = pairs()
    for i in range(3):
        ours = float(aligned(p, t)[i])
        assert ours == pytest.approx(float(D(p1[i], t2[i]) + D(p2[i], t1[i])) / 2)
        byol = byol_loss(torch.cat([p1[i], p2[i]]), torch.cat([t1[i], t2[i]]))
        assert ours == pytest.approx(float(byol) / 4 - 1)


def test_repulsion_from_both_views_is_a_naive_loop_and_the_modules():
    p, t = pairs()
    everyone, targets = torch.cat(p, 1), torch.cat(t, 1)
    for run in range(3):
        total = 0.0
        for i in range(12):
            partner = (i + 6) % 12
            terms = [math.exp(float(everyone[run, i] @ targets[run, k]) / TAU) for k in range(12) if k != i]
            total -= math.log(math.exp(float(everyone[run, i] @ targets[run, partner]) / TAU) / sum(terms)) / 12
        assert float(apart_from_both(p, t)[run]) == pytest.approx(TAU * total)
        assert float(apart_from_both(p, t)[run]) == pytest.approx(
            TAU * float(contrast.nt_xent(everyone[run], targets[run], TAU)))


def test_repulsion_from_the_other_view_is_a_naive_loop_and_a_quarter_of_moco_v3s():
    p, t = pairs()
    for run in range(3):
        total = 0.0
        for a, b in ((p[0][run], t[1][run]), (p[1][run], t[0][run])):
            for i in range(6):
                terms = [math.exp(float(a[i] @ b[k]) / TAU) for k in range(6)]
                total -= math.log(terms[i] / sum(terms)) / 6
        ours = float(apart_from_other(p, t)[run])
        assert ours == pytest.approx(TAU * total / 2)
        module = sum(moco_v3.ctr(a[run], b[run], TAU) for a, b in ((p[0], t[1]), (p[1], t[0])))
        assert ours == pytest.approx(float(module) / 4)


def test_repulsion_from_a_queue_is_a_naive_loop():
    p, t = pairs()
    queue = pairs(n=9, seed=4)[0][0]
    for run in range(3):
        total = 0.0
        for i in range(6):
            own = math.exp(float(p[0][run, i] @ t[1][run, i]) / TAU)
            others = sum(math.exp(float(p[0][run, i] @ k) / TAU) for k in queue[run])
            total -= math.log(own / (own + others)) / 6
        assert float(apart_from_queue(p, t, queue)[run]) == pytest.approx(TAU * total)


# ---- the trainer ----

TINY = Setting(lr=0.3, points=3, batch=16, width=8, dim=8)


def test_simsiam_and_its_ruins_are_those_of_chapter_00():
    arms = {"SimSiam": METHODS["SimSiam"], "no predictor": without(METHODS["SimSiam"], "predictor"),
            "no stop-gradient": without(METHODS["SimSiam"], "stop-gradient"), "SwAV": METHODS["SwAV"]}
    ours = train_relatives(arms, [3, 4], 20, setting=SETTING)
    theirs = train_arms({"SimSiam": Arm(), "none": Arm(predictor="none"), "no sg": Arm(stop_gradient=False)}, [3, 4], 20,
                        setting=SETTING)
    for mine, other in ((ours.loss, theirs.loss), (ours.std, theirs.std_ratio), (ours.content, theirs.content)):
        assert torch.allclose(mine[:, :3], other, atol=1e-4)


def test_an_arm_does_not_depend_on_its_neighbours():
    arms, _ = cells()
    together = train_relatives(arms, [5], 6, setting=TINY)
    for i, (name, made) in enumerate(arms.items()):
        alone = train_relatives({name: made}, [5], 6, setting=TINY)
        assert torch.allclose(together.z[:, i], alone.z[:, 0], atol=2e-4), name
        assert torch.allclose(together.told[:, i], alone.told[:, 0], atol=1e-4, equal_nan=True), name


def one_run(name):
    """Return a run of a method whose slow net, where it has one, is no copy of its own, and two batches for it."""
    runs, other = (_Runs({name: METHODS[name]}, [seed], VectorWorld(), TINY) for seed in (0, 1))
    runs.slow = other.slow
    return runs, torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def seen(runs, x):
    """Return outputs z (dim, n); and of both views, rows of length 1: z, the MLP's p, the targets."""
    layers = Switches.of([Arm()], x)
    z = encode(runs.weights, x, layers)[1]
    t = encode(runs.slow if runs.made[0].ema else runs.weights, x, layers)[1].detach()
    return z[0], *(F.normalize(v[0].T, dim=1).chunk(2) for v in (z, predictions(runs.weights, z, layers), t))


def coded(runs, z, t, rounds, centre=0.0):
    """Return SwAV's loss or DINO's, at the map's scale."""
    teacher = (runs.slow if runs.made[0].ema else runs.weights)["codes"][0].detach()
    codes = [sinkhorn(v @ teacher.T - centre, 0.05, rounds) for v in t]
    return 0.3 * swapped_loss(codes, [v @ runs.weights["codes"][0].T for v in z], 0.1)


def directed(z, moment):
    """Return √moment + 0.1·√(its largest eigenvalue) times z (dim, n): rows of length 1 of both views."""
    s, U = torch.linalg.eigh(moment.detach())
    return F.normalize((U @ torch.diag(s.sqrt() + 0.1 * s.max().sqrt()) @ U.T @ z).T, dim=1).chunk(2)


def both_ways(p, t):
    return (D(p[0], t[1]) + D(p[1], t[0])) / 2


@pytest.mark.parametrize("name", METHODS)
def test_each_method_is_trained_by_its_modules_loss_on_its_own_predictions_and_targets(name):
    runs, (x, _) = one_run(name)
    outputs, z, p, t = seen(runs, x)
    theirs = {
        "SimCLR": TAU * contrast.nt_xent(torch.cat(z), temperature=TAU),
        "MoCo v2": TAU * contrast.info_nce(z[0], t[1], TAU, runs.queue.flatten(0, 1)),
        "MoCo v3": (moco_v3.ctr(p[0], t[1], TAU) + moco_v3.ctr(p[1], t[0], TAU)) / 4,
        "SwAV": coded(runs, z, t, rounds=3), "DINO": coded(runs, z, t, rounds=0),
        "BYOL": byol_loss(torch.cat(p), torch.cat(t)) / 4 - 1, "SimSiam": both_ways(p, t),
        "DirectPred": both_ways(directed(outputs, outputs @ outputs.T), t)}[name]
    ours = runs.loss(x)
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-5)
    assert torch.allclose(*(torch.autograd.grad(loss, runs.weights["f"])[0] for loss in (ours, theirs)), atol=1e-5)


def test_directpreds_predictor_comes_from_a_running_correlation():
    runs, batches = one_run("DirectPred")
    (z1, *_), (z2, *_, t) = (seen(runs, x) for x in batches)
    runs.loss(batches[0])
    by_hand = both_ways(directed(z2, 0.7 * z2 @ z2.T + 0.3 * 0.7 * z1 @ z1.T), t)
    assert runs.loss(batches[1]).item() == pytest.approx(by_hand.item(), abs=1e-5)


def test_dinos_centre_is_a_running_mean_of_both_views_scores_and_is_taken_from_them():
    runs, batches = one_run("DINO")
    _, z, _, t = seen(runs, batches[1])
    mean = [torch.cat(seen(runs, x)[3]).mean(0) @ runs.slow["codes"][0].T for x in batches]
    runs.loss(batches[0])
    assert torch.allclose(runs.centre[0, 0], 0.1 * mean[0], atol=1e-6)
    by_hand = coded(runs, z, t, rounds=0, centre=0.1 * mean[0])
    assert runs.loss(batches[1]).item() == pytest.approx(by_hand.item(), abs=1e-5)
    assert torch.allclose(runs.centre[0, 0], 0.09 * mean[0] + 0.1 * mean[1], atol=1e-6)


def test_a_slow_target_follows_and_the_queue_takes_its_outputs():
    runs = _Runs({"MoCo v2": METHODS["MoCo v2"], "SimSiam": METHODS["SimSiam"]}, [0], VectorWorld(), TINY)
    x = torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(0))
    assert list(runs.slow_rows) == [0] and runs.queue.shape == (1, QUEUE, 8)
    slow, queue = runs.slow["g2"].clone(), runs.queue.clone()
    loss = runs.loss(x)
    _, t, _ = runs.sides(x)
    assert torch.allclose(runs.queue[0, :16], t[0, 16:]) and torch.equal(runs.queue[0, 16:], queue[0, :-16])
    runs.step(loss, 1.0)
    assert torch.allclose(runs.slow["g2"], 0.9 * slow + 0.1 * runs.weights["g2"][:1])


def test_without_the_affine_the_output_keeps_its_scale():
    runs = _Runs({"on": METHODS["SimSiam"], "off": replace(METHODS["SimSiam"], affine=False)}, [0], VectorWorld(), TINY)
    runs.step(runs.loss(torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(0))), 1.0)
    assert (runs.weights["g2_scale"][0] != 1).any() and (runs.weights["g2_scale"][1] == 1).all()
    assert (runs.weights["g2_offset"][1] == 0).all()


def test_without_the_affine_an_output_varies_but_hardly_in_more_than_one_direction():
    pinned = {"SimSiam": replace(METHODS["SimSiam"], affine=False)}
    arms, where = cells(pinned)
    film = train_relatives(arms, [7, 8], 250)
    whole, ruin = (film.table().loc[arm] for arm in ("SimSiam", "SimSiam − stop-gradient"))
    assert ruin["std"] > 0.2 and ruin["rank"] < 2.5 < 6 < whole["rank"]
    assert "alive" not in film.fates(where)["SimSiam", "stop-gradient"]


@pytest.fixture(scope="module")
def codes():
    arms, where = cells({name: METHODS[name] for name in ("SwAV", "DINO")})
    return train_relatives(arms, [7, 8], 250), where


def test_dinos_two_deaths(codes):
    """Without centring the entropy of the codes goes to 0, without sharpening to ln K, and KL to 0 in both."""
    film, where = codes
    end = {arm: (film.own[-1, i], film.kl[-1, i]) for i, arm in enumerate(film.arms)}
    assert end["DINO − centring"][0].max() < 0.1
    assert end["DINO − sharpening"][0].min() > 0.98 * math.log(PROTOTYPES)
    assert max(float(end[f"DINO − {part}"][1].max()) for part in ("centring", "sharpening")) < 0.05
    assert end["DINO"][1].min() > 0.1 and 0.3 * math.log(PROTOTYPES) < end["DINO"][0].min()
    fates = film.fates(where)
    assert fates["DINO", "centring"] == ["one-hot"] * 2 and fates["DINO", "sharpening"] == ["uniform"] * 2


def test_codes_without_any_equal_partition_die_and_with_it_do_not(codes):
    film, where = codes
    assert film.fates(where)["SwAV", "equal partition"] == ["one-hot"] * 2
    assert film.told[-1, 0].min() > 0.02 and film.std[-1, 0].min() > 0.8


# ---- the modules, at the same parts ----

def test_the_modules_losses_are_the_maps():
    """SwAV, DINO and BYOL as modules, and as arms of the map, on the same outputs."""
    g = torch.Generator().manual_seed(0)
    xs = list(torch.randn(2, 16, 3, 4, 4, generator=g))
    for kind, rounds, eps in ((SwAV, 3, 0.05), (DINO, 0, 0.04)):
        method = kind(Pixels(), prototypes=7, dim=8, hidden=10, shape=(3, 4, 4), frozen=0)
        out = method(*xs)
        w = method.prototypes.weight
        scores = [F.normalize(z, dim=1) @ w.T for z in (out.z1, out.z2)]
        codes = [sinkhorn(s.detach(), eps, rounds) for s in scores]      # at first the teacher is the student
        assert torch.allclose(out.loss, swapped_loss(codes, scores, 0.1), atol=1e-5)
    method = BYOL(Pixels(), dim=8, hidden=64, predictor_hidden=64, shape=(3, 4, 4), target="copy")
    out = method(*xs)
    p, t = ([F.normalize(v, dim=1)[None] for v in pair] for pair in ((out.p1, out.p2), (out.z1, out.z2)))
    assert float(out.loss.detach()) / 4 - 1 == pytest.approx(float(aligned(p, t).detach()), abs=1e-5)
