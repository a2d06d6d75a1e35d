"""The solutions of chapter 19 pass its checkers; wrong answers do not."""
import pytest

from exercises import check, refused


def test_solutions_of_19_pass():
    check("19_forecast")


@pytest.mark.parametrize("wrong", [
    "check_shortcut(lambda X, y: X @ np.linalg.lstsq(X, y, rcond=None)[0])",                        # its own runs
    "check_shortcut(lambda X, y: np.array([np.delete(y, i).mean() for i in range(len(y))]))",       # the others' mean
    "check_suppressor(lambda: dict(loss=np.arange(20.0), AUC=np.arange(20.0) ** 2, accuracy=np.arange(20.0)))",
    "check_suppressor(lambda: dict(loss=np.arange(5.0) % 2, AUC=np.arange(5.0), accuracy=np.arange(5.0) ** 2))",   # 5 runs
    "check_lengths(lambda: (0.8, 0.79))",
])
def test_wrong_answers_of_19_fail(wrong):
    refused("19_forecast", wrong)
