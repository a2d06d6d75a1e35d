"""The table that judges runs side by side, and the spectra behind it."""
import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from simsiam_explained.collapse import spectrum
from simsiam_explained.encoders import resnet
from simsiam_explained.images import Images, textures
from simsiam_explained.memory import Run
from simsiam_explained.probes import features
from simsiam_explained.report import report, spectra
from simsiam_explained.simsiam import SimSiam
from simsiam_explained.training import fit
from simsiam_explained.views import make_views


@pytest.fixture(scope="module")
def arms():
    train, test = textures(300, size=16, seed=0).split(200)
    views = make_views("textures")

    def arm(constant=False):
        method = SimSiam(resnet(4, (1, 1), stem="stride2", channels=1, seed=0), dim=16, layers=2, hidden=16)
        run = fit(method, train, views, steps=6, batch=32, progress=False, device="cpu")
        if constant:
            nn.init.zeros_(run.method.projector[-1].weight)        # its last BN: every output is the offset
        return run

    return {"SimSiam": arm(), "constant": arm(constant=True)}, train, test, views


def test_the_report_has_a_row_for_each_run_and_one_for_the_untrained_net(arms):
    runs, train, test, views = arms
    table = report(runs, train, test, views)
    assert list(table.index) == ["untrained", "SimSiam", "constant"]
    assert list(table.columns) == ["loss", "std", "AUC", "rank", "kNN", "linear", "images/s", "collapsed"]
    assert list(table.collapsed) == ["untrained", "no", "std"]
    assert table["std"]["constant"] < 1e-6 < table["std"]["SimSiam"]
    assert table.loss["SimSiam"] == runs["SimSiam"].last("loss")
    assert table.loss["untrained"] == runs["SimSiam"].curve("loss")[1][0]
    assert table.drop(columns="collapsed").drop(index="untrained").notna().all(axis=None)
    before = runs["SimSiam"].initial.state_dict()
    assert report(runs, train, test, views)["kNN"].equals(table["kNN"]), "measuring changes nothing"
    assert all(torch.equal(v, before[k]) for k, v in runs["SimSiam"].initial.state_dict().items())


def test_the_report_without_labels_and_with_a_wrong_name(arms):
    runs, train, test, views = arms
    bare = report(runs, Images(train.pixels), Images(test.pixels), views)
    assert bare.kNN.isna().all() and bare.linear.isna().all() and bare["rank"].notna().all()
    assert report(runs, train, test, views, linear=False).linear.isna().all()
    with pytest.raises(ValueError, match="Did you mean 'SimSiam'"):
        report(runs, train, test, views, healthy="simsiam")
    with pytest.raises(ValueError, match="k: got 500, but the bank holds only 200"):
        report(runs, train, test, views, k=500)
    one_class = Images(train.pixels, torch.zeros_like(train.labels))
    assert report(runs, one_class, test, views).kNN.isna().all(), "one class: nothing to tell apart"
    for no_runs in ({}, runs["SimSiam"]):
        with pytest.raises(TypeError, match="runs: got .*at least one named run"):
            report(no_runs, train, test, views)


def test_collapse_is_measured_against_the_arm_that_is_named_healthy(arms):
    runs, train, test, views = arms
    backwards = dict(reversed(runs.items()))
    assert report(backwards, train, test, views, healthy="SimSiam").collapsed["constant"] == "std"
    with pytest.raises(ValueError, match="healthy: 'constant' is itself a constant .std·√d 0, .*name another run"):
        report(backwards, train, test, views)                       # the first arm


def test_two_runs_that_share_weights_are_refused(arms):
    runs, train, test, views = arms
    run = runs["SimSiam"]
    same_backbone = replace(run, method=SimSiam(run.method.backbone, dim=16, layers=2, hidden=16))
    for other in (replace(run), same_backbone):
        with pytest.raises(ValueError, match="runs 'a' and 'b' share weights; build a backbone for each, or copy"):
            report({"a": run, "b": other}, train, test, views)
    same_backbone.method.backbone.requires_grad_(False)            # training moves its batch norm's statistics all the same
    with pytest.raises(ValueError, match="share weights"):
        spectra({"a": run, "b": same_backbone}, train, test, views)
    same_backbone.method.backbone.requires_grad_(True)
    copied = report({"a": run, "b": copy.deepcopy(run)}, train, test, views, linear=False)
    assert copied["kNN"]["a"] == copied["kNN"]["b"]


def test_a_run_that_diverged_has_a_row_that_says_so(arms):
    runs, train, test, views = arms
    run, alone = runs["SimSiam"], report({"SimSiam": runs["SimSiam"]}, train, test, views)
    at_once = Run(copy.deepcopy(run.method), run.initial, {}, steps=6, status="diverged")
    at_last = copy.deepcopy(run)                                   # its last step took it to where no number is
    nn.init.constant_(at_last.method.backbone.stem[0].weight, float("inf"))
    given = {"at once": at_once, "SimSiam": run, "at last": at_last}
    table = report(given, train, test, views)
    assert list(table.index) == ["untrained", *given]
    assert list(table.collapsed) == ["untrained", "diverged", "no", "diverged"]
    assert table.loc[["at once", "at last"]].drop(columns="collapsed").isna().all(axis=None)
    assert table.loc[["untrained", "SimSiam"]].equals(alone)
    assert list(spectra(given, train, test, views)) == ["untrained", "SimSiam"]
    assert list(report({"at once": at_once}, train, test, views).collapsed) == ["untrained", "diverged"]
    with pytest.raises(ValueError, match="healthy: 'at once' has diverged; name one of 'SimSiam'"):
        report(given, train, test, views, healthy="at once")


def test_what_is_no_run_of_fit_is_refused_with_what_to_do(arms):
    runs, train, test, views = arms
    run = runs["SimSiam"]
    for given, fault, word in (
            (run.method, TypeError, "runs: 'a' is a SimSiam, expected a Run, which fit"),
            (Run(run.method, run.initial, {}, steps=6), ValueError, "runs: 'a' has taken no step; train it with fit")):
        with pytest.raises(fault, match=word):
            report({"a": given}, train, test, views)
    with pytest.raises(ValueError, match="runs: 'untrained' names the net before training"):
        report({"untrained": run}, train, test, views)
    with pytest.raises(TypeError, match="train: got Tensor, expected Images"):
        report(runs, train.pixels, test, views)
    with pytest.raises(TypeError, match="images: got Tensor, expected Images"):
        report(runs, train, test.pixels, views)


def test_spectra_take_the_start_of_the_run_that_is_named_healthy(arms):
    runs, train, test, views = arms
    other = copy.deepcopy(runs["SimSiam"])
    nn.init.normal_(other.initial.backbone.stem[0].weight)
    starts = [spectra(given, train, test, views, healthy=healthy)["untrained"] for given, healthy in (
        ({"a": runs["SimSiam"], "b": other}, "b"), ({"b": other}, None), ({"a": runs["SimSiam"], "b": other}, None))]
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])


@pytest.mark.parametrize("layer", ["backbone", "projector"])
def test_spectra_are_those_of_the_test_images(arms, layer):
    runs, train, test, views = arms
    found = spectra(runs, train, test, views, layer)
    assert list(found) == ["untrained", *runs]
    for name, run in runs.items():
        assert torch.equal(found[name], spectrum(features(run.method, test, views, layer=layer)))
