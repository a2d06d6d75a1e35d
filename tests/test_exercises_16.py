"""The solutions of chapter 16 pass its checkers; wrong answers do not."""
import pytest

from exercises import check, refused


def test_solutions_of_16_pass():
    check("16_vit")


@pytest.mark.parametrize("wrong", [
    "check_pairs(lambda side, patch: (side // patch) ** 4)",                        # the class token is forgotten
    "check_larger(lambda net, shape: vit(shape, 4, 32, 2, 4, seed=1))",             # new weights
    "check_shrunk(lambda net, lr, decay: 0.0)",                                     # as if the gradient were None
])
def test_wrong_answers_of_16_fail(wrong):
    refused("16_vit", wrong)
