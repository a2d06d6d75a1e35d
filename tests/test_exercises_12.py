"""The solutions of chapter 12 pass its checkers; wrong answers do not."""
import pytest

from exercises import check, refused


def test_solutions_of_12_pass():
    check("12_ema")


@pytest.mark.parametrize("wrong", [
    "check_memory(lambda tau, k: [(1 - tau) * tau**j for j in range(k)])",                        # the start is forgotten
    "check_memory(lambda tau, k: [(1 - tau) * tau**j for j in reversed(range(k))] + [tau**k])",   # oldest first
    "check_memory(lambda tau, k: [1 / (k + 1)] * (k + 1))",                                       # a plain mean
    "check_same_images(lambda batch: 0.996)",
    "check_same_images(lambda batch: 1 - 0.004 * 4096 / batch)",                                  # the wrong way round
    "check_forgotten(lambda method, x1, x2: [])",
    "check_forgotten(lambda method, x1, x2: [n for n, w in method.named_parameters() if not w.requires_grad])",
])
def test_wrong_answers_of_12_fail(wrong):
    refused("12_ema", wrong)
