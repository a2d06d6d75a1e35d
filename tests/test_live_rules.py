"""Every rule that decides a live claim inside a chapter (`def rule_…`): it holds for what it should, and for swapped arms not."""
import ast
from pathlib import Path

import nbformat
import pytest

NBS = Path(__file__).resolve().parent.parent / "nbs"


def rules():
    """Return {name: function} of all rules that the chapters define."""
    found = {}
    for path in sorted(NBS.glob("[0-9]*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "code" and "def rule_" in cell.source:
                for node in ast.parse(cell.source).body:
                    if isinstance(node, ast.FunctionDef) and node.name.startswith("rule_"):
                        exec(ast.get_source_segment(cell.source, node), found)
    return {name: rule for name, rule in found.items() if name.startswith("rule_")}


ARMS = {  # arms for which the rule holds, seed by seed; and which one seed of which arm is spoilt
    "rule_shortcut": ([0.97, 0.99], [0.05, 0.1]),            # 02: partners found by crops alone, by the whole recipe
    "rule_depth": ([0.8, 0.85], [0.4, 0.45], [0.25, 0.3]),   # 03: neighbours agree at the stem, in pixels, at the last stage
    "rule_unsettled": ([0.43, 0.45], [0.31, 0.33]),          # 04: initial buffers, settled
    "rule_supervised": ([0.77, 0.75], [0.31, 0.33]),         # 04: supervised, settled
    "rule_augmented": ([0.77, 0.75], [0.7, 0.71]),           # 04: clean bank, augmented bank
    "rule_best_k": ([0.04, 0.03], [0.001, -0.002]),          # 04: reported minus fresh, with the best k and a fixed one
    "rule_views_teach": ([0.78, 0.77], [0.52, 0.53], [0.54, 0.55]),   # 12: pupils of a random net, with the same view, the net itself
    "rule_expectation": ([0.88, 0.78], [0.85, 0.75], [0.82, 0.67]),   # 09: R² of h(z1), of z1 shrunk, of z1
    "rule_constant": ([0.95, 0.97], [0.4, 0.45], [0.1, 0.12]),    # 10: std·√d by default, without BN before and after
    "rule_lateness": ([0.88, 0.85], [0.10, 0.11], [0.14, 0.15]),      # 11: std·√d with late targets, mean ones, neither
    "rule_centre": ([0.2, 0.3], [0.7, 0.75]),                         # 13: share of the centre with one vector, without predictor
    "rule_rates": ([1.3, 1.5], [20.0, 31.0]),                         # 17: how far apart the rates lie, with 2τ and without
    "rule_moved": ([0.4, 0.42], [0.54, 0.55]),                        # 17: mean of the kNN curve in the old bank, in the renewed
    "rule_inside": ([0.95, 0.96], [0.7, 0.72], [0.79, 0.8]),          # 14: content at the middle temperature, the lowest, the highest
    "rule_no_need": ([0.69, 0.7], [0.62, 0.6]),                       # 14: kNN of SimCLR, and with SimSiam's parts
    "rule_stale": ([0.25, 0.3], [0.87, 0.85], [0.95, 0.94]),          # 14: content with m = 0 and a queue, m = 0.99, m = 0 without
    "rule_places": ([0.7, 0.71], [0.5, 0.55], [0.76, 0.72], [0.65, 0.64]),   # 16: digits with places, without; textures without, with
    "rule_deep": ([{"loss": -0.64, "AUC": 0.86, "gain": 0.05}] * 2, [{"loss": -0.84, "AUC": 0.98, "gain": -0.02}] * 2),   # 18: chains
    "rule_flattered": ([{"loss": -0.56, "AUC": 0.75}] * 2, [{"loss": -0.65, "AUC": 0.85}] * 2),   # 18: one block a stage, four
    "rule_peaks_early": ([29.6, 29.8], [25.9, 26.2], [0.2, 0.3]),     # 19: rank before, rank after, accuracy gained
    "rule_uniformity": ([-0.1, -0.3], [-2.1, -2.4], [-2.9, -3.3]),    # 19: no stop-gradient, SimSiam, contrastive
}


def test_every_rule_has_its_case():
    assert set(rules()) == set(ARMS)


@pytest.mark.parametrize("name", ARMS)
def test_the_rule_holds_and_swapped_arms_fail_it(name):
    rule, arms = rules()[name], ARMS[name]
    assert rule(*arms)
    assert not rule(*arms[::-1])
    for arm in arms:   # equal arms are no evidence
        assert not rule(*[arm] * len(arms))
