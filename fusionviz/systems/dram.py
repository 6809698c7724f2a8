"""DRAM: glimpses with two memories, one for what a thing is and one for where to look, and a coarse picture to start.

Paper: Ba, Mnih, Kavukcuoglu, "Multiple Object Recognition with Visual Attention", ICLR 2015, arXiv 1412.7755.
Idea: as RAM, but the lower LSTM answers and the upper one chooses places. The whole picture, made coarse, starts the
upper memory alone, so that the first look goes to where something is, while the answer rests on glimpses. What and
where are multiplied: a place that says nothing silences what is seen there.
Differs from paper: the coarse picture is seen by the same eye as the windows. It names the one thing of a picture, and
so needs no end of a sequence; fewer and smaller layers. It is trained as RAM is, eye and all, but for RAM's second
round. `join=add` joins what and where as RAM does; `context=off` starts the upper memory at zero.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.registry import FusionSpec, Param, register
from fusionviz.systems._glimpses import GLIMPSES, JOINS, LOOK, SIGMA, WIDTH, Glimpses, conv
from fusionviz.trace import NullTrace

STATE = 64
COARSE = 32
"""Side of the coarse picture, in cells."""

SPEC = FusionSpec(
    key="dram",
    family="place_time",
    equation=r"g_t = A(I, l_t) \otimes L(l_t), \quad r_t = \mathrm{LSTM}(g_t, r_{t-1}), "
    r"\quad s_t = \mathrm{LSTM}(r_t, s_{t-1}), \quad s_0 = C({\downarrow}I)",
    year=2015,
    takes="image",
    align="none",
    params=(
        GLIMPSES,
        LOOK,
        SIGMA,
        Param("join", "multiply", choices=JOINS, refit=True),
        Param("context", True),
    ),
    paper="Ba, Mnih, Kavukcuoglu. Multiple Object Recognition with Visual Attention. ICLR 2015",
    link="https://arxiv.org/abs/1412.7755",
    cite="Ba et al., ICLR 2015 · arXiv 1412.7755",
)


@register(SPEC)
class DRAM(Glimpses):
    """Name the one thing of a picture from glimpses, of which the first already knows where to go.

    Equation: g = relu(what * where), r = LSTM(g, r), s = LSTM(r, s), next place = tanh(W s) + sigma n, answer = W r;
    s_0 from the coarse picture, r_0 = 0.
    Returns:
        FusionResult; "path" holds places, windows and what was thought after each glimpse, "kinds" the last answer.
    Differs from paper: see the head of this file.
    Source: arXiv 1412.7755
    """

    chooses_first = True

    def setup(self, glimpses: int, look: str, sigma: float, join: str, context: bool) -> None:
        self.build(join, STATE, STATE)
        self.lower, self.upper = nn.LSTMCell(WIDTH, STATE), nn.LSTMCell(STATE, STATE)
        self.coarse = nn.Sequential(  # on what the same eye sees, [b 64 4 4]
            *conv(64, 16, 1), nn.Flatten(), nn.Linear(16 * (COARSE // 8) ** 2, STATE), nn.Tanh()
        )

    def begin(self, picture: Tensor, trace: NullTrace, keep: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return r, its cell, the upper cell and s. `keep` [b 1] is 0 for pictures whose context is left out."""
        zero = picture.new_zeros(len(picture), STATE)
        lower, cells, upper = (trace.input(key, zero.clone()) for key in ("lower_0", "cells_0", "upper_cells_0"))
        if not self.params["context"]:
            return lower, cells, upper, trace.input("upper_0", zero, formula="s_0=0")
        shrink = lambda t: F.adaptive_avg_pool2d(t, COARSE)  # noqa: E731
        small = trace.step("coarse", "coarse", shrink, picture, formula=r"\downarrow I")  # [b 3 32 32]
        look = lambda t: self.coarse(self.glimpse.see(t))  # noqa: E731
        start = trace.step(
            "upper_0", "context", look, small, formula=r"s_0=C(\downarrow I)", module=self.coarse
        )  # [b 64]
        return lower, cells, upper, start if keep is None else start * keep

    def remember(self, glimpse: Tensor, states: tuple[Tensor, ...], trace: NullTrace) -> tuple[Tensor, ...]:
        lower, cells, upper_cells, upper = states
        both = lambda cell: lambda x, h, c: torch.cat(cell(x, (h, c)), 1)  # noqa: E731
        formulas = r"r_t=\mathrm{LSTM}(g_t,r_{t-1})", r"s_t=\mathrm{LSTM}(r_t,s_{t-1})"
        half = [lambda t: t[:, :STATE], lambda t: t[:, STATE:]]
        found = []
        for name, cell, h, c, formula in (
            ("lower", self.lower, lower, cells, formulas[0]),
            ("upper", self.upper, upper, upper_cells, formulas[1]),
        ):
            x = found[0] if found else glimpse
            out = trace.step(f"{name}_lstm", "lstm", both(cell), x, h, c, formula=formula, module=cell)  # [b 128]
            parts = zip(("", "_cells"), ("state_part", "cell_part"), half, strict=True)
            found += [trace.step(name + part, op, take, out) for part, op, take in parts]  # [b 64] each
        return found[0], found[1], found[3], found[2]
