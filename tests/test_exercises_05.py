"""The solutions of chapter 05 pass its checkers; wrong answers do not."""
import pytest
import torch

from exercises import check, namespace
from simsiam_explained.collapse import cumulative_share, spectrum


def test_solutions_of_05_pass():
    check("05_collapse")


@pytest.fixture(scope="module")
def names():
    return namespace("05_collapse")


def test_wrong_answers_of_05_fail(names):
    with pytest.raises(AssertionError):                       # σ in place of σ²
        names["check_live_directions"](lambda x, share=0.9: int((cumulative_share(spectrum(x)) < share).sum()) + 1)
    with pytest.raises(AssertionError):
        names["check_fooled"](lambda: (torch.randn(2000, 64), torch.randn(2000, 64)))
    with pytest.raises(AssertionError):                       # not centred
        names["check_streamed"](lambda chunks: spectrum(torch.cat(list(chunks)), centred=False))
