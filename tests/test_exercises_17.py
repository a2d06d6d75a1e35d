"""The solutions of chapter 17 pass its checkers; wrong answers do not."""
import pytest

from exercises import check, refused


def test_solutions_of_17_pass():
    check("17_moco_v3")


@pytest.mark.parametrize("wrong", [
    "check_range(lambda n, tau: (math.log(n), math.log(1 + (n - 1) * math.exp(-1 / tau))))",              # without 4τ
    "check_range(lambda n, tau: (4 * tau * math.log(2 * n - 1), 0.0))",                                   # SimCLR's N
    "check_range(lambda n, tau: (4 * tau * math.log(n), 0.0))",
    "check_same_weights(lambda lr, decay, tau: (lr, decay))",
    "check_same_weights(lambda lr, decay, tau: (lr / (2 * tau), decay))",                                 # decay forgotten
    "check_same_weights(lambda lr, decay, tau: (lr * 2 * tau, decay / (2 * tau)))",                       # the wrong way
    "check_deepest(lambda curve: max(curve) - min(curve))",
    "check_deepest(lambda curve: max([a - b for a, b in zip(curve, curve[1:])] + [0.0]))",                      # one step alone
])
def test_wrong_answers_of_17_fail(wrong):
    refused("17_moco_v3", wrong)
