"""Probes: two roads to one number, nothing lost, nothing leaked, nothing changed, and refusals that help."""
import math
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import r2_score
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from simsiam_explained import probes as P
from simsiam_explained.contrast import MoCo
from simsiam_explained.encoders import mlp, resnet
from simsiam_explained.images import Images, from_tensor, textures
from simsiam_explained.norms import SplitBN
from simsiam_explained.simsiam import SimSiam
from simsiam_explained.views import make_views


def clouds(n, d=16, classes=5, spread=1.0, seed=0):
    """Return (n, d) noisy points around `classes` fixed centres, and their labels."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, d, generator=torch.Generator().manual_seed(99))
    y = torch.randint(classes, (n,), generator=g)
    return centres[y] + spread * torch.randn(n, d, generator=g), y


def brute_force(bank, labels, query, k, tau, weighted):
    """Return the class of one query by loops over plain floats."""
    s = sorted(((float(torch.dot(query / query.norm(), b / b.norm())), int(y)) for b, y in zip(bank, labels)),
               reverse=True)[:k]
    votes = {}
    for similarity, y in s:
        votes[y] = votes.get(y, 0.0) + (math.exp(similarity / tau) if weighted else 1.0)
    return min(votes, key=lambda y: (-votes[y], y))


@pytest.fixture(scope="module")
def world():
    """Return (train, test) textures and their views: small, enough for every test here."""
    images = textures(360, classes=4, seed=0)
    return images[:240], images[240:], make_views("textures")


@pytest.fixture
def backbone():
    return resnet(width=4, blocks=(1, 1), stem="stride2", channels=1, seed=0)


# --- kNN


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("k, tau", [(1, 0.1), (7, 0.1), (20, 0.02), (150, 1.0)])
def test_knn_equals_brute_force(device, k, tau, weighted):
    bank, labels = clouds(150, spread=2.0)
    queries, _ = clouds(40, spread=2.0, seed=1)
    found = P.knn_predict(bank.to(device), labels.to(device), queries.to(device), k, tau, weighted, chunk=13).cpu()
    assert found.tolist() == [brute_force(bank.double(), labels, q.double(), k, tau, weighted) for q in queries]


@pytest.mark.parametrize("k", [1, 2, 10, 30])
def test_unweighted_knn_equals_scikit_learn_ties_included(device, k):
    (bank, labels), (queries, truth) = clouds(300, spread=2.0), clouds(200, spread=2.0, seed=1)
    theirs = KNeighborsClassifier(k, metric="cosine").fit(bank, labels)
    ours = P.knn_predict(bank.to(device), labels.to(device), queries.to(device), k, weighted=False)
    assert (ours.cpu().numpy() == theirs.predict(queries)).all()
    assert P.knn(bank, labels, queries, truth, k, weighted=False) == pytest.approx(theirs.score(queries, truth))


def test_a_tie_goes_to_the_smallest_label():
    bank, query = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.1]])
    assert P.knn_predict(bank, torch.tensor([7, 3]), query, k=2).item() == 3


def test_only_the_nearest_neighbour_agrees():  # the defect "column 2 of the sorted similarities"
    angles = torch.tensor([0.0, 0.5, 1.0, 1.5])
    bank = torch.stack([angles.cos(), angles.sin()], 1)
    queries = torch.stack([(angles + 0.1).cos(), (angles + 0.1).sin()], 1)
    labels = torch.arange(4)
    assert P.knn(bank, labels, queries, labels, k=1) == 1.0


def test_chunks_lose_no_query_and_change_nothing():
    (bank, labels), (queries, truth) = clouds(90), clouds(101, seed=1)
    whole = P.knn_predict(bank, labels, queries, k=9, chunk=1000)
    for chunk in (1, 50, 100, 101):
        part = P.knn_predict(bank, labels, queries, k=9, chunk=chunk)
        assert len(part) == 101 and torch.equal(part, whole)
    assert P.knn(bank, labels, queries, truth, k=9) == pytest.approx((whole == truth).sum().item() / 101)


def test_tiny_temperatures_do_not_overflow_and_labels_need_not_be_0_to_C():
    bank, labels = clouds(100, spread=0.1)
    assert P.knn(bank, 10 * labels - 7, bank + 0.01, 10 * labels - 7, k=50, tau=1e-3) == 1.0


def test_neighbours_come_nearest_first_with_their_cosine(device):
    bank, _ = clouds(60)
    queries, _ = clouds(11, seed=1)
    found = P.neighbours(bank.to(device), queries.to(device), k=60, chunk=4)
    cosine = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    assert (found.similarity.diff(dim=1) <= 0).all()
    torch.testing.assert_close(found.similarity.cpu(), cosine.gather(1, found.indices.cpu()))
    assert torch.equal(found.indices.sort(1).values.cpu(), torch.arange(60).expand(11, 60))


def test_the_usual_k_is_200_or_a_tenth_of_a_small_bank():
    assert [P.usual_k(n) for n in (1, 19, 40, 1999, 2000, 50_000)] == [1, 1, 4, 199, 200, 200]


# --- the linear probe


def test_linear_probe_equals_scikit_learn(device):
    (x, y), (x_test, y_test) = clouds(800, spread=2.5), clouds(500, spread=2.5, seed=1)
    x, x_test = x * torch.logspace(-3, 3, 16), x_test * torch.logspace(-3, 3, 16)  # badly scaled channels
    mean, std = x.double().mean(0), x.double().std(0, unbiased=False)
    theirs = LogisticRegression(C=1 / (1e-3 * len(x)), tol=1e-8, max_iter=5000).fit((x - mean) / std, y)
    weight, bias = P._logistic((x - mean) / std, y, 5, 1e-3)
    assert (weight.T - torch.from_numpy(theirs.coef_)).abs().max() < 1e-2 * weight.abs().max()
    ours = P.linear_predict(x.to(device), y.to(device), x_test.to(device)).cpu()
    same = (ours.numpy() == theirs.predict((x_test - mean) / std)).mean()
    assert same >= 0.998
    score = P.linear_probe(x.to(device), y.to(device), x_test.to(device), y_test.to(device))
    assert abs(score - theirs.score((x_test - mean) / std, y_test)) <= 0.002


def test_linear_probe_ends_at_the_optimum():
    x, y = clouds(300, spread=2.0)
    x = x.double()
    weight, bias = (t.requires_grad_() for t in P._logistic(x, y, 5, 1e-3))
    (F.cross_entropy(x @ weight + bias, y) + 0.5e-3 * weight.square().sum()).backward()
    assert max(weight.grad.abs().max(), bias.grad.abs().max()) < 1e-4


def test_linear_probe_is_deterministic_and_blind_to_scale_and_offset():
    (x, y), (x_test, _) = clouds(400, spread=2.0), clouds(300, spread=2.0, seed=1)
    first = P.linear_predict(x, y, x_test)
    assert torch.equal(first, P.linear_predict(x, y, x_test))
    assert torch.equal(first, P.linear_predict(x.double() * 1e-3 + 5, y, x_test.double() * 1e-3 + 5))


def test_standardises_with_train_statistics_only_and_silences_constant_channels():
    x = torch.cat([torch.randn(50, 2, generator=torch.Generator().manual_seed(0)), torch.full((50, 1), 3.0)], 1)
    train, test = P._standardise(x, torch.full((2, 3), 100.0))
    torch.testing.assert_close(train.mean(0), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(train.std(0, unbiased=False), torch.tensor([1.0, 1, 0], dtype=torch.float64))
    assert (test[:, :2] > 10).all() and (test[:, 2] == 0).all()


def test_a_test_class_that_train_lacks_counts_as_wrong():
    (x, y), (x_test, y_test) = clouds(300, spread=0.1), clouds(200, spread=0.1, seed=1)
    seen = y != 4
    expected = (y_test != 4).double().mean().item()
    assert P.linear_probe(x[seen], y[seen], x_test, y_test) == pytest.approx(expected)
    assert P.knn(x[seen], y[seen], x_test, y_test, k=9) == pytest.approx(expected)


def test_draws_are_balanced_differ_by_seed_and_repeat():
    labels = torch.tensor([0] * 50 + [1] * 20 + [5] * 3)
    rows = P.balanced(labels, 4, seed=1)
    assert labels[rows].bincount().tolist() == [4, 4, 0, 0, 0, 3] and len(rows.unique()) == 11
    assert torch.equal(rows, P.balanced(labels, 4, seed=1)) and not torch.equal(rows, P.balanced(labels, 4, seed=2))


def test_few_labels_sees_that_many_and_more_labels_help(device):
    (x, y), (x_test, y_test) = clouds(1000, spread=2.0), clouds(500, spread=2.0, seed=1)
    data = x.to(device), y.to(device), x_test.to(device), y_test.to(device)
    one, ten = (P.few_labels(*data, fraction=f, seeds=(0, 1, 2)) for f in (0.01, 0.1))
    assert len(one) == 3 and max(one) < min(ten) < P.linear_probe(*data) + 0.02
    rows = P.balanced(y, 2, seed=1).to(device)
    assert one[1] == P.linear_probe(data[0][rows], data[1][rows], *data[2:])


# --- factors


def factor_images(n, seed):
    g = torch.Generator().manual_seed(seed)
    factors = {"frequency": torch.rand(n, generator=g), "angle": math.pi * torch.rand(n, generator=g),
               "colours": torch.rand(n, 3, generator=g), "contrast": torch.full((n,), 0.5)}
    labels = torch.randint(3, (n,), generator=g)
    return Images(torch.zeros(n, 1, 4, 4, dtype=torch.uint8), labels, ("a", "b", "c"), factors, "made")


def test_factor_probe_reads_what_is_there_and_nothing_else():
    train, test = factor_images(600, 0), factor_images(400, 1)

    def x(images):
        a = images.factors["angle"]
        return torch.stack([images.factors["frequency"], (2 * a).sin(), (2 * a).cos()], 1)

    scores = P.factor_probe(x(train), train, x(test), test)
    assert set(scores) == {"frequency", "angle", "colours", "class"}  # a constant factor is left out
    assert scores["frequency"] > 0.99 and scores["angle"] > 0.99
    assert abs(scores["colours"]) < 0.05 and abs(scores["class"] - 1 / 3) < 0.1


def test_the_angle_of_a_stripe_has_period_pi():
    train, test = factor_images(600, 0), factor_images(400, 1)
    wrong = [torch.stack([i.factors["angle"].sin(), i.factors["angle"].cos()], 1) for i in (train, test)]
    assert P.factor_probe(wrong[0], train, wrong[1], test)["angle"] < 0.9


def test_ridge_equals_scikit_learn(device):
    (x, _), (x_test, _) = clouds(200), clouds(100, seed=1)
    y, y_test = x[:, :2].exp(), x_test[:, :2].exp()
    scaled, scaled_test = P._standardise(x, x_test)
    theirs = Ridge(alpha=1e-3 * len(x)).fit(scaled, y)
    expected = r2_score(y_test, theirs.predict(scaled_test), multioutput="variance_weighted")
    assert P._r2(x.to(device), y, x_test.to(device), y_test, 1e-3) == pytest.approx(expected, abs=1e-5)


# --- networks


def test_features_are_every_image_in_order_in_eval_mode(world, backbone, device):
    images, _, views = world
    backbone = backbone.to(device)
    backbone.layer1.eval()  # a frozen part keeps its mode
    modes = [m.training for m in backbone.modules()]
    state = {k: v.clone() for k, v in backbone.state_dict().items()}
    x = P.features(backbone, images, views, batch=77)
    assert x.shape == (240, backbone.dim) and x.dtype == torch.float32 and not x.requires_grad
    assert [m.training for m in backbone.modules()] == modes and any(modes) and not all(modes)
    assert all(torch.equal(v, state[k]) for k, v in backbone.state_dict().items())
    torch.testing.assert_close(P.features(backbone, images[[3, 200]], views), x[[3, 200]], rtol=1e-4, atol=1e-5)


def test_modes_come_back_after_an_error(world, backbone):
    with pytest.raises(ValueError, match="3 channels|1 channel"):
        P.features(backbone, from_tensor(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)), make_views("cifar"))
    assert all(m.training for m in backbone.modules())


def test_features_of_a_method_by_layer(world, backbone):
    images, _, views = world
    method = SimSiam(backbone, dim=12, layers=2)
    x, z = (P.features(method, images, views, layer=layer) for layer in ("backbone", "projector"))
    torch.testing.assert_close(x, P.features(backbone, images, views))
    assert z.shape == (240, 12)
    torch.testing.assert_close(z, method.projector.eval()(x).detach())


def test_settled_statistics_are_the_average_over_batches(device):
    norm = nn.BatchNorm1d(3, momentum=0.3).to(device)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), norm).to(device)
    images = from_tensor(torch.arange(0, 240, 12, dtype=torch.uint8).reshape(5, 1, 2, 2))

    class Fixed:
        seen = []

        def __call__(self, pixels, generator):
            self.seen += [pixels.float() / 255, pixels.float() / 510]
            return self.seen[-2:]

    P.settle_bn(net, images, Fixed(), batches=3, batch=4, seed=1)
    inputs = [net[1](net[0](x)).detach() for x in Fixed.seen]
    assert len(inputs) == 6 and norm.momentum == 0.3 and norm.training
    torch.testing.assert_close(norm.running_mean, torch.stack([x.mean(0) for x in inputs]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([x.var(0) for x in inputs]).mean(0))


@pytest.mark.parametrize("symmetry", ["symmetric", "asymmetric 2x"])
def test_settling_changes_buffers_only_and_untrained_not_even_those(world, backbone, symmetry):
    images, _, views = world
    method = SimSiam(backbone, dim=8, layers=2, symmetry=symmetry).eval()
    before, rng = {k: v.clone() for k, v in method.state_dict().items()}, torch.get_rng_state()
    copy = P.untrained(method, images, views, batches=2, batch=32)
    assert all(torch.equal(v, before[k]) for k, v in method.state_dict().items())
    changed = {k for k, v in copy.state_dict().items() if not torch.equal(v, before[k])}
    buffers = {k for k in before if k.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert changed == buffers and torch.equal(torch.get_rng_state(), rng)
    assert not any(m.training for m in copy.modules())
    assert not any(w.grad is not None for w in copy.parameters())
    again = P.settle_bn(copy, images, views, batches=2, batch=32).state_dict()  # from wherever it starts
    assert all(torch.equal(v, P.untrained(method, images, views, batches=2, batch=32).state_dict()[k])
               for k, v in again.items())


def test_split_bn_settles_on_the_parts_of_a_batch_as_in_training():
    halves = SplitBN(nn.BatchNorm1d(1), 2)
    pixels = torch.tensor([0, 255]).repeat_interleave(4).byte().view(8, 1, 1, 1)     # within each half: no variance

    class Ordered:
        def __call__(self, _, generator):
            return [pixels.float() / 255] * 2

    P.settle_bn(nn.Sequential(nn.Flatten(), halves), from_tensor(pixels), Ordered(), batches=3, batch=8)
    assert halves.bn.running_var.item() == pytest.approx(0, abs=1e-6)
    assert halves.bn.running_mean.item() == pytest.approx(0.5) and halves.bn.training


def test_parts_that_do_not_divide_the_batch_are_named(world, backbone):
    images, _, views = world
    method = MoCo(backbone, bn_groups=3, queue=0, dim=8)
    P.untrained(method, images, views, batches=1, batch=32)          # settles on 30 of them: nobody can choose the 32
    with pytest.raises(ValueError, match="bn_groups: got 3, which does not divide a batch of 32; take a multiple of 3"):
        method.backbone.train()(views.clean(images.pixels[:32]))


def test_settling_a_network_without_bn_does_nothing(world):
    images, _, views = world
    net = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 4))
    before = net[1].weight.clone()
    P.settle_bn(net, images, views, batches=1)
    assert torch.equal(net[1].weight, before)


def test_transfer_is_features_and_probes(world, backbone):
    train, test, views = world
    x, x_test = P.features(backbone, train, views), P.features(backbone, test, views)
    got = P.transfer(backbone, train, test, views, k=20)
    assert got.knn == P.knn(x, train.labels, x_test, test.labels, k=20)
    assert got.linear == P.linear_probe(x, train.labels, x_test, test.labels)
    assert P.transfer(backbone, train[:100], test, views) == P.transfer(backbone, train[:100], test, views, k=10)


@pytest.fixture(scope="module")
def easy():
    """Return (train, test) of vertical stripes against grey noise, and their views: a few steps are enough."""
    noise = 80 * torch.rand(300, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(300) % 2
    stripes = torch.tensor([0, 150] * 8).expand(16, 16)
    pixels = noise + torch.where(labels[:, None, None, None] == 1, stripes, torch.tensor(75))
    images = from_tensor(pixels.byte(), labels)
    return images[:200], images[200:], make_views("textures", crop_scale=(0.8, 1.0), jitter_p=0.0)


def test_fine_tuning_learns_on_a_copy_and_repeats(easy, backbone, device):
    train, test, views = easy
    backbone = backbone.to(device)
    before, rng = {k: v.clone() for k, v in backbone.state_dict().items()}, torch.get_rng_state()
    tuned = P.fine_tune(backbone, train, test, views, steps=30, batch=32)
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert tuned.accuracy > 0.8  # chance 0.5
    assert not any(m.training for m in tuned.backbone.modules())
    if device.type == "cpu":
        assert P.fine_tune(backbone, train, test, views, steps=30, batch=32).accuracy == tuned.accuracy


def test_fine_tuning_judges_the_whole_net_it_was_given(easy, backbone):
    train, test, views = easy
    pair = nn.Sequential(OrderedDict(backbone=backbone, projector=mlp([backbone.dim, backbone.dim], bn_out=True)))
    tuned = P.fine_tune(pair, train, test, views, steps=30, batch=32)
    assert tuned.accuracy > 0.8  # the head on the features of .backbone alone would be near 0.5


def test_fine_tuning_takes_the_backbone_of_a_method(easy, backbone):
    train, test, views = easy
    of_method, of_backbone = (P.fine_tune(net, train, test, views, steps=3, batch=16)
                              for net in (SimSiam(backbone, dim=8), backbone))
    assert of_method.accuracy == of_backbone.accuracy
    assert all(torch.equal(a, b) for a, b in zip(of_method.backbone.parameters(), of_backbone.backbone.parameters()))


def test_a_net_that_fine_tuning_broke_has_no_accuracy(easy, backbone):
    with pytest.raises(ValueError, match="logits of the tuned net: 100 of 100 rows hold NaN.*diverged"):
        P.fine_tune(backbone, *easy, steps=3, batch=16, lr=1e30)


def test_mlps_and_other_modules_are_backbones(world):
    images, _, views = world
    net = nn.Sequential(nn.Flatten(), mlp([32 * 32, 8, 5]))
    assert P.features(net, images, views).shape == (240, 5)


# --- refusals

GOOD, LABELS = clouds(30)


@pytest.mark.parametrize("call", [
    lambda x, y: P.knn(x, y, GOOD, LABELS, k=3), lambda x, y: P.linear_probe(x, y, GOOD, LABELS),
    lambda x, y: P.few_labels(x, y, GOOD, LABELS, fraction=0.5)], ids=["knn", "linear_probe", "few_labels"])
class TestRefusals:
    def test_missing_labels(self, call):
        with pytest.raises(ValueError, match="has none, and a probe needs them"):
            call(GOOD, None)

    def test_labels_of_another_length(self, call):
        with pytest.raises(ValueError, match="got 29 for 30 images"):
            call(GOOD, LABELS[:29])

    def test_a_single_class(self, call):
        with pytest.raises(ValueError, match="all 30 are 2.*at least two classes"):
            call(GOOD, torch.full((30,), 2))

    def test_nan(self, call):
        with pytest.raises(ValueError, match="30 of 30 rows hold NaN"):
            call(GOOD * float("nan"), LABELS)

    def test_wrong_rank(self, call):
        with pytest.raises(ValueError, match=r"got shape \(30, 4, 4\), expected \(N, d\)"):
            call(GOOD.reshape(30, 4, 4), LABELS)

    def test_other_width(self, call):
        with pytest.raises(ValueError, match="got 16 channels for 9"):
            call(GOOD[:, :9], LABELS)


@pytest.mark.parametrize("probe", [P.knn, P.linear_probe])
def test_refuses_test_labels_that_do_not_fit(probe):
    args = {"k": 3} if probe is P.knn else {}
    with pytest.raises(ValueError, match="test labels: got 7 for 30"):
        probe(GOOD, LABELS, GOOD, LABELS[:7], **args)
    with pytest.raises(ValueError, match="test labels: this image set has none"):
        probe(GOOD, LABELS, GOOD, None, **args)


@pytest.mark.parametrize("call, error, message", [
    (lambda: P.knn(GOOD, LABELS, GOOD, LABELS), ValueError, "k: got 200, but .* only 30 images; use k ≤ 30, as in k=3"),
    (lambda: P.neighbours(GOOD, GOOD, k=31), ValueError, "use k ≤ 30"),
    (lambda: P.neighbours(GOOD, GOOD, k=0), ValueError, "k: got 0"),
    (lambda: P.neighbours(GOOD, GOOD, k=2.5), TypeError, "k: got 2.5"),
    (lambda: P.knn(GOOD, LABELS, GOOD, LABELS, k=3, tau=0.0), ValueError, "tau: got 0.0"),
    (lambda: P.linear_probe(GOOD, LABELS, GOOD, LABELS, l2=0), ValueError, "l2: got 0"),
    (lambda: P.few_labels(GOOD, LABELS, GOOD, LABELS, fraction=10), ValueError, "fraction: got 10"),
    (lambda: P.linear_probe(GOOD.long(), LABELS, GOOD, LABELS), TypeError, r"use \.float"),
    (lambda: P.linear_probe(GOOD, LABELS.float(), GOOD, LABELS), TypeError, "expected a whole-number tensor"),
])
def test_refuses(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_refuses_an_unknown_layer_with_the_nearest_valid_one(world, backbone):
    images, _, views = world
    with pytest.raises(ValueError, match="Did you mean 'projector'"):
        P.features(backbone, images, views, layer="projection")
    with pytest.raises(ValueError, match="has none; use layer='backbone'"):
        P.features(backbone, images, views, layer="projector")


def test_refuses_pixels_that_are_no_image_set(world, backbone):
    images, _, views = world
    with pytest.raises(TypeError, match="got Tensor, expected Images; images.from_tensor"):
        P.features(backbone, images.pixels, views)


def test_refuses_a_backbone_that_makes_maps_or_nan(world):
    images, _, views = world
    with pytest.raises(ValueError, match=r"backbone features: got shape \(240, 2, 32, 32\)"):
        P.features(nn.Conv2d(1, 2, 1), images, views)
    net = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32, 4))
    nn.init.constant_(net[1].weight, float("nan"))
    with pytest.raises(ValueError, match="240 of 240 rows hold NaN.*diverged"):
        P.features(net, images, views)


def test_refuses_images_without_labels_or_factors(world, backbone):
    train, test, views = world
    bare = from_tensor(train.pixels)
    with pytest.raises(ValueError, match="train labels: this image set has none"):
        P.fine_tune(backbone, bare, test, views, steps=1)
    with pytest.raises(ValueError, match="has none, and a probe needs them"):
        P.transfer(backbone, bare, test, views, k=5)
    x = P.features(backbone, train, views)
    with pytest.raises(ValueError, match="only made images"):
        P.factor_probe(x, bare, x, bare)
