"""The widget shells: what a button or a slider changes, without a browser."""
import matplotlib.pyplot as plt
import pytest

from simsiam_explained.widgets import Prediction, predict, scrub, sliders, toggle


def drawing(calls):
    def draw(value):
        calls.append(value)
        figure, ax = plt.subplots(figsize=(1, 1))
        ax.set_title(str(value))
        return figure
    return draw


def test_a_prediction_is_what_the_button_says(capsys):
    guess = predict("which?", ["up", "down"])
    assert guess.choice is None and "none" in str(guess)
    guess.buttons.value = "down"
    assert guess.choice == "down" and "down" in str(guess)


def test_a_prediction_outside_the_options_is_refused():
    with pytest.raises(ValueError, match="'sideways'.*'up'"):
        Prediction("which?", ["up", "down"]).choose("sideways")


def test_a_toggle_redraws_with_the_value_behind_the_name(capsys):
    calls = []
    box = toggle(drawing(calls), {"on": True, "off": False}, "stop-gradient")
    control, image = box.children
    before = image.value
    control.value = False
    assert calls == [True, False] and image.value != before and bytes(image.value).startswith(b"\x89PNG")


def test_a_slider_redraws_with_the_index_of_the_stored_step(capsys):
    calls = []
    box = scrub(drawing(calls), [0, 50, 100], "step")
    control, image = box.children
    control.index = 2
    assert calls == [0, 2] and bytes(image.value).startswith(b"\x89PNG")


def test_each_slider_sets_its_argument(capsys):
    calls = []
    draw = drawing([])
    box = sliders(lambda **knobs: calls.append(knobs) or draw(0), a=("first", 0, 1, 0.1, 0.5), b=("second", 1, 3, 1, 2),
                  c=("third", 0, 9, 1, 4))
    *rows, image = box.children
    controls = [control for row in rows for control in row.children]
    controls[1].value = 3
    assert calls == [{"a": 0.5, "b": 2, "c": 4}, {"a": 0.5, "b": 3, "c": 4}] and bytes(image.value).startswith(b"\x89PNG")
    assert [c.description for c in controls] == ["first", "second", "third"] and [len(row.children) for row in rows] == [2, 1]


def test_an_error_while_drawing_is_raised_and_not_swallowed(capsys):
    def draw(value):
        if value:
            raise RuntimeError("cannot draw")
        return plt.figure(figsize=(1, 1))
    box = toggle(draw, {"off": 0, "on": 1}, "x")
    with pytest.raises(RuntimeError, match="cannot draw"):
        box.children[0].value = 1


def test_no_figure_is_left_open(capsys):
    plt.close("all")
    scrub(drawing([]), [0, 1], "step").children[0].index = 1
    assert not plt.get_fignums()
