"""The folded solutions of chapter 08 pass their checkers."""
from exercises import check


def test_solutions_of_chapter_08():
    check("08_stop_gradient")
