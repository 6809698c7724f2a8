"""GFF, gated fully fusion: every level sends what it is sure of to all others, and takes where it is not sure itself.

Paper: Li, Zhao, Han, Tong, Tan, Yang, "Gated Fully Fusion for Semantic Segmentation", AAAI 2020, arXiv 1904.01803.
Idea: one gate for each level does two things. A sender multiplies what it offers by its gate; a receiver with gate G
keeps 1 + G of its own and lets in only 1 - G of what the others send. So what is useful travels, and what a level
already knows is not disturbed.
Differs from paper: the dense pyramid behind it is not built. Levels are brought to `width` channels first.
Differs from the released code: there a gate has a number for each channel at each place, made from the level before
its projection (`gate=released`), and the levels are updated one after the other, fine to coarse, so that later ones
hear what earlier ones have become (`update=sequential`).
"""

import torch
from torch import Tensor, nn

from fusionviz.fusion._base import Context, Fused, FusionModule, resize
from fusionviz.fusion._pyramid import place_of
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="gff",
    family="pyramid",
    equation=r"Z_l = (1 + G_l) \otimes X_l + (1 - G_l) \otimes \sum_{i \neq l} G_i \otimes X_i, "
    r"\quad G_l = \sigma(w_l \ast X_l)",
    year=2020,
    takes="pyramid",
    align="none",  # bringing levels together is the method itself
    params=(
        Param("width", 64, low=4, high=1024, step=4, refit=True),
        Param("gate", "paper", choices=("paper", "released"), refit=True),
        Param("update", "parallel", choices=("parallel", "sequential"), refit=True),
    ),
    paper="Li, Zhao, Han, Tong, Tan, Yang. Gated Fully Fusion for Semantic Segmentation. AAAI 2020",
    link="https://arxiv.org/abs/1904.01803",
    cite="Li et al., AAAI 2020 · arXiv 1904.01803",
)


@register(SPEC)
class GFF(FusionModule):
    """Send by gates and receive by their complements, from every level to every other.

    No selection: with all gates at 1 a level doubles and hears nobody, with all at 0 it stays as it is, and a level
    with gate 0 among levels with gate 1 becomes the sum of all.

    Equation: Z_l = (1 + G_l) X_l + (1 - G_l) sum over i != l of (G_i X_i), each brought to level l's size.
    Args:
        levels: two maps or more [b c_i h_i w_i], fine to coarse.
    Returns:
        FusionResult; "p4", "p8", ... are Z_l [b width h_l w_l], "fused" is the finest. Attention "gate_1", "gate_2",
        ... are the gates G_l at their levels' places, [b 1 h w] or as released [b width h w], in (0, 1); they have
        no fixed sum. The share of low is |(1 + G_1) X_1| against |(1 - G_1) sum|; `aligned` are X_1 and that sum.
    Differs from paper: `gate` and `update` restore the released code.
    Source: arXiv 1904.01803
    """

    def setup(self, width: int, gate: str, update: str) -> None:
        self.released, self.sequential = gate == "released", update == "sequential"
        self.project, self.gate = nn.ModuleDict(), nn.ModuleDict()
        for i, c in enumerate(self.channels, start=1):
            conv = nn.Conv2d(c, width, 1, bias=False)
            self.project[str(i)] = nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())
            self.gate[str(i)] = nn.Conv2d(c, width, 1) if self.released else nn.Conv2d(width, 1, 1)

    def fuse(self, *maps: Tensor, context: Context, trace: NullTrace) -> Fused:
        xs, gates, sent = [], [], []
        for i, c in enumerate(maps, start=1):
            role, formula = (
                {1: "low", len(maps): "high"}.get(i, ""),
                rf"X_{{{i}}}=\delta(\mathrm{{BN}}(W_{{{i}}}C_{{{i}}}))",
            )
            x = trace.step(f"x_{i}", "conv_bn_relu", self.project[str(i)], c, formula=formula, role=role)
            xs.append(x)  # [b width h w]
            ask = lambda t, gate=self.gate[str(i)]: torch.sigmoid(gate(t))  # noqa: E731
            formula = rf"G_{{{i}}}=\sigma(w_{{{i}}}\ast {'C' if self.released else 'X'}_{{{i}}})"
            of, gate = c if self.released else x, self.gate[str(i)]
            g = trace.step(f"gate_{i}", "gate", ask, of, formula=formula, role="weight", module=gate)
            gates.append(g)  # [b 1 h w] or [b width h w]
            # Updated one after the other, the first level is heard by nobody before it has changed.
            sent.append(x if self.sequential and i == 1 else self._send(i, g, x, trace))
        outs, met = [], None
        for i, (x, g) in enumerate(zip(xs, gates, strict=True), start=1):
            heard = self._hear(i, sent, tuple(x.shape[-2:]), trace)  # [b width h w]
            met = met or (x, heard)
            duplex = lambda g, x, heard: (1 + g) * x + (1 - g) * heard  # noqa: E731
            formula = rf"(1+G_{{{i}}})\otimes X_{{{i}}}+(1-G_{{{i}}})\otimes S_{{{i}}}"
            role = "fused" if i == 1 else ""
            outs.append(trace.step(f"z_{i}", "duplex", duplex, g, x, heard, formula=formula, role=role))
            if self.sequential and i < len(xs):
                sent[i - 1] = self._send(i, g, outs[-1], trace, after="z_")
        attention = tuple(self._attention(i, g) for i, g in enumerate(gates, start=1))
        (x, heard), g = met, gates[0]
        return Fused(outs[0], attention, terms=lambda: ((1 + g) * x, (1 - g) * heard), levels=tuple(outs), aligned=met)

    def _send(self, i: int, gate: Tensor, x: Tensor, trace: NullTrace, after: str = "") -> Tensor:
        formula = rf"M_{{{i}}}=G_{{{i}}}\otimes {'Z' if after else 'X'}_{{{i}}}"
        return trace.step(f"send_{after}{i}", "multiply", torch.mul, gate, x, formula=formula)  # [b width h w]

    def _hear(self, to: int, sent: list[Tensor], size: tuple[int, int], trace: NullTrace) -> Tensor:
        """What all other levels send, at this level's size, added."""
        others, bring = [], lambda t: resize(t, size)
        for i, message in enumerate(sent, start=1):
            if i == to:
                continue
            if tuple(message.shape[-2:]) != size:
                formula = rf"\uparrow M_{{{i}}}" if i > to else rf"\downarrow M_{{{i}}}"
                message = trace.step(f"bring_{i}_{to}", "resize_bilinear", bring, message, formula=formula)
            others.append(message)
        if len(others) == 1:
            return others[0]
        formula = rf"S_{{{to}}}=" + "+".join(f"M_{{{i}}}" for i in range(1, len(sent) + 1) if i != to)
        return trace.step(f"heard_{to}", "add", lambda *maps: sum(maps), *others, formula=formula)

    def _attention(self, i: int, gate: Tensor) -> AttentionMap:
        axes, role = ("b c h w", "element_gate") if self.released else ("b 1 h w", "place_gate")
        return AttentionMap(f"gate_{i}", gate, axes, "gate", role, place_of(i, self.channels))
