"""The solutions of chapter 00 pass its checkers; wrong answers do not."""
import pytest

from exercises import check, namespace


def test_solutions_of_00_pass():
    check("00_start")


def test_wrong_answers_of_00_fail():
    names = namespace("00_start")
    with pytest.raises(AssertionError):
        names["check_critical_decay"](lambda noise: 0.25)
    with pytest.raises(AssertionError):                       # walked the other way round
        names["check_circulation"](lambda net, w0, w1, v0, v1: -0.384 * net.stop_gradient)
    with pytest.raises(AssertionError, match="still collapsing"):
        names["check_no_temptation"](names["VectorWorld"]())
    with pytest.raises(AssertionError, match="differ"):
        names["check_no_temptation"](names["VectorWorld"](content=32, style=0))
