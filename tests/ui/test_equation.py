"""Formulas as one line of text, for the boxes of the flow."""

import re

import pytest
import torch

from fusionviz import fusion
from fusionviz.ui.components.equation import plain


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        (r"A_i=\mathrm{softmax}(Q_i K_i^{\top}/\sqrt{d})", "Aᵢ=softmax(Qᵢ Kᵢᵀ/√d)"),
        (r"O=W_O\,[A_1 V_1;\ldots;A_h V_h]", "O=W_O [A₁ V₁;…;Aₕ Vₕ]"),
        (r"M\otimes X+(1-M)\otimes Y", "M ⊗ X+(1−M) ⊗ Y"),
        (r"\downarrow X", "↓ X"),
    ],
)
def test_a_formula_becomes_one_line(tex: str, text: str) -> None:
    assert plain(tex) == text


@pytest.mark.parametrize("method", fusion.names())
def test_no_box_of_the_flow_spells_a_command_out(method: str) -> None:
    takes = fusion.spec(method).takes
    channels = tuple(8 * 2**i for i in range({"one": 1, "pair": 2}.get(takes, 3)))
    sides = [16 if takes == "branches" else 16 // 2**i for i in range(len(channels))]
    maps = tuple(torch.zeros(1, c, side, side) for c, side in zip(channels, sides, strict=True))
    for step in fusion.build(method, channels)(*maps).trace:
        names = re.sub(r"\\(?:mathrm|text|operatorname|mathbf|mathit)\{[^}]*\}", "", step.formula)
        for command in set(re.findall(r"\\([A-Za-z]{3,})", names)) - {"max", "min", "exp", "log"}:  # words, not signs
            assert command not in plain(step.formula), step.formula
