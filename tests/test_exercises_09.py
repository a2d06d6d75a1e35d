"""The solutions of chapter 09 pass its checkers; wrong answers do not."""
import pytest

from exercises import check, refused


def test_solutions_of_09_pass():
    check("09_predictor")


@pytest.mark.parametrize("wrong", [
    "check_retrace(lambda lr, decay: (lr / 2, decay))",                   # the decay is forgotten
    "check_retrace(lambda lr, decay: (lr, decay))",
    "check_retrace(lambda lr, decay: (2 * lr, decay / 2))",               # the wrong way round
    "check_flattery(lambda n: 0.0)",                                      # true only without z1 in the mean
    "check_flattery(lambda n: 1 / n ** 2)",
    "check_diagonal(Bias)",                                               # shifts, does not scale
    "check_diagonal(lambda dim: make_predictor('linear', dim, seed=0))",  # a matrix
])
def test_wrong_answers_of_09_fail(wrong):
    refused("09_predictor", wrong)
