"""The solutions of chapter 18 pass its checkers; wrong answers do not."""
import pytest

from exercises import check, refused


def test_solutions_of_18_pass():
    check("18_partial_collapse")


@pytest.mark.parametrize("wrong", [
    "check_allowed(lambda width, d: 1 - (width - 1) / (2 * d))",                       # a layer wider than d
    "check_allowed(lambda width, d: 0.5)",                                             # that is no bound at finite d
    "check_two_codes(lambda truth: [torch.nn.functional.pad(truth, (0, 16))] * 2)",    # holds everything
    "check_two_codes(lambda truth: [torch.nn.functional.pad(part, (0, 30)) for part in (truth[:, :2], truth[:, 14:] @ "
    "torch.tensor([[9.0, 0], [0, 1]], dtype=truth.dtype))])",                          # another AUC
    "check_shortcut(lambda depth: (0.99, 0.6) if depth > 1 else (0.67, 0.6))",         # shortcuts that keep everything
    "check_shortcut(lambda depth: (1 - 0.33 / depth, 1 - 0.33 / depth))",              # shortcuts that do nothing
])
def test_wrong_answers_of_18_fail(wrong):
    refused("18_partial_collapse", wrong)
