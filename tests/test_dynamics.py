"""The linear theory against closed forms, autograd and itself; DirectPred against its formula; pulls on free vectors."""
import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from simsiam_explained import vectors
from simsiam_explained.byol import optimal_predictor
from simsiam_explained.collapse import centre_residual
from simsiam_explained.decentring import PULLS, Pulled, centre_and_residual, extra_centre, pull_loss
from simsiam_explained.dynamics import (CLAIMS, DirectPred, Knobs, basin_border, integrate, least_squares_predictor,
                                        matrix_flow, mode_flow, mode_jacobian, moments, rest_points, spectral_predictor)
from simsiam_explained.encoders import mlp
from simsiam_explained.predictor import PREDICTORS
from simsiam_explained.simsiam import D, SimSiam
from simsiam_explained.training import Plan, make_optimiser
from simsiam_explained.vectors import VectorArm, train_vectors

KNOBS = Knobs()      # η = 0.1, α_p = 1, τ = 1, 1 + σ² = 1.5: the worked example


def point(*values, device="cpu"):
    return torch.tensor(values, dtype=torch.float64, device=device)


def end(start, knobs, time=300.0, steps=3000):
    return integrate(lambda x: mode_flow(x, knobs), start, time, steps)[-1]


def matrices(d, seed, device="cpu", n=2, scale=0.6):
    g = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(n, d, d, generator=g, dtype=torch.float64)).to(device)


def symmetric(x):
    return (x + x.mT) / 2


# the integrator

def test_the_integrator_has_order_four(device):
    error = [abs(float(integrate(lambda x: -x, point(1.0, device=device), 2.0, n)[-1]) - math.exp(-2)) for n in (10, 20, 40)]
    assert error[2] < 1e-6 and 14 < error[0] / error[1] < 20 and 14 < error[1] / error[2] < 18


def test_the_integrator_agrees_with_another_one():
    solve = pytest.importorskip("scipy.integrate").solve_ivp
    start = point(0.2, 0.5)
    theirs = solve(lambda t, x: mode_flow(torch.as_tensor(x), KNOBS).numpy(), (0, 30), start, rtol=1e-11, atol=1e-13)
    assert torch.allclose(integrate(lambda x: mode_flow(x, KNOBS), start, 30.0, 1500)[-1], torch.as_tensor(theirs.y[:, -1]), atol=1e-8)


def test_time_runs_backwards_too():
    forth = integrate(lambda x: mode_flow(x, KNOBS), point(0.3, 0.4), 5.0, 500)
    back = integrate(lambda x: mode_flow(x, KNOBS), forth[-1], -5.0, 500)
    assert torch.allclose(back.flip(0), forth, atol=1e-8) and len(forth) == 501


# claims 8 to 12

@pytest.mark.parametrize("alpha", [0.5, 1.0, 4.0])
def test_the_invariant_decays_and_every_mode_ends_on_the_parabola(alpha, device):
    knobs = replace(KNOBS, predictor_lr=alpha)
    starts = point([0.9, 0.1], [0.1, 0.9], [-0.3, 0.8], [0.5, 0.0], [0.0, 0.4], device=device)
    path = integrate(lambda x: mode_flow(x, knobs), starts, 40.0, 4000)
    invariant = path[..., 1] - path[..., 0] ** 2 / alpha
    decay = torch.exp(-2 * knobs.decay * torch.linspace(0, 40, 4001, dtype=torch.float64, device=device))
    assert torch.allclose(invariant, invariant[0] * decay[:, None], atol=1e-9)
    assert invariant[-1].abs().max() < 1e-3 and invariant[0].abs().min() > 0.05


@pytest.mark.parametrize("slow", [False, True])
def test_the_balance_of_the_matrices_decays(slow, device):
    knobs, (X, spread) = replace(KNOBS, predictor_lr=2.0, rate=0.3), (m @ m.mT for m in matrices(3, 7, device))
    state = matrices(3, 1, device, n=3 if slow else 2)
    path = integrate(lambda x: matrix_flow(x, knobs, X, spread), state, 4.0, 2000)
    balance = path[:, 0] @ path[:, 0].mT - path[:, 1].mT @ path[:, 1] / knobs.predictor_lr
    decay = torch.exp(-2 * knobs.decay * torch.linspace(0, 4, 2001, dtype=torch.float64, device=device))
    assert torch.allclose(balance, balance[0] * decay[:, None, None], atol=1e-8) and balance[0].norm() > 0.1


@pytest.mark.parametrize("knobs, critical", [(KNOBS, 1 / 6), (Knobs(tau=0.8, noise=0.6, predictor_lr=0.7), 0.1)])
def test_above_the_critical_decay_every_start_collapses(knobs, critical):
    assert knobs.critical == pytest.approx(critical)
    p, s = torch.meshgrid(torch.linspace(-1, 2, 7, dtype=torch.float64), torch.linspace(0, 2, 5, dtype=torch.float64), indexing="ij")
    starts, time = torch.stack([p, s], -1), 80 / critical
    assert end(starts, replace(knobs, decay=1.01 * critical), time, 5000).abs().max() < 1e-4
    best = knobs.tau / (1 + knobs.noise)
    alive = end(starts, replace(knobs, decay=0.99 * critical), time, 5000)[..., 0] > best / 2
    assert alive.any() and not alive.all()


def test_on_the_parabola_the_start_decides():
    low, high = (rest.p for rest in rest_points(KNOBS)[1:])
    assert low == pytest.approx(0.1225, abs=1e-4) and high == pytest.approx(0.5442, abs=1e-4)
    starts = point(0.12, 0.125, low - 1e-3, low + 1e-3)
    found = end(torch.stack([starts, starts ** 2], -1), KNOBS, 400, 4000)[:, 0]
    assert torch.allclose(found, point(0.0, high, 0.0, high), atol=1e-6)


@pytest.mark.parametrize("switch, decay", [("stop_gradient", 0.0), ("stop_gradient", 0.02), ("predictor", 0.0), ("predictor", 0.02)])
def test_without_stop_gradient_or_predictor_the_encoder_vanishes(switch, decay, device):
    knobs, state = replace(KNOBS, decay=decay), matrices(4, 2, device)
    state[1] = symmetric(state[1]) + 0.8 * torch.eye(4, device=device)
    ends = {on: integrate(lambda x: matrix_flow(x, knobs, **{switch: on}), state, 120.0, 1500)[-1, 0].norm() for on in (True, False)}
    assert ends[False] < 1e-4 and ends[True] > 0.5


def test_the_predictor_aligns_with_the_correlation(device):
    state = matrices(4, 3, device)
    state[1] = symmetric(state[1]) + torch.eye(4, device=device)
    path = integrate(lambda x: matrix_flow(x, KNOBS, symmetric=True), state, 60.0, 3000)
    W, Wp = path.unbind(1)
    correlation = W @ W.mT
    size = (correlation @ Wp - Wp @ correlation).flatten(1).norm(dim=1)
    assert size[-1] < 1e-4 * size[0] and size[0] > 0.1 and torch.allclose(Wp, Wp.mT)
    assert torch.allclose(correlation[-1], Wp[-1] @ Wp[-1] / KNOBS.predictor_lr, atol=1e-4)
    shared = torch.linalg.eigh(Wp[-1])[1]
    seen = shared.mT @ correlation[-1] @ shared
    assert (seen - seen.diagonal().diag()).abs().max() < 1e-4 and seen.max() > 0.1           # the same eigenvectors


def commutator(a, b):
    return a @ b - b @ a


def test_the_symmetric_flow_is_the_papers_and_its_commutator_shrinks_where_the_theorem_says(device):
    """F and W_p alone obey a flow, and L = [F, W_p] obeys dL/dt = −(KL + LK): where K is positive definite, it shrinks."""
    knobs, eye = Knobs(0.07, 2.0, 0.9, 0.4), torch.eye(4, dtype=torch.float64, device=device)
    W, Wp = matrices(4, 8, device)
    Wp, F, gain = symmetric(Wp) + 0.5 * eye, W @ W.mT, 1 + knobs.noise
    dW, dWp = matrix_flow(torch.stack([W, Wp]), knobs, symmetric=True)
    dF = dW @ W.mT + W @ dW.mT
    assert torch.allclose(dWp, -knobs.predictor_lr / 2 * gain * (Wp @ F + F @ Wp) + knobs.predictor_lr * knobs.tau * F - knobs.decay * Wp)
    assert torch.allclose(dF, -gain * (Wp @ Wp @ F + F @ Wp @ Wp) + knobs.tau * (Wp @ F + F @ Wp) - 2 * knobs.decay * F)
    K = gain * (knobs.predictor_lr / 2 * F + Wp @ Wp - knobs.tau / gain * Wp) + 1.5 * knobs.decay * eye
    L = commutator(F, Wp)
    dL = commutator(dF, Wp) + commutator(F, dWp)
    assert torch.allclose(dL, -(K @ L + L @ K))
    assert L.norm() > 0.1 and torch.linalg.eigvalsh(K).min() > 0 and (L * dL).sum() < 0


def test_doubling_the_rate_halves_s_and_leaves_p():
    once, twice = (rest_points(replace(KNOBS, predictor_lr=alpha))[2] for alpha in (1.0, 2.0))
    assert twice.p == pytest.approx(once.p, abs=1e-12) and twice.s == pytest.approx(once.s / 2, abs=1e-12)
    found = end(point(0.4, 0.3), replace(KNOBS, predictor_lr=2.0))
    assert torch.allclose(found, point(*twice[:2]), atol=1e-9)


# the rest of the theory

@pytest.mark.parametrize("knobs", [KNOBS, Knobs(0.02, 3.0, 0.7, 0.2), Knobs(0.3, 1.0, 0.5, 0.5)])
def test_rest_points_stand_still_and_their_kind_is_what_the_jacobian_says(knobs):
    rests = rest_points(knobs)
    assert [r.kind for r in rests] == ["collapsed", "border", "alive"][:len(rests)]
    assert len(rests) == (3 if knobs.decay < knobs.critical else 1)
    for rest in rests:
        here = point(rest.p, rest.s)
        assert mode_flow(here, knobs).abs().max() < 1e-12
        assert torch.allclose(torch.linalg.eigvals(mode_jacobian(here, knobs)).real.sort().values, point(*rest.rates))
        assert (max(rest.rates) > 0) == (rest.kind == "border")


def test_without_decay_there_are_lines_and_no_points():
    with pytest.raises(ValueError, match="decay: got 0"):
        rest_points(Knobs(decay=0.0))
    on_lines = point([0.7, 0.0], [-0.2, 0.0], [1 / 1.5, 0.3], [1 / 1.5, 2.0])
    assert mode_flow(on_lines, Knobs(decay=0.0)).abs().max() < 1e-15
    starts = point([0.3, 0.1], [-0.5, 0.3], [0.0, 0.01])                  # s > p²/α_p is enough to live
    assert torch.allclose(end(starts, Knobs(decay=0.0), 400, 4000)[:, 0], point(*[1 / 1.5] * 3), atol=1e-6)


@pytest.mark.parametrize("name", ["decay", "predictor_lr", "tau", "noise", "rate"])
def test_a_knob_below_zero_is_refused(name):
    with pytest.raises(ValueError, match=name):
        Knobs(**{name: -0.1})
    with pytest.raises(ValueError, match="nan"):
        Knobs(**{name: math.nan})


@pytest.mark.parametrize("knobs", [KNOBS, Knobs(0.03, 4.0, 1.0, 0.5), Knobs(0.02, 1.0, 0.6, 0.3)])
def test_starts_beside_the_border_go_opposite_ways(knobs):
    line = basin_border(knobs)
    near = line[(line[:, 1] > 0.02) & (line[:, 1] < 0.8)][::20]
    assert len(near) >= 4 and (line[:-1] - line[1:]).norm(dim=1).max() < 0.1
    shift = point(0.0, 0.01)
    above, below = (end(near + sign * shift, knobs, 300, 6000)[:, 0] for sign in (1, -1))
    assert (above > 0.9 * rest_points(knobs)[2].p).all() and (below < 0.5 * rest_points(knobs)[1].p).all()


def test_above_the_critical_decay_there_is_no_border():
    assert basin_border(Knobs(decay=0.17)).shape == (0, 2)


def test_a_slow_target_moves_as_the_matrices_say(device):
    knobs, d = replace(KNOBS, rate=0.2), 3
    p, s, tau = point(0.3, 0.5, 0.7, device=device), point(0.4, 0.2, 0.9, device=device), point(0.3, 0.6, 1.0, device=device)
    W = s.sqrt().diag()
    state = torch.stack([W, p.diag(), tau.diag() @ W])
    ours = integrate(lambda x: matrix_flow(x, knobs), state, 8.0, 800)[-1]
    modes = integrate(lambda x: mode_flow(x, knobs), torch.stack([p, s, tau], -1), 8.0, 800)[-1]
    assert torch.allclose(ours[1].diag(), modes[:, 0], atol=1e-9) and torch.allclose(ours[0].diag() ** 2, modes[:, 1], atol=1e-9)
    assert torch.allclose(ours[2].diag() / ours[0].diag(), modes[:, 2], atol=1e-9) and d == len(modes)


def test_in_the_eigenbasis_the_matrices_are_the_modes(device):
    rotation = torch.linalg.qr(matrices(3, 4, device)[0])[0]
    p, s = point(0.9, 0.3, 0.05, device=device), point(0.2, 0.6, 0.03, device=device)
    state = torch.stack([rotation @ s.sqrt().diag() @ rotation.mT, rotation @ p.diag() @ rotation.mT])
    W, Wp = integrate(lambda x: matrix_flow(x, KNOBS), state, 20.0, 2000)[-1]
    modes = integrate(lambda x: mode_flow(x, KNOBS), torch.stack([p, s], -1), 20.0, 2000)[-1]
    back = rotation.mT @ torch.stack([W @ W.mT, Wp]) @ rotation
    assert torch.allclose(back, torch.stack([modes[:, 1].diag(), modes[:, 0].diag()]), atol=1e-9)


@pytest.mark.parametrize("stop, predictor, tau", [(True, True, 1.0), (False, True, 1.0), (True, False, 1.0), (True, True, 0.8),
                                                  (False, True, 0.8), (False, False, 0.8)])
def test_the_matrix_flow_is_the_gradient_of_the_expected_loss(stop, predictor, tau, device):
    """With Cholesky factors as the data, the mean over their columns is the expectation, exactly."""
    (a, b), (W, Wp) = matrices(3, 5, device), matrices(3, 6, device)
    X, spread = a @ a.mT, b @ b.mT
    eye = torch.eye(3, dtype=torch.float64, device=device)
    W, h = W.requires_grad_(), (Wp if predictor else eye).clone().requires_grad_()
    target = tau * (W.detach() if stop else W)
    joint = torch.cat([torch.cat([X + spread, X], 1), torch.cat([X, X + spread], 1)])      # of (x1, x2)
    error = torch.cat([h @ W, -target], 1)
    loss = 0.5 * torch.trace(error @ joint @ error.mT) + 0.05 * (W.square().sum() + h.square().sum())
    gradient = torch.autograd.grad(loss, (W, h))
    knobs = replace(KNOBS, decay=0.1, tau=tau)
    flow = matrix_flow(torch.stack([W.detach(), Wp]), knobs, X, spread, stop_gradient=stop, predictor=predictor)
    assert torch.allclose(flow[0], -gradient[0])
    assert torch.allclose(flow[1], -gradient[1]) if predictor else not flow[1].any()


# DirectPred

def outputs(n=64, d=6, seed=0, device="cpu"):
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=g)
    shared = torch.randn(n, d, generator=g)
    return [((shared + 0.5 * torch.randn(n, d, generator=g)) @ mix + 1).to(device) for _ in range(2)]


def test_the_spectral_predictor_has_the_eigenvectors_of_F_and_the_formulas_values(device):
    z = outputs(device=device)[0].double()
    correlation = z.mT @ z / len(z)
    W = spectral_predictor(correlation, eps=0.1)
    s, u = torch.linalg.eigh(correlation)
    assert torch.allclose(u.mT @ W @ u, (s.sqrt() + 0.1 * s.max().sqrt()).diag(), atol=1e-10)
    assert torch.allclose(spectral_predictor(9 * correlation, 0.1), 3 * W)                # scale-free, up to a factor
    assert torch.allclose(spectral_predictor(torch.zeros(2, 2)), torch.zeros(2, 2))
    stacked = spectral_predictor(torch.stack([correlation, 4 * correlation]))
    assert torch.allclose(stacked, torch.stack([W, 2 * W]))


def test_the_least_squares_predictor_is_the_minimum(device):
    z1, z2 = (v.double() for v in outputs(device=device))
    own, cross = moments([z1, z2], [z1, z2])
    W = least_squares_predictor(own, cross, ridge=0.0).requires_grad_()
    loss = (z1 @ W.mT - z2).square().sum() + (z2 @ W.mT - z1).square().sum()
    assert torch.autograd.grad(loss, W)[0].abs().max() < 1e-8 * loss


def test_the_least_squares_predictor_is_chapter_12s_of_both_directions(device):
    z1, z2 = (v.double() for v in outputs(device=device))
    both_ways = optimal_predictor(torch.cat([z1, z2]), torch.cat([z2, z1]), ridge=0.05)
    assert torch.allclose(least_squares_predictor(*moments([z1, z2], [z1, z2]), ridge=0.05), both_ways.T)


def test_where_the_regression_is_solved_only_decay_moves_the_encoder(device):
    (a, b), W = matrices(3, 5, device), matrices(3, 9, device)[0]
    X, spread = a @ a.mT, b @ b.mT
    best = least_squares_predictor(W @ (X + spread) @ W.mT, KNOBS.tau * W @ X @ W.mT, ridge=0.0)
    assert torch.allclose(matrix_flow(torch.stack([W, best]), KNOBS, X, spread)[0], -KNOBS.decay * W, atol=1e-9)


def test_moments_by_hand():
    z = [torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])]
    own, cross = moments(z, z)
    assert own.tolist() == [[0.5, 0], [0, 2]] and cross.tolist() == [[0, 1], [1, 0]]
    assert moments(*[[v + 5 for v in outputs()]] * 2, centred=True).sub(moments(outputs(), outputs(), True)).abs().max() < 1e-4
    assert not moments(z, z, centred=True).any()


def flat():
    return torch.nn.Sequential(torch.nn.Flatten(), mlp((12, 10), seed=0))


def views(n=32, seed=0, device="cpu"):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, 3, 2, 2, generator=g).to(device)


def direct(**parts):
    return DirectPred(flat(), dim=6, hidden=8, shape=(3, 2, 2), **parts)


def test_directpred_sets_its_predictor_before_each_prediction(device):
    method = direct().to(device)
    x1, x2 = views(device=device)
    out = method(x1, x2)
    correlation = moments([out.z1, out.z2], [out.z1, out.z2])[0].detach()
    W = method.predictor.fc1.weight
    assert torch.allclose(F.cosine_similarity(W.flatten(), spectral_predictor(correlation).flatten(), dim=0), torch.ones((), device=device))
    assert torch.allclose(out.p1, out.z1 @ W.mT, atol=1e-5)
    assert torch.allclose(out.loss, 0.5 * (D(out.p1, out.z2) + D(out.p2, out.z1)))
    assert not W.requires_grad and sum(len(g["params"]) for g in method.param_groups()) == len(
        [w for w in method.parameters() if w.requires_grad])


def test_directpred_averages_over_steps_and_waits_for_its_turn():
    method, seen = direct(rho=0.3, freq=2), []
    for seed in range(4):
        out = method(*views(seed=seed))
        z = [out.z1.detach(), out.z2.detach()]
        seen.append((moments(z, z), method.predictor.fc1.weight.detach().clone()))
    expected = sum(0.7 * 0.3 ** (3 - i) * m for i, (m, _) in enumerate(seen))
    assert torch.allclose(method.moments, expected, atol=1e-5)
    weights = [w for _, w in seen]
    assert torch.equal(weights[0], weights[1]) and torch.equal(weights[2], weights[3]) and not torch.equal(weights[1], weights[2])
    assert method.predictor.fc1.weight.requires_grad              # between its turns, gradient steps


def test_directpred_leaves_its_predictor_alone_in_eval_mode_and_where_it_is_trained():
    for method in (direct().eval(), direct(rule="gradient"), direct(rule="gradient", predictor="symmetric")):
        before = [w.clone() for w in method.predictor.parameters()]
        method(*views())
        assert all(torch.equal(a, b) for a, b in zip(before, method.predictor.parameters())) and not method.moments.any()


def test_a_trained_linear_directpred_has_the_gradients_of_simsiam():
    """Two roads: rule="gradient" without a slow target is SimSiam with a linear predictor."""
    other = SimSiam(flat(), predictor="linear", dim=6, hidden=8, layers=2, shape=(3, 2, 2), seed=0)
    method, gradients = direct(rule="gradient"), []
    method.load_state_dict(other.state_dict(), strict=False)
    for net in (method, other):
        net(*views()).loss.backward()
        gradients.append([w.grad for part in (net.backbone, net.projector, net.predictor) for w in part.parameters()])
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(*gradients))


def test_least_squares_predicts_the_slow_target():
    method = direct(rule="least squares", target="ema", tau=0.9)
    method.target.load_state_dict(direct(seed=5).online.state_dict())      # a target that is not the online network
    out = method(*views())
    t = [t.detach() for t in method.targets(tuple(views()), [])]
    by_hand = least_squares_predictor(*(0.7 * moments([out.z1.detach(), out.z2.detach()], t)))
    assert torch.allclose(method.predictor.fc1.weight, by_hand, atol=1e-4)
    assert torch.allclose(out.loss, 0.5 * (D(out.p1, t[1]) + D(out.p2, t[0])), atol=1e-6)


def test_the_predictors_own_rate_and_the_encoders_missing_decay_reach_the_optimiser():
    method = direct(rule="gradient", predictor="symmetric", predictor_factor=10.0, encoder_decay=False)
    encoder, predictor = make_optimiser(method, Plan(1, weight_decay=0.1)).param_groups
    assert (encoder["weight_decay"], encoder["lr_factor"]) == (0.0, 1.0)
    assert (predictor["weight_decay"], predictor["lr_factor"]) == (0.1, 10.0) and len(predictor["params"]) == 1


@pytest.mark.parametrize("wrong", [
    {"rule": "spectral"}, {"predictor": "mlp"}, {"predictor": "symmetric"}, {"freq": 0}, {"eps": -1.0}, {"rho": -1.0},
    {"rho": 1.5}, {"predictor_factor": -1.0}, {"predictor_factor": "a"}, {"centred": "no"}, {"encoder_decay": "no"}])
def test_what_directpred_cannot_be_is_refused(wrong):
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(wrong))}: got"):
        direct(**wrong)


# de-centring

def test_centre_and_residual_by_hand(device):
    o, r = centre_and_residual(point([1.0, 0.0], [3.0, 4.0], device=device))
    assert o.tolist() == [[2.0, 2.0]] and r.tolist() == [[-1.0, -2.0], [1.0, 2.0]]


def unit(n=50, d=8, seed=0, offset=0.5):
    g = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(n, d, generator=g, dtype=torch.float64) + offset, dim=-1)


def test_eta_is_what_is_missing_of_the_centre_of_p():
    z = unit()
    assert float(extra_centre(z, z)) == pytest.approx(0, abs=1e-12)
    p = F.normalize(z + 3, dim=-1)
    eta, (o_z, o_p) = extra_centre(z, p), (v.mean(0) for v in (z, p))
    assert eta < 0 and abs(float((o_z - o_p - eta * o_p) @ o_p)) < 1e-12      # at a right angle to o_p


def test_a_pull_to_the_centre_raises_m_o_and_to_the_residual_m_r():
    for seed in range(5):
        for pull, measure in (("its centre", "m_o"), ("its residual", "m_r")):
            p = [unit(seed=2 * seed + k).requires_grad_() for k in (0, 1)]
            gradient = torch.autograd.grad(pull_loss(pull, p, p), p)
            for before, g in zip(p, gradient):
                after = before.detach() - 1.0 * g
                assert getattr(centre_residual(after), measure) > getattr(centre_residual(before), measure)


def test_the_extra_gradient_is_the_sum_of_its_parts():
    z, p = [unit(seed=1), unit(seed=2)], [unit(seed=3).requires_grad_(), unit(seed=4).requires_grad_()]
    g = {pull: torch.stack(torch.autograd.grad(pull_loss(pull, z, p), p)) for pull in ("z_b", "p_b", "p_b + o_e", "p_b + r_e")}
    assert torch.allclose(g["p_b + o_e"] + g["p_b + r_e"], g["z_b"] + g["p_b"])
    loss = 0.5 * (D(p[0], z[1]) + D(p[1], z[0]))
    assert torch.allclose(g["z_b"], torch.stack(torch.autograd.grad(loss, p)))             # SimSiam


def test_the_inverse_learns_and_its_loss_does_not_show():
    method = Pulled(flat(), pull="inverse", dim=6, predictor_hidden=4, shape=(3, 2, 2))
    out = method(*views())
    q = [method.inverse(p) for p in (out.p1, out.p2)]
    assert torch.allclose(out.loss, 0.5 * (D(out.p1, q[1]) + D(out.p2, q[0])), atol=1e-5)
    out.loss.backward()
    assert all(w.grad is not None and w.grad.any() for w in method.inverse.fc2.parameters())
    ours = [w.grad.clone() for w in method.projector.parameters()]
    method.zero_grad()
    out = method(*views())
    q = [method.inverse(p).detach() for p in (out.p1, out.p2)]
    (0.5 * (D(out.p1, q[1]) + D(out.p2, q[0]))).backward()                                 # the inverse teaches only itself
    assert all(torch.allclose(a, w.grad, atol=1e-6) for a, w in zip(ours, method.projector.parameters()))
    grouped = {id(w) for group in method.param_groups() for w in group["params"]}
    assert grouped == {id(w) for w in method.parameters() if w.requires_grad}


def test_pulled_to_z_is_simsiam():
    parts = {"dim": 6, "predictor_hidden": 4, "shape": (3, 2, 2)}
    losses = [net(*views()).loss for net in (Pulled(flat(), **parts), SimSiam(flat(), **parts))]
    assert torch.equal(*losses)


@pytest.mark.parametrize("pull", PULLS)
def test_no_gradient_reaches_what_p_is_pulled_to(pull):
    method = Pulled(flat(), pull=pull, dim=6, predictor_hidden=4, shape=(3, 2, 2))
    z = [unit(d=6, seed=k).requires_grad_() for k in (0, 1)]
    p = [unit(d=6, seed=k) for k in (2, 3)]
    loss = pull_loss(pull, z, [v.clone().requires_grad_() for v in p], p)
    assert all(g is None for g in torch.autograd.grad(loss, z, allow_unused=True)) and method.pull == pull


# the vector world

def test_vectors_of_one_seed_do_not_depend_on_the_others():
    arm = VectorArm("spectrum", ema=0.9)
    both, one = train_vectors(arm, [3, 5], steps=20), train_vectors(arm, [5], steps=20)
    assert torch.allclose(both.m_o[:, 1], one.m_o[:, 0], atol=1e-4) and both.m_o.shape == (len(both.steps), 2)


def test_vectors_pulled_to_z_are_the_micro_worlds_simsiam():
    from simsiam_explained.micro import Arm, train_arms
    run, micro = train_vectors(VectorArm(), 2, steps=30), train_arms({"a": Arm()}, 2, steps=30)
    assert run.steps == micro.steps
    for ours, theirs in ((run.std, micro.std_ratio), (run.rank, micro.rank), (run.content, micro.content)):
        assert torch.allclose(ours, theirs[:, 0], rtol=1e-3)


def test_vectors_take_the_predictor_and_the_target_that_the_arm_names():
    z, weights = torch.randn(2, 32, 8), vectors._first(VectorArm("symmetric"), [0, 1], vectors.VectorWorld(), vectors.Setting())
    W = weights[1]["hl"]
    assert set(weights[1]) == {"hl"} and not weights[2]
    assert torch.allclose(vectors._predictions(VectorArm("symmetric"), weights[1], z, None, None), (W + W.mT) @ z / 2, atol=1e-6)
    x, switches = torch.randn(2, 32, 16), vectors.Switches.of([vectors.Arm()] * 2, z)
    slow = {name: 2 * w.detach() + 0.1 for name, w in weights[0].items()}
    z, t = (vectors.encode(w, x, switches)[1].detach().mT.chunk(2, -2) for w in (weights[0], slow))
    memory = torch.zeros(2, 2, 32, 32)
    vectors._loss(arm := VectorArm("least squares", ema=0.9), weights, slow, memory, x, switches)
    assert torch.allclose(memory, 0.7 * moments(z, t), atol=1e-4)                         # ρ = 0.3
    vectors._loss(replace(arm, ema=0.0), weights, slow, memory, x, switches)
    assert torch.allclose(memory, 0.21 * moments(z, t) + 0.7 * moments(z, z), atol=1e-4)


def test_a_step_decays_each_part_by_its_own_and_the_slow_encoder_follows():
    arm, setting = VectorArm("linear", ema=0.9, predictor_lr=2.0, decay=(0.5, 0.25)), vectors.Setting(lr=0.1)
    weights = vectors._first(arm, [0], vectors.VectorWorld(), setting)
    before = [{name: w.detach().clone() for name, w in part.items()} for part in weights]
    velocity = tuple({name: torch.zeros_like(w) for name, w in part.items()} for part in weights)
    still = sum(0 * w.sum() for part in weights for w in part.values())                    # a loss without gradient
    vectors._step(arm, weights, slow := {k: w.clone() for k, w in before[0].items()}, velocity, still, 0.5, setting)
    assert torch.allclose(weights[0]["f"], before[0]["f"] * (1 - 0.1 * 0.5 * 0.5))
    assert torch.allclose(weights[1]["hl"], before[1]["hl"] * (1 - 0.1 * 2 * 0.25))
    assert torch.allclose(slow["f"], weights[0]["f"] / 0.975 * (0.9 + 0.1 * 0.975))


def test_without_predictor_the_centre_takes_more_than_with_one():
    none, ours = (train_vectors(VectorArm(kind), 2, steps=150).m_o[-1] for kind in ("none", "mlp"))
    assert (none > 0.3).all() and (ours < 0.2).all()


# the claims

def test_claims_name_recipes_that_exist_and_tests_that_run():
    ids = [claim.id for claim in CLAIMS]
    assert len(ids) == len(set(ids)) and all(name.startswith("relatives-") for name in ids)
    for claim in CLAIMS:
        if claim.test:
            assert claim.test.split("::")[1] in globals()
        for scale in claim.scales if claim.arms else ():
            for recipe in claim.recipes(scale).values():
                assert recipe.but(net={"width": 4, "blocks": (1,)}).build().predictor is not None
    assert "bias" in PREDICTORS
