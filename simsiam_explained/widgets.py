"""Thin ipywidgets shells over pure functions: a prediction, a toggle, a slider, several sliders."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO

__all__ = ["Prediction", "predict", "toggle", "scrub", "sliders"]


class Prediction:
    """The reader's choice before the result: `choice` is None until a button is pressed."""

    def __init__(self, question: str, options: Sequence[str]):
        self.question, self.options, self.choice = question, tuple(options), None

    def choose(self, option: str) -> None:
        """Set the choice; ValueError names the options if `option` is none of them."""
        if option not in self.options:
            raise ValueError(f"prediction: got {option!r}, expected one of {', '.join(map(repr, self.options))}.")
        self.choice = option

    def __str__(self) -> str:
        return f"your prediction: {self.choice or 'none made'}"


def predict(question: str, options: Sequence[str]) -> Prediction:
    """Show one button per option and return the Prediction that the buttons set."""
    import ipywidgets as widgets
    from IPython.display import display

    prediction = Prediction(question, options)
    buttons = widgets.ToggleButtons(options=prediction.options, value=None, style={"button_width": "auto"})
    buttons.observe(lambda change: prediction.choose(change["new"]), names="value")
    display(widgets.VBox([widgets.HTML(f"<b>{question}</b>"), buttons]))
    prediction.buttons = buttons
    return prediction


def _show(controls: Sequence, draw: Callable, columns: int = 1):
    """Redraw `draw()`, a function that returns a matplotlib figure, whenever one of `controls`, above it, changes."""
    import ipywidgets as widgets
    import matplotlib.pyplot as plt
    from IPython.display import display

    image = widgets.Image(format="png", layout=widgets.Layout(align_self="flex-start"))   # as large as it was drawn

    def redraw(_=None):
        figure, page = draw(), BytesIO()                    # outside any Output: an error here is seen
        figure.savefig(page, format="png")
        plt.close(figure)
        image.value = page.getvalue()

    for control in controls:
        control.observe(redraw, names="value")
    redraw()
    rows = [controls[i:i + columns] for i in range(0, len(controls), columns)]
    box = widgets.VBox([*(row[0] if columns == 1 else widgets.HBox(row) for row in rows), image])
    display(box)
    return box


def toggle(draw: Callable, options: dict, label: str):
    """Show buttons for `options` {name: value} over `draw(value) -> figure`; return the widget box."""
    import ipywidgets as widgets

    control = widgets.ToggleButtons(options=list(options.items()), description=label, style={"button_width": "auto"})
    return _show([control], lambda: draw(control.value))


def scrub(draw: Callable, values: Sequence, label: str):
    """Show a slider over `values` (stored steps) and `draw(index) -> figure`; return the widget box."""
    import ipywidgets as widgets

    control = widgets.SelectionSlider(options=[(str(v), i) for i, v in enumerate(values)], description=label,
                                      continuous_update=False, layout=widgets.Layout(width="60%"))
    return _show([control], lambda: draw(control.value))


def sliders(draw: Callable, **ranges: tuple[str, float, float, float, float]):
    """Show a slider for each argument of `draw(**arguments) -> figure`, two to a row; return the widget box.

    ranges: argument = (label, lowest, highest, step, first value)."""
    import ipywidgets as widgets

    controls = {name: widgets.FloatSlider(
        value=first, min=low, max=high, step=step, description=label, continuous_update=False, readout_format=".3g",
        layout=widgets.Layout(width="26em"), style={"description_width": "12em"})
        for name, (label, low, high, step, first) in ranges.items()}
    return _show(list(controls.values()), lambda: draw(**{name: c.value for name, c in controls.items()}), columns=2)
