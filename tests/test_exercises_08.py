"""The solutions of chapter 08 pass its checkers; wrong answers do not."""
import pytest

from exercises import check, refused


def test_solutions_of_08_pass():
    check("08_stop_gradient")


@pytest.mark.parametrize("wrong", [
    "check_asymmetric_loss(lambda p1, z2: D(p1, z2))",                                    # the target is not detached
    "check_asymmetric_loss(lambda p1, z2: (p1 - z2.detach()).square().sum(1).mean() / 2 - 1)",   # not normalised
    "check_fool_the_std(lambda: torch.ones(200, 16))",                                    # constant: std 0
    "check_fool_the_std(lambda: torch.randn(200, 16))",                                   # every direction
    "check_channel_means(lambda method, x: method.eval()(x, x).z1.mean(0).detach())",     # running statistics
    "check_channel_means(lambda method, x: method(x, x).p1.mean(0).detach())",            # of p, not of z
    "check_loophole(lambda: torch.ones(256, 16))",                                        # constant: the mean is not 0
    "check_loophole(lambda: torch.ones(256, 16) - 2 * (torch.arange(256)[:, None] % 2))",   # ±v: the mean is, the std is 1
    "check_loophole(lambda: torch.zeros(256, 16))",                                       # no direction at all
])
def test_wrong_answers_of_08_fail(wrong):
    refused("08_stop_gradient", wrong)
