"""The collapse monitors: hand cases, identities, the papers' exact claims, the bias table, refusals."""
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from simsiam_explained import collapse as C
from simsiam_explained.encoders import resnet
from simsiam_explained.images import Images


def gaussian(*shape, seed=0, device="cpu"):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device)


def line(n, d, device="cpu"):
    """n points ±v with |v_c| = 1/√d: the rank-one output whose std is as large as a std can be."""
    sign = torch.ones(n, 1, device=device)
    sign[1::2] = -1
    return sign * torch.ones(d, device=device).masked_fill(torch.arange(d, device=device) % 3 == 0, -1) / d ** 0.5


def flat(k, d):
    return torch.cat([torch.ones(k), torch.zeros(d - k)])


def power_law(a, d=512):
    return torch.arange(1, d + 1, dtype=torch.float64) ** (-a / 2)   # λ ∝ i^−a, σ = √λ


# ---- std·√d: claims 4 and 5 of simsiam.md ----------------------------------------------------------------------
def test_std_of_an_isotropic_gaussian_is_one_over_root_d(device):
    for d, expected in [(2048, 0.0221), (512, 0.0442)]:
        ratio = float(C.std_ratio(gaussian(4000, d, device=device)))
        assert ratio == pytest.approx(1, abs=2e-3)
        assert ratio / d ** 0.5 == pytest.approx(expected, abs=1e-4)


def test_std_of_a_constant_is_exactly_zero(device):
    for constant in (0.0, 1e-3, 1 / 3, 1e6):
        assert float(C.std_ratio(torch.full((100, 16), constant, device=device))) == 0


def test_std_of_a_line_is_exactly_one(device):
    assert float(C.std_ratio(line(64, 128, device))) == pytest.approx(1, abs=1e-7)   # float32's own 1/√d


def test_std_of_the_identity():
    d = 16                                        # each channel: one 1 among d rows; variance 1/d − 1/d²
    assert float(C.std_ratio(torch.eye(d))) == pytest.approx((1 - 1 / d) ** 0.5, abs=1e-12)
    assert float(C._unit(torch.eye(d)).std(0).mean()) == pytest.approx(1 / d ** 0.5, abs=1e-12)   # lightly's hand case


def test_std_never_exceeds_one():
    for seed in range(30):
        x = gaussian(7 + seed, 9, seed=seed) * torch.logspace(-2, 2, 9) ** (seed % 3) + seed % 5
        assert float(C.std_ratio(x)) <= 1 + 1e-12
    x = torch.sign(gaussian(50, 8, seed=1))
    assert float(C.std_ratio(torch.cat([x, -x]))) == pytest.approx(1, abs=1e-12)   # mean zero, equal channels


def test_std_ignores_the_length_of_each_row(device):
    x = gaussian(200, 8, device=device)
    longer = x * torch.arange(1, 201, device=device)[:, None]
    assert float(C.std_ratio(longer)) == pytest.approx(float(C.std_ratio(x)), abs=1e-6)


# ---- spectrum: claim 8 of collapse.md ---------------------------------------------------------------------------
@pytest.mark.parametrize("n, d", [(300, 40), (40, 300), (64, 64), (2, 5)])
@pytest.mark.parametrize("centred", [True, False])
def test_gram_spectrum_equals_the_svd(n, d, centred, device):
    x = gaussian(n, d, seed=n, device=device).double() * torch.logspace(0, -3, d, device=device) + 0.7
    reference = torch.linalg.svdvals((x - x.mean(0) if centred else x).cpu())
    sigma = C.spectrum(x, centred)
    assert sigma.shape == (d,) and sigma.dtype == torch.float64 and sigma.device == x.device
    k, sigma = min(n, d), sigma.cpu()
    assert torch.allclose(sigma[:k], reference, rtol=1e-6, atol=1e-7 * float(reference[0]))
    assert (sigma[k:] == 0).all() and (sigma.diff() <= 0).all()


def test_spectrum_resolves_six_decades():
    basis = torch.linalg.qr(gaussian(400, 7).double() - gaussian(400, 7).double().mean(0)).Q
    x = basis * torch.logspace(0, -6, 7, dtype=torch.float64)
    assert torch.allclose(C.spectrum(x), torch.linalg.svdvals(x - x.mean(0)), rtol=1e-3)


def test_spectrum_is_blind_to_a_shift_and_turns_scale_through(device):
    x = gaussian(200, 12, device=device).double()
    turn = torch.linalg.qr(gaussian(12, 12, seed=3, device=device).double()).Q
    assert torch.allclose(C.spectrum(5 * x @ turn + 3), 5 * C.spectrum(x), rtol=1e-9)


def test_every_metric_takes_leading_batch_dimensions():
    x = gaussian(3, 2, 50, 6)
    sigma = C.spectrum(x)
    assert sigma.shape == (3, 2, 6)
    one = x[1, 1]
    for many, single in [
        (C.std_ratio(x), C.std_ratio(one)), (C.auc(sigma), C.auc(C.spectrum(one))),
        (C.effective_rank(sigma), C.effective_rank(C.spectrum(one))), (C.rankme(x), C.rankme(one)),
        (C.participation_ratio(sigma), C.participation_ratio(C.spectrum(one))),
        (C.alpha_slope(sigma), C.alpha_slope(C.spectrum(one))), (C.uniformity(x), C.uniformity(one)),
        (C.alignment(x, x + 1), C.alignment(one, one + 1)),
        (C.centre_residual(x).m_o, C.centre_residual(one).m_o), (C.centre_residual(x).m_r, C.centre_residual(one).m_r),
    ]:
        assert many.shape == (3, 2) and single.shape == ()
        assert float(many[1, 1]) == pytest.approx(float(single), rel=1e-9)


# ---- AUC: claims 1, 2, 4 of collapse.md -------------------------------------------------------------------------
@pytest.mark.parametrize("k, printed", [
    (1, 1), (10, 0.9912), (50, 0.9521), (100, 0.9033), (256, 0.7510), (512, 0.5010)])
def test_auc_of_a_flat_spectrum_and_the_equivalent_rank(k, printed):
    area = float(C.auc(flat(k, 512)))
    assert area == pytest.approx(1 - (k - 1) / 1024, abs=1e-12)
    assert area == pytest.approx(printed, abs=6e-5)
    assert C.equivalent_rank(area, 512) == pytest.approx(k, abs=1e-9)
    assert float(C.effective_rank(flat(k, 512))) == pytest.approx(k, rel=1e-12)
    assert float(C.participation_ratio(flat(k, 512))) == pytest.approx(k, rel=1e-12)


def test_auc_is_one_minus_the_mean_index_and_stays_in_its_bounds():
    for seed in range(10):
        d = 3 + 17 * seed
        sigma = gaussian(d, seed=seed).abs().double().sort(descending=True).values
        mean_index = float((torch.arange(d) * sigma).sum() / sigma.sum())
        area = float(C.auc(sigma))
        assert area == pytest.approx(1 - mean_index / d, abs=1e-12)
        assert 0.5 + 1 / (2 * d) - 1e-12 <= area <= 1
        assert float(C.auc(7.5 * sigma)) == pytest.approx(area, abs=1e-12)


def test_auc_of_features_ignores_scale_and_rotation_but_not_one_feature_scaled():
    x = gaussian(500, 20).double() * torch.logspace(0, -1, 20, dtype=torch.float64)
    turn = torch.linalg.qr(gaussian(20, 20, seed=3).double()).Q
    area = float(C.auc(C.spectrum(x)))
    assert float(C.auc(C.spectrum(9 * x @ turn))) == pytest.approx(area, abs=1e-9)
    assert abs(float(C.auc(C.spectrum(x * torch.linspace(5, 1, 20)))) - area) > 0.02


@pytest.mark.parametrize("a, expected", [(0.5, 0.571), (1, 0.657), (1.5, 0.758), (2, 0.855)])
def test_auc_of_a_power_law_uses_sigma_and_not_its_square(a, expected):
    sigma = power_law(a)
    assert float(C.auc(sigma)) == pytest.approx(expected, abs=6e-4)
    assert float(C.auc(sigma ** 2)) > expected + 0.08        # the wrong exponent cannot pass
    figures = C.spectrum_figures(sigma)
    assert figures.auc == float(C.auc(sigma)) and figures.auc_squared == float(C.auc(sigma ** 2))


def test_order_of_the_values_given_does_not_matter():
    sigma = power_law(1, 64)
    assert float(C.auc(sigma.flip(0))) == float(C.auc(sigma)) and C.cumulative_share(sigma)[-1] == pytest.approx(1)


@pytest.mark.parametrize("n, expected", [(512, 0.681), (1024, 0.612), (2048, 0.576), (10_000, 0.534), (50_000, 0.516)])
def test_finite_sample_bias_of_the_auc(n, expected, device):
    assert float(C.auc(C.spectrum(gaussian(n, 512, device=device)))) == pytest.approx(expected, abs=0.005)


def test_finite_sample_bias_at_2048_dimensions(device):
    assert float(C.auc(C.spectrum(gaussian(4096, 2048, device=device)))) == pytest.approx(0.612, abs=0.005)


# ---- claim 5: each monitor is blind where the other sees ---------------------------------------------------------
def test_std_and_spectrum_are_blind_to_each_others_collapse(device):
    constant = torch.ones(10_000, 512, device=device) / 512 ** 0.5
    almost = constant + 1e-3 / 512 ** 0.5 * gaussian(10_000, 512, device=device)
    complete, dimensional = C.measure(almost), C.measure(line(10_000, 512, device))
    assert complete.std == pytest.approx(1e-3, rel=0.02)          # std sees it …
    assert complete.auc == pytest.approx(0.534, abs=0.005)        # … the AUC takes it for a healthy Gaussian
    assert complete.rank > 500 and complete.m_o > 0.999
    assert dimensional.std == pytest.approx(1, abs=1e-6)          # the other way round
    assert dimensional.auc == 1 and dimensional.rank == pytest.approx(1, abs=1e-9)
    assert dimensional.m_o == pytest.approx(0, abs=1e-6) and dimensional.m_r == pytest.approx(1, abs=1e-6)


# ---- ranks, slope, uniformity, centre ----------------------------------------------------------------------------
def test_effective_rank_by_hand():
    sigma = torch.tensor([2.0, 1.0, 1.0])                         # shares ½, ¼, ¼: entropy 1.5 bits
    assert float(C.effective_rank(sigma)) == pytest.approx(2 ** 1.5, rel=1e-12)
    assert float(C.participation_ratio(sigma)) == pytest.approx(36 / 18, rel=1e-12)      # λ = 4, 1, 1


def test_rankme_by_the_papers_formula_and_its_two_conventions():
    x = gaussian(300, 20).double() + 5
    for centred in (False, True):
        sigma = torch.linalg.svdvals(x - x.mean(0) if centred else x)
        p = sigma / sigma.sum() + 1e-7
        assert float(C.rankme(x, centred)) == pytest.approx(float((-(p * p.log()).sum()).exp()), rel=1e-6)
    assert float(C.rankme(x)) < float(C.rankme(x, centred=True)) - 3     # the mean is one large direction uncentred
    wide = gaussian(10, 4000)                                            # 10 values, not 4,000: at most min(N, d)
    p = torch.linalg.svdvals(wide.double())
    p = p / p.sum() + 1e-7
    assert float(C.rankme(wide)) == pytest.approx(float((-(p * p.log()).sum()).exp()), rel=1e-4)


def test_two_clusters_have_rank_one():
    a, b = gaussian(2, 32)
    report = C.measure(torch.stack([a, b]).repeat(100, 1))
    assert report.rank == pytest.approx(1, abs=1e-9) and report.auc == 1 and report.participation == pytest.approx(1)
    assert report.rankme == pytest.approx(2, abs=0.15)                   # uncentred: two directions
    half = math.log((99 + 100 * math.exp(-2 * float((C._unit(torch.stack([a, b])).diff(dim=0) ** 2).sum()))) / 199)
    assert report.uniformity == pytest.approx(half, abs=1e-6)


@pytest.mark.parametrize("a", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("d", [8, 64, 100, 512])
def test_alpha_slope_recovers_a_power_law(a, d):
    assert float(C.alpha_slope(power_law(a, d))) == pytest.approx(a, rel=1e-9)


def test_alpha_slope_fits_ranks_11_to_100_only():
    sigma = power_law(1)
    sigma[:10] = 50                                                      # before the range
    sigma[100:] = 1e-3                                                   # after it
    assert float(C.alpha_slope(sigma)) == pytest.approx(1, rel=1e-9)
    assert float(C.alpha_slope(sigma, ranks=(1, 512))) != pytest.approx(1, abs=0.05)
    sigma[50:] = 0                                                       # dead directions do not count
    assert float(C.alpha_slope(sigma)) == pytest.approx(1, rel=1e-9)
    assert float(C.alpha_slope(flat(1, 512))) == math.inf


def test_alpha_slope_weighs_rank_i_by_one_over_i():
    i = torch.arange(1, 6, dtype=torch.float64)
    sigma = torch.tensor([5.0, 4.0, 2.5, 2.4, 0.5], dtype=torch.float64)
    design = torch.stack([torch.ones(5, dtype=torch.float64), i.log()], 1) / i.sqrt()[:, None]
    target = (sigma ** 2).log() / i.sqrt()
    slope = torch.linalg.lstsq(design, target[:, None]).solution[1, 0]
    assert float(C.alpha_slope(sigma)) == pytest.approx(-float(slope), rel=1e-9)


def test_uniformity_and_alignment(device):
    z = gaussian(2000, 128, device=device)
    assert float(C.uniformity(z)) == pytest.approx(-3.94, abs=0.02)       # relatives.md: −2t + 2t²/d
    assert float(C.uniformity(torch.ones(50, 8, device=device))) == pytest.approx(0, abs=1e-12)
    poles = torch.tensor([[1.0, 0], [-1, 0]], device=device)
    assert float(C.uniformity(poles)) == pytest.approx(-8)                # one pair, distance² 4
    assert float(C.alignment(z, 3 * z)) == pytest.approx(0, abs=1e-12)
    assert float(C.alignment(z, -z)) == pytest.approx(4)
    other = gaussian(2000, 128, seed=1, device=device)
    cosine = nn.functional.cosine_similarity(z, other).mean()
    assert float(C.alignment(z, other)) == pytest.approx(float(2 - 2 * cosine), abs=1e-5)


def test_uniformity_equals_the_loop_over_pairs_and_its_sample_is_close():
    z = nn.functional.normalize(gaussian(60, 5).double(), dim=1)
    pairs = torch.pdist(z).pow(2).mul(-2).exp().mean().log()
    assert float(C.uniformity(z)) == pytest.approx(float(pairs), abs=1e-9)
    many = gaussian(6000, 8)
    assert float(C.uniformity(z, t=1e6)) > -math.inf                      # nothing underflows
    assert float(C.uniformity(many, rows=1000)) == float(C.uniformity(many[::6]))   # evenly spaced rows
    assert float(C.uniformity(many, rows=1000)) == pytest.approx(float(C.uniformity(many, rows=6000)), abs=0.02)


def test_centre_and_residual():
    z = gaussian(10_000, 64)
    m_o, m_r = C.centre_residual(z)
    assert float(m_o) == pytest.approx(0.01, abs=0.002)                   # random rows: 1/√M
    for shift in (0.0, 0.3, 2.0):
        m_o, m_r = C.centre_residual(z + shift)
        assert float(m_o ** 2 + m_r ** 2) <= 1 + 1e-12
    pair = torch.tensor([[1.0, 0.0], [0.0, 1.0]])                         # o = (½, ½), each residual √½ long
    assert [float(v) for v in C.centre_residual(pair)] == pytest.approx([0.5 ** 0.5, 0.5 ** 0.5])
    three = torch.tensor([[2.0, 0.0], [5.0, 0.0], [-1.0, 0.0]])           # o = ⅓; residuals ⅔, ⅔, 4/3
    assert [float(v) for v in C.centre_residual(three)] == pytest.approx([1 / 3, 8 / 9])


# ---- degenerate features have a defined answer ---------------------------------------------------------------------
@pytest.mark.parametrize("constant", [0.0, 1.0, 1e5, 1 / 3])
def test_constant_features_have_a_defined_answer(constant, device):
    report = C.measure(torch.full((40, 8), constant, device=device))
    assert (report.std, report.auc, report.rank, report.participation) == (0, 1, 0, 0)
    assert report.uniformity == pytest.approx(0, abs=1e-12) and report.alpha == math.inf
    assert report.m_o == pytest.approx(1) and report.m_r == pytest.approx(0, abs=1e-12)
    assert report.rankme == pytest.approx(0 if constant == 0 else 1, abs=1e-3)
    assert not any(math.isnan(v) for v in report.row().values())


@pytest.mark.parametrize("constant", [0.1, 1 / 3, math.pi])
def test_a_constant_whose_mean_does_not_round_to_itself_is_still_constant(constant):
    x = torch.full((1001, 3), constant, dtype=torch.float64)
    assert (C.spectrum(x) == 0).all() and float(C.std_ratio(x)) == 0


def test_dead_rows_count_as_the_origin():
    z = torch.cat([gaussian(50, 8), torch.zeros(50, 8)])
    report = C.measure(z)
    assert not any(math.isnan(v) for v in report.row().values())
    assert report.std == pytest.approx(0.5 ** 0.5, abs=0.05)              # half of the rows carry all of the variance


def test_report_says_whether_the_sample_is_large_enough():
    assert C.measure(gaussian(160, 8)).trusted and not C.measure(gaussian(159, 8)).trusted
    report = C.measure(gaussian(160, 8))
    assert (report.n, report.d) == (160, 8) and report.sigma.shape == (8,) and "sigma" not in report.row()
    assert report.row()["auc"] == float(C.auc(report.sigma))


def test_measuring_changes_neither_the_features_nor_the_random_numbers():
    x = gaussian(50, 6).requires_grad_()
    before, state = x.detach().clone(), torch.get_rng_state()
    assert not C.spectrum(x).requires_grad
    C.measure(x)
    assert torch.equal(x, before) and torch.equal(torch.get_rng_state(), state)


# ---- the verdict ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("std, rank, word", [
    (0.9, 40, "no"), (0.44, 40, "std"), (0.9, 9.9, "rank"), (0.44, 9.9, "std and rank"),
    (0.45, 10, "no"),                                            # exactly at the thresholds: not below
    (0.01, 400, "std"), (1.0, 1, "rank")])
def test_collapsed_names_the_monitor(std, rank, word):
    assert C.collapsed(std, rank, healthy_std=0.9, healthy_rank=40) == word
    assert (C.STD_SHARE, C.RANK_SHARE) == (0.5, 0.25)


@pytest.mark.parametrize("bad", [dict(std=math.nan), dict(rank=-1), dict(healthy_std=0), dict(healthy_rank=math.inf)])
def test_collapsed_refuses_what_is_no_measurement(bad):
    given = dict(std=0.9, rank=40, healthy_std=0.9, healthy_rank=40) | bad
    with pytest.raises(ValueError, match=f"{next(iter(bad))}: got"):
        C.collapsed(**given)


# ---- stored spectra -----------------------------------------------------------------------------------------------
def test_spectrum_figures_of_a_made_spectrum():
    sigma = torch.cat([torch.tensor([2.0, 1, 1]), torch.zeros(5)])
    figures = C.spectrum_figures(sigma)
    assert figures.auc == pytest.approx(1 - (0 * 0.5 + 1 * 0.25 + 2 * 0.25) / 8)
    assert figures.auc_squared == pytest.approx(1 - (1 + 2) / 6 / 8)
    assert figures.k_eq == pytest.approx(1 + 16 * 0.75 / 8)
    assert figures.rank == pytest.approx(2 ** 1.5) and figures.participation == pytest.approx(2)
    assert figures.top1 == pytest.approx(4 / 6) and figures.dead == 5
    assert C.spectrum_figures(sigma.float().numpy()) == figures          # as a file would give it


# ---- per layer ------------------------------------------------------------------------------------------------------
@pytest.fixture
def world(device):
    pixels = torch.randint(0, 256, (40, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return (Images(pixels.to(device)),
            SimpleNamespace(clean=lambda pixels: pixels.float() / 255 - 0.5),
            resnet(width=8, blocks=(1, 1), channels=1, seed=0).to(device))


def method(backbone):
    model = nn.Module()
    model.backbone = backbone
    model.projector = nn.Sequential(nn.Linear(backbone.dim, 12), nn.BatchNorm1d(12))
    return model.to(next(backbone.parameters()).device)


def test_layers_of_a_method_are_measured_in_order(world):
    images, views, backbone = world
    model = method(backbone).train()
    model.backbone.layer1.eval()
    reports = C.measure_layers(model, images, views, batch=16)
    assert list(reports) == ["stem", "layer1", "layer2", "backbone", "projector"]
    assert [r.d for r in reports.values()] == [8, 8, 16, 16, 12] and all(r.n == 40 for r in reports.values())
    assert model.training and model.projector.training and not model.backbone.layer1.training   # modes put back
    assert not any(m._forward_hooks for m in model.modules())
    with torch.no_grad():
        h = model.eval().backbone(views.clean(images.pixels))
        assert reports["backbone"].auc == pytest.approx(C.measure(h).auc, rel=1e-4)
        assert reports["layer2"].auc == pytest.approx(reports["backbone"].auc, rel=1e-4)   # pooled map = features
        assert reports["projector"].std == pytest.approx(C.measure(model.projector(h)).std, rel=1e-4)


def test_layers_of_a_bare_backbone_and_chosen_layers(world):
    images, views, backbone = world
    assert list(C.measure_layers(backbone, images, views)) == ["stem", "layer1", "layer2", "backbone"]
    assert list(C.measure_layers(backbone, images, views, layers=["layer1.0"])) == ["layer1.0", "backbone"]
    plain = nn.Sequential(nn.Flatten(), nn.Linear(256, 6)).to(images.pixels.device)
    assert [r.d for r in C.measure_layers(plain, images, views).values()] == [256, 6, 6]


def test_a_layer_is_measured_before_the_next_one_changes_it_in_place(world):
    images, views, _ = world
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 16), nn.ReLU(inplace=True), nn.Linear(16, 8))
    net.to(images.pixels.device)
    reports = C.measure_layers(net, images, views)
    with torch.no_grad():
        h = net[:2](views.clean(images.pixels))
    before, after = (C.measure(x).std for x in (h, h.relu()))
    assert abs(before - after) > 0.05
    assert (reports["1"].std, reports["2"].std) == (pytest.approx(before, rel=1e-4), pytest.approx(after, rel=1e-4))


def test_layers_refuse_an_unknown_name_and_clean_up_after_an_error(world):
    images, views, backbone = world
    with pytest.raises(ValueError, match="Did you mean 'layer1'"):
        C.measure_layers(backbone, images, views, layers=["layr1"])
    broken = SimpleNamespace(clean=lambda pixels: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        C.measure_layers(backbone.train(), images, broken)
    assert backbone.training and not any(m._forward_hooks for m in backbone.modules())


class Odd(nn.Module):
    """A backbone with one child that never runs and one that does not return a tensor."""

    def __init__(self):
        super().__init__()
        self.idle, self.tuple, self.tokens = nn.Linear(2, 2), nn.LSTM(16, 5, batch_first=True), nn.Linear(5, 7)

    def forward(self, x):
        return self.tokens(self.tuple(x[:, 0])[0]).mean(1)


def test_layers_name_what_never_ran_and_what_is_no_tensor(world):
    images, views, backbone = world
    odd = Odd().to(images.pixels.device)
    reports = C.measure_layers(odd, images, views, layers=["tokens"])
    assert reports["tokens"].d == 7 and torch.equal(reports["tokens"].sigma, reports["backbone"].sigma)   # mean over T
    with pytest.raises(ValueError, match="'idle': the forward pass never reached it"):
        C.measure_layers(odd, images, views, layers=["idle"])
    with pytest.raises(TypeError, match="'tuple': got tuple"):
        C.measure_layers(odd, images, views, layers=["tuple"])


# ---- refusals ------------------------------------------------------------------------------------------------------
METRICS = [C.std_ratio, C.spectrum, C.rankme, C.uniformity, C.centre_residual, C.measure, lambda x: C.alignment(x, x)]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bad, error, message", [
    (torch.ones(4), ValueError, r"got shape \(4,\)"),
    (torch.ones(0, 4), ValueError, r"got shape \(0, 4\)"),
    (torch.ones(1, 4), ValueError, "got 1 row, expected at least 2"),
    (torch.ones(4, 3, dtype=torch.int64), TypeError, "int64"),
    (torch.tensor([[1.0, math.nan], [1, 2]]), ValueError, "1 of 2 rows hold NaN"),
    ([[1.0, 2.0], [3.0, 4.0]], TypeError, "got list")])
def test_metrics_refuse_bad_features(metric, bad, error, message):
    with pytest.raises(error, match=message):
        metric(bad)


def test_measure_wants_one_matrix_and_alignment_two_alike():
    with pytest.raises(ValueError, match="expected \\(N, d\\)"):
        C.measure(torch.ones(2, 5, 3))
    with pytest.raises(ValueError, match="expected the same"):
        C.alignment(torch.ones(5, 3), torch.ones(5, 4))


@pytest.mark.parametrize("metric", [C.auc, C.cumulative_share, C.effective_rank, C.participation_ratio, C.alpha_slope,
                                    C.spectrum_figures])
@pytest.mark.parametrize("bad, message", [(torch.tensor([1.0, -1]), "singular values ≥ 0"),
                                          (torch.tensor(1.0), "shape"),
                                          (torch.tensor([math.inf, 1]), "infinite"), (torch.empty(0), "shape")])
def test_spectral_metrics_refuse_bad_values(metric, bad, message):
    with pytest.raises(ValueError, match=message):
        metric(bad)


def test_more_refusals():
    with pytest.raises(ValueError, match="one spectrum"):
        C.spectrum_figures(torch.ones(2, 3))
    for ranks in [(0, 3), (2, 9), (3, 3), (4, 2)]:
        with pytest.raises(ValueError, match="ranks: got"):
            C.alpha_slope(torch.ones(5), ranks=ranks)
    with pytest.raises(ValueError, match="rows"):
        C.uniformity(torch.ones(4, 2), rows=0)
