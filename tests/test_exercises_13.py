"""The solutions of chapter 13 pass its checkers; wrong answers do not."""
import pytest

from exercises import check, refused


def test_solutions_of_13_pass():
    check("13_predictor_dynamics")


@pytest.mark.parametrize("wrong", [
    "check_bearable(lambda p, tau, noise: p * (tau - p))",                                    # the noise forgotten
    "check_bearable(lambda p, tau, noise: tau ** 2 / (4 * (1 + noise)))",                     # the peak, not the curve
    "check_curriculum(lambda: integrate(lambda x: mode_flow(x, Knobs()), "
    "torch.tensor([0.05, 0.36, 0.2], dtype=torch.float64), 200.0, 4000))",                    # a target that does not follow
    "check_away(lambda z: torch.eye(8, dtype=torch.float64))",                                # no predictor
    "check_away(lambda z: spectral_predictor((z - z.mean(0)).T @ (z - z.mean(0)) / len(z)))",  # the centre taken out of F
])
def test_wrong_answers_of_13_fail(wrong):
    refused("13_predictor_dynamics", wrong)
