"""Forecasts of accuracy: the line against scikit-learn, its errors, the pooled rules against chance, records as a table."""
import math
import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import ive
from scipy.stats import spearmanr
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import LeaveOneGroupOut, LeaveOneOut, cross_val_predict

from evidence_kit import record
from simsiam_explained import ledger
from simsiam_explained.collapse import uniformity
from simsiam_explained.evidence import Claim, claims, judge
from simsiam_explained.families import METHODS, _loss, train_family
from simsiam_explained.forecast import CLAIMS, FAMILY, frame, held_out, rivals, sphere_uniformity
from simsiam_explained.micro import Arm, Setting, VectorWorld, encode, train_arms
from simsiam_explained.pooled import Forecasts, Tracks, pool
from simsiam_explained.recipe import Recipe, base, seconds
from simsiam_explained.records import Shelf
from simsiam_explained.regression import counts, forecast, rank_correlation, resampled
from simsiam_explained.switches import Switches
from simsiam_explained.world import first_runs


def family(seed=0, b=-1.0, c=-1.0, recipes=14, seeds=3, accident=0.5, noise=0.15):
    """A table of runs: accuracy = b·loss + c·AUC + an accident of each recipe, which its seeds share, + noise."""
    g, each = np.random.default_rng(seed), np.repeat(np.arange(recipes), seeds)
    loss = g.normal(size=recipes)
    auc, lot = -0.5 * loss + 0.87 * g.normal(size=recipes), g.normal(size=recipes)
    x, z = loss[each] + noise * g.normal(size=len(each)), auc[each] + noise * g.normal(size=len(each))
    y = b * x + c * z + accident * lot[each] + noise * g.normal(size=len(each))
    return pd.DataFrame({"arm": [f"arm {k}" for k in each], "loss": x, "AUC": z, "linear": y})


def rows_of(table):
    return {arm: part.to_dict("records") for arm, part in table.groupby("arm", sort=False)}


# The line

def test_the_line_is_that_of_scikit_learn():
    table = family()
    X, y = table[["loss", "AUC"]].to_numpy(), table["linear"].to_numpy()
    fit, reference = forecast(table), LinearRegression().fit(X, y)
    np.testing.assert_allclose(fit.coefficients, [reference.intercept_, *reference.coef_], rtol=1e-10)
    assert fit.r2 == pytest.approx(r2_score(y, reference.predict(X)), abs=1e-12)
    np.testing.assert_allclose(fit(table), reference.predict(X), rtol=1e-10)
    np.testing.assert_allclose(forecast(table.to_dict("list")).coefficients, fit.coefficients)


def test_runs_and_groups_left_out_are_those_of_scikit_learn():
    table = family()
    X, y = table[["loss", "AUC"]].to_numpy(), table["linear"].to_numpy()
    for groups, splitter in (((), LeaveOneOut()), ("arm", LeaveOneGroupOut()), (["arm"], LeaveOneGroupOut())):
        fit = forecast(table, groups=groups)
        of = {"cv": splitter} | ({"groups": table["arm"]} if groups else {})
        np.testing.assert_allclose(fit.left_out, cross_val_predict(LinearRegression(), X, y, **of), rtol=1e-9)
        mean = cross_val_predict(LinearRegression(), np.zeros_like(X), y, **of)
        np.testing.assert_allclose(fit.left_out_mean, mean, rtol=1e-9)
        assert fit.left_out_r2 == pytest.approx(1 - ((y - fit.left_out) ** 2).sum() / ((y - mean) ** 2).sum(), abs=1e-12)


def test_r2_flatters_noise_and_runs_left_out_do_not():
    g = np.random.default_rng(0)
    found = [forecast(pd.DataFrame(g.normal(size=(12, 7)), columns=list("yabcdef")), "y", list("abcdef")) for _ in range(300)]
    assert np.mean([f.r2 for f in found]) == pytest.approx(6 / 11, abs=0.03)
    assert np.mean([f.left_out_r2 for f in found]) < -0.5


def test_an_affine_change_of_a_column_changes_no_forecast():
    table = family()
    changed = table.assign(AUC=3 - 1e4 * table["AUC"])
    np.testing.assert_allclose(forecast(table, groups="arm").left_out, forecast(changed, groups="arm").left_out, rtol=1e-6)
    np.testing.assert_allclose(resampled(table, groups="arm", draws=20)[:, 1],
                               -1e4 * resampled(changed, groups="arm", draws=20)[:, 1], rtol=1e-6)


@pytest.mark.parametrize("change, error, words", [
    (dict(of=["los", "AUC"]), ValueError, "got 'los'.*Did you mean 'loss'"),
    (dict(y="lineal"), ValueError, "Did you mean 'linear'"),
    (dict(groups="arms"), ValueError, "groups: got 'arms'.*'arm'"),
    (dict(of=[]), ValueError, "at least one column"),
    (dict(of=["arm"]), TypeError, "arm: expected a number"),
    (dict(groups="one"), ValueError, "form 1 groups.*at least 3"),
    (dict(of=["loss", "hole"]), ValueError, "hole is NaN or infinite in 1 of 42"),
    (dict(of=["loss", "endless"]), ValueError, "endless is NaN or infinite in 2 of 42"),
    (dict(of=["loss", "one"]), ValueError, "one is 7 in all 42"),
    (dict(y="one"), ValueError, "one is 7 in all 42"),
    (dict(of=["loss", "AUC", "again"]), ValueError, "one of loss, AUC, again is a line through the others"),
])
def test_what_cannot_be_fitted_is_refused(change, error, words):
    table = family().assign(one=7.0)
    table = table.assign(hole=table["AUC"].where(table.index != 3), again=table["loss"] - 2 * table["AUC"] + 1,
                         endless=table["AUC"].where(table.index > 1, math.inf))
    with pytest.raises(error, match=words):
        forecast(table, **change)


def test_a_column_that_varies_in_one_group_alone_is_refused():
    g = np.random.default_rng(0)
    table = pd.DataFrame({"group": np.repeat(list("abc"), 4), "loss": g.normal(size=12), "linear": g.normal(size=12),
                          "AUC": [0.7] * 8 + [0.80, 0.83, 0.87, 0.90]})
    with pytest.raises(ValueError, match="without the group of run 8 too few runs are left, or a column is constant"):
        forecast(table, groups="group")
    assert np.isfinite(forecast(table).left_out_r2)
    far = table.assign(AUC=1e9 + g.normal(size=12))                # far from 0 is not constant
    assert np.isfinite(forecast(far, groups="group").left_out_r2)


def test_too_few_runs_are_refused_and_their_number_is_said():
    with pytest.raises(ValueError, match="got 4 runs for 2 columns, expected at least one column and 5 runs"):
        forecast(family().iloc[:4])
    assert forecast(family(recipes=5, seeds=1)).coefficients
    with pytest.raises(ValueError, match="length"):
        forecast({"loss": [1, 2, 3], "AUC": [1, 2], "linear": [1, 2, 3]})


# What is drawn

def test_a_draw_is_the_fit_to_the_runs_as_often_as_they_count():
    table = family()
    slopes, drawn = resampled(table, groups="arm", draws=5, seed=3), counts(table, "arm", 5, 3)
    for slope, times in zip(slopes, drawn.astype(int)):
        np.testing.assert_allclose(slope, forecast(table.loc[table.index.repeat(times)]).coefficients[1:], rtol=1e-8)


def test_groups_are_drawn_whole():
    table = family()
    drawn = counts(table, "arm", 50)
    assert (drawn.sum(1) == len(table)).all() and set(np.unique(drawn)) <= set(range(15))
    assert (drawn.reshape(50, 14, 3) == drawn.reshape(50, 14, 3)[:, :, :1]).all()      # the three seeds of an arm go together
    assert (counts(table, (), 50).reshape(50, 14, 3).std(2) > 0).any()
    assert (counts(table, "arm", 9, seed=1) == counts(table, "arm", 9, seed=1)).all()


def test_rank_correlation_is_that_of_scipy_with_ties_and_counts():
    g = np.random.default_rng(0)
    x, y = g.integers(0, 6, 30), g.normal(size=30)
    assert rank_correlation(x, y)[0] == pytest.approx(spearmanr(x, y)[0], abs=1e-12)
    times = g.multinomial(30, np.full(30, 1 / 30), 4)
    expected = [spearmanr(x.repeat(t), y.repeat(t))[0] for t in times]
    np.testing.assert_allclose(rank_correlation(x, y, times.astype(float)), expected, atol=1e-12)
    assert rank_correlation([1, 1, 1], [1, 2, 3])[0] == 0
    for wrong in (([1, 2], [1, 2]), ([1, 2, 3], [1, 2]), ([1, 2, math.nan], [1, 2, 3])):
        with pytest.raises(ValueError, match="two columns of at least 3 finite numbers"):
            rank_correlation(*wrong)


# The rules on the pool

def test_the_rule_holds_where_both_numbers_count_and_not_otherwise():
    rule = Forecasts()
    assert rule(rows_of(family())) == "direction reproduced"
    assert rule(rows_of(family(c=0.0, seed=1))) == "no difference seen"            # AUC means nothing
    assert rule(rows_of(family(b=0.0, c=0.0))) == "no difference seen"
    assert rule(rows_of(family(c=1.0))) == "contradicted"                          # a higher AUC is better
    swapped = family().rename(columns={"linear": "loss", "loss": "linear"})
    assert rule(rows_of(swapped)) != rule(rows_of(swapped.assign(linear=-swapped["linear"])))


@pytest.mark.parametrize("together, alone, low, high, word", [
    (0.6, (0.1, 0.5), (-2, -3), (-1, -1), "direction reproduced"),
    (0.6, (0.1, 0.6), (-2, -3), (-1, -1), "no difference seen"),       # no better than AUC alone
    (0.6, (0.7, 0.5), (-2, -3), (-1, -1), "no difference seen"),       # worse than the loss alone
    (0.6, (0.1, 0.5), (-2, -3), (-1, 0.1), "no difference seen"),      # one slope may be 0
    (0.6, (0.1, 0.5), (-2, 0.1), (-1, 2), "contradicted"),             # one is above
])
def test_every_part_of_the_rule_decides(together, alone, low, high, word):
    class Told(Forecasts):
        def found(self, rows):
            return [SimpleNamespace(left_out_r2=r2) for r2 in (together, *alone)], np.array([low, high])
    assert Told()({}) == word
    fits, _ = Forecasts().found(rows_of(family()))
    assert [fit.of for fit in fits] == [("loss", "AUC"), ("loss",), ("AUC",)]


def test_the_rule_waits_for_forty_whole_runs():
    rule, table = Forecasts(), family()
    assert rule(rows_of(table.iloc[:39])) == "not tested"
    table.loc[[0, 20], "loss"] = math.nan                                         # diverged: 40 of 42 are left
    assert len(pool(rows_of(table), ("linear", "loss", "AUC"))) == 40 and rule(rows_of(table)) == "direction reproduced"
    table.loc[30, "AUC"] = math.inf
    assert rule(rows_of(table)) == "not tested" and "39 runs, 40 asked for" in rule.says(rows_of(table))[1]
    constant = rows_of(family().assign(AUC=0.7))                                   # nothing to explain
    assert rule(constant) == "no difference seen" and "AUC is 0.7 in all 42 runs" in rule.says(constant)[1]
    assert rule({}) == rule({"a": []}) == "not tested"


def test_the_rule_says_what_it_saw():
    asked, seen = Forecasts().says(rows_of(family()))
    assert asked.startswith("linear from loss and AUC") and re.match(r"R² left out: 0\.\d\d from loss and AUC, ", seen)
    assert re.search(r"slopes: loss −\d\.\d\d \(−.* to −.*\), AUC −", seen)


def test_recipes_not_runs_keep_chance_out():
    """In worlds where AUC has no effect but recipes have accidents, arms drawn whole are wrong in one of twenty; runs drawn
    singly in one of three. And the rule still finds an effect that is there."""
    def finds(table, groups):
        low, high = np.quantile(resampled(table, groups=groups, draws=300)[:, 1], [0.025, 0.975])
        return low > 0 or high < 0
    lifeless = [family(seed, c=0.0) for seed in range(80)]
    assert np.mean([finds(table, "arm") for table in lifeless]) < 0.15
    assert np.mean([finds(table, ()) for table in lifeless]) > 0.2
    words = [Forecasts()(rows_of(table)) for table in lifeless[:40]]
    assert words.count("direction reproduced") <= 4 and words.count("contradicted") <= 5
    alive = [Forecasts()(rows_of(family(seed, b=-0.7, c=-0.7))) for seed in range(20)]
    assert alive.count("direction reproduced") >= 13 and "contradicted" not in alive


def test_tracks_draws_recipes_not_runs():
    """In a lifeless world a measure that three seeds share seems to order the runs, where runs are drawn singly."""
    def found(seed, alone):
        table = family(seed, c=0.0)
        of = np.random.default_rng(seed + 1000).normal(size=14)[table.index // 3]
        rows = {str(i): [run] for i, run in enumerate(table.assign(other=of).to_dict("records"))} if alone else rows_of(table.assign(other=of))
        return Tracks("other")(rows) != "no difference seen"
    assert np.mean([found(seed, alone=False) for seed in range(40)]) < 0.2 < np.mean([found(seed, alone=True) for seed in range(40)])


def test_tracks_asks_for_the_order_and_the_sign():
    table = family(b=-1, c=0, accident=0.2)
    assert Tracks("loss", sign=-1)(rows_of(table)) == "direction reproduced"
    assert Tracks("loss")(rows_of(table)) == "contradicted"
    assert Tracks("loss")(rows_of(table.assign(loss=-table["loss"]))) == "direction reproduced"
    noise = table.assign(loss=np.random.default_rng(2).normal(size=14)[table.index // 3])
    assert Tracks("loss")(rows_of(noise)) == "no difference seen"
    assert Tracks("loss")(rows_of(table.iloc[:39])) == Tracks("loss")({}) == "not tested"
    near = table.assign(alpha=1 + table["linear"].max() - table["linear"])           # the nearer to 1, the better
    assert Tracks("alpha", sign=-1, near=1.0)(rows_of(near)) == "direction reproduced"
    below = near.assign(alpha=2 - near["alpha"])                                     # from below, too
    assert Tracks("alpha", sign=-1, near=1.0)(rows_of(below)) == "direction reproduced"
    assert Tracks("alpha", sign=-1)(rows_of(below)) == "contradicted"
    asked, seen = Tracks("alpha", sign=-1, near=1.0).says(rows_of(near))
    assert asked == "|alpha − 1| orders the runs against linear" and seen.startswith("Spearman's ρ −1.00 (")
    assert Tracks("loss").says({})[1] == "0 runs, 40 asked for"


def shelf_of(recipes, seeds=3):
    """A shelf on which every arm of `family()` has its records."""
    table, records = family(seeds=seeds), {}
    for (arm, part), recipe in zip(table.groupby("arm", sort=False), recipes):
        for seed, row in enumerate(part[["loss", "AUC", "linear"]].to_dict("records")):
            records[recipe.key, seed] = record(recipe, seed, **row)
    return Shelf(records)


def test_the_verdict_on_the_claim_needs_three_seeds_of_every_arm():
    claim = next(c for c in CLAIMS if c.id == "collapse-14")
    recipes = list(claim.recipes("small").values())
    verdict = judge(claim, shelf_of(recipes), "small")
    assert verdict.word == "direction reproduced" and verdict.seeds == (0, 1, 2)
    assert ledger.conditions(verdict)["seen"][0].startswith("R² left out")
    assert "all arms: R² left out" in ledger._runs_say(claim, verdict, "small")
    assert judge(claim, shelf_of(recipes, seeds=2), "small").word == "not tested"
    assert judge(claim, shelf_of(recipes[:-1]), "small").word == "not tested"        # an arm that is missing
    assert judge(claim, Shelf(), "small").word == "not tested"


# The table of records

def test_frame_reads_records_and_leaves_out_what_is_missing():
    recipes = {"narrow": base("live"), "wide": base("live").but(width=16), "missing": base("live").but(width=32)}
    records = {(recipes["narrow"].key, 0): record(recipes["narrow"], 0, linear=0.5),
               (recipes["narrow"].key, 1): record(recipes["narrow"], 1, linear=0.6),
               (recipes["wide"].key, 0): record(recipes["wide"], 0, status="diverged", linear=math.nan),
               (recipes["wide"].key, 1): record(recipes["wide"], 1, status="stopped")}
    table = frame(Shelf(records), recipes)
    assert table[["recipe", "width", "seed", "status"]].values.tolist() == [
        ["narrow", 8, 0, "ok"], ["narrow", 8, 1, "ok"], ["wide", 16, 0, "diverged"]]
    assert table["linear"].tolist()[:2] == [0.5, 0.6] and math.isnan(table["linear"][2])
    assert frame(Shelf(records), recipes, untrained=True)["kNN"].tolist() == [0.5] * 3
    empty = frame(Shelf(), recipes)
    assert empty.empty and list(empty.columns) == list(table.columns)
    for wrong in ([base("live")], {"a": "live"}):
        with pytest.raises(TypeError, match="expected {name: Recipe}"):
            frame(Shelf(), wrong)


def test_held_out_widths_are_forecast_by_the_others():
    table = family().assign(width=np.repeat([4, 8, 16, 32], [9, 12, 12, 9]))
    found = held_out(table, "width")
    own = table["width"] == 16
    rest = LinearRegression().fit(table.loc[~own, ["loss", "AUC"]], table.loc[~own, "linear"])
    error = table.loc[own, "linear"] - rest.predict(table.loc[own, ["loss", "AUC"]])
    assert found.loc[16, "error"] == pytest.approx((error ** 2).mean() ** 0.5)
    assert found.loc[16, "runs"] == 12 and list(found.index) == [4, 8, 16, 32]
    mean = table.loc[~own, "linear"].mean()
    assert found.loc[16, "error of the mean"] == pytest.approx(((table.loc[own, "linear"] - mean) ** 2).mean() ** 0.5)
    with pytest.raises(ValueError, match="at least 3"):
        held_out(table[table.width < 16], "width")


def test_rivals_choose_by_their_own_direction():
    table = family().assign(rankme=lambda t: t["linear"], uniformity=lambda t: t["linear"] + 1)
    table["alpha"] = 1 + (table["linear"].max() - table["linear"])
    found = rivals(table, groups="arm")
    assert found.loc["RankMe", "chosen"] == found.loc["α-ReQ", "chosen"] == table["linear"].max()
    assert found.loc["uniformity", "chosen"] == table["linear"].min()               # there lower is better
    both, alone = forecast(table, groups="arm"), forecast(table)
    assert found.loc["loss + AUC"].tolist()[:3] == pytest.approx([both.r2, alone.left_out_r2, both.left_out_r2])
    assert found.loc["loss + AUC", "chosen"] == table["linear"][both.left_out.argmax()]
    table.loc[0, "alpha"] = math.inf
    assert rivals(table).loc["α-ReQ"].isna().all() and rivals(table).loc["RankMe"].notna().all()


# The vector world's families

def test_the_family_is_trained_as_chapter_00_trains():
    ours = train_family(widths=(8,), jitters=(0.5, 0.9), seeds=(3, 4), steps=60)
    for jitter, part in ours.groupby("jitter"):
        run = train_arms({"SimSiam": Arm()}, [3, 4], 60, VectorWorld(jitter=jitter), Setting(width=8))
        np.testing.assert_allclose(part["accuracy"], run.content[-1, 0], atol=2e-3)
        np.testing.assert_allclose(part["rank"], run.feature_rank[-1, 0], rtol=2e-3)
        np.testing.assert_allclose(part["std"], run.std_ratio[-1, 0], rtol=2e-3)
    assert part["seed"].tolist() == [3, 4] and part["width"].tolist() == [8, 8]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_untrained_nets_are_alike(method):
    start, end = (train_family(method, (6,), (0.5,), (0,), steps) for steps in (0, 40))
    assert abs(start["AUC"][0] - train_family(widths=(6,), jitters=(0.5,), seeds=(0,), steps=0)["AUC"][0]) < 1e-6
    assert end["loss"][0] < start["loss"][0] and np.isfinite(end.drop(columns="method").to_numpy(float)).all()
    assert not math.isclose(end["AUC"][0], start["AUC"][0], rel_tol=1e-6)
    plain = train_family("SimSiam", (6,), (0.5,), (0,), 40)
    assert math.isclose(end["AUC"][0], plain["AUC"][0], rel_tol=1e-6) == (method == "SimSiam")     # each is its own


def test_contrast_is_the_cross_entropy_of_finding_the_other_view():
    x, weights = torch.randn(2, 32, 12, generator=torch.Generator().manual_seed(0)), first_runs(VectorWorld(), Setting(), [0, 1])
    switches = Switches.of([METHODS["contrastive"]] * 2, x)
    z = encode(weights, x, switches)[1].detach()
    u = torch.nn.functional.normalize(z, dim=1).mT
    score = u @ u.mT / 0.2 - 1e9 * torch.eye(12)
    other = torch.arange(12).roll(6)
    for run, found in zip(score, _loss("contrastive", weights, {}, x, switches).detach()):
        assert float(found) == pytest.approx(float(torch.nn.functional.cross_entropy(run, other)), rel=1e-4)


@pytest.mark.parametrize("given, words", [
    (dict(method="simsiam"), "Did you mean 'SimSiam'"), (dict(steps=-1), "steps: got -1"), (dict(steps=True), "steps: got True"),
    (dict(widths=()), "widths: got none"), (dict(seeds=()), "seeds: got none")])
def test_families_that_cannot_be_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        train_family(**given)


def test_a_family_that_diverges_is_named():
    with pytest.raises(FloatingPointError, match="SimSiam of width 4 ends at"):
        train_family(widths=(4,), jitters=(0.5,), seeds=(0,), steps=60, setting=Setting(lr=1e30, weight_decay=1e10))


# Uniformity

def test_uniformity_of_a_point_and_of_an_even_sphere():
    assert round(sphere_uniformity(128), 2) == -3.94 and round(sphere_uniformity(512), 2) == -3.98
    for d in (2, 8, 128):      # E exp(κ·cos) on the sphere = Γ(d/2) (2/κ)^(d/2 − 1) I_(d/2 − 1)(κ), κ = 4
        v = d / 2 - 1
        assert sphere_uniformity(d) == pytest.approx(math.lgamma(d / 2) + v * math.log(0.5) + math.log(ive(v, 4.0)), abs=1e-9)
        x = torch.randn(2048, d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
        assert float(uniformity(x)) == pytest.approx(sphere_uniformity(d), abs=0.02)
    assert float(uniformity(torch.ones(64, 128))) == 0
    for wrong in (0, 2.5):
        with pytest.raises((ValueError, TypeError), match="d: got"):
            sphere_uniformity(wrong)


# The claims

def test_the_family_has_forty_runs_of_one_recipe_and_nearly_all_serve_other_claims():
    mine = {claim.id: claim for claim in CLAIMS}
    assert 3 * len(FAMILY) >= Forecasts().least
    recipes = mine["collapse-14"].recipes("small")
    assert len({r.key for r in recipes.values()}) == len(recipes) == 14
    assert all(mine[name].recipes("small") == recipes for name in ("relatives-21", "relatives-21-alpha"))
    differs = {name for r in recipes.values() for name, value in r.whole().items() if value != recipes["8 × 3"].whole()[name]}
    assert differs == {"net", "order", "stream"}
    others = {r.key for claim in claims().values() if claim.arms is not FAMILY for r in claim.recipes("small").values()}
    assert sum(r.key not in others for r in recipes.values()) <= 2
    assert max(seconds(r) for r in recipes.values()) < 300
    assert all(isinstance(r, Recipe) for r in mine["collapse-14-nets"].recipes("full").values())


def test_uniformity_asks_for_runs_that_other_chapters_make():
    known = {r.key for claim in claims(["simsiam", "byol"]).values() for r in claim.recipes("small").values()}
    ours = next(c for c in CLAIMS if c.id == "relatives-22").recipes("small")
    assert {r.key for r in ours.values()} <= known
    arms = {"SimSiam": -2.9, "no stop-gradient": -0.01, "BYOL": -2.5, "SimCLR": -3.7}
    rule = next(c for c in CLAIMS if c.id == "relatives-22").rule
    words = lambda arms: {c({arm: [{"uniformity": u + 0.001 * k} for k in range(3)] for arm, u in arms.items()})  # noqa: E731
                          for c in rule}
    assert words(arms) == {"direction reproduced"}
    assert "contradicted" in words(arms | {"SimSiam": -3.9}) and "contradicted" in words(arms | {"no stop-gradient": -2.0})


def test_every_claim_says_where_it_stands():
    assert all(isinstance(claim, Claim) and claim.source and (claim.test or claim.rule) for claim in CLAIMS)
    assert len({claim.id for claim in CLAIMS}) == len(CLAIMS)
