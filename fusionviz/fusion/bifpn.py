"""BiFPN: down and up again through the pyramid, and every node learns how much it listens to each of its inputs.

Paper: Tan, Pang, Le, "EfficientDet: Scalable and Efficient Object Detection", CVPR 2020, arXiv 1911.09070.
Idea: the levels that meet in a node differ in resolution, so they should not count the same. One number for each edge,
learned with everything else, made positive and shared out, says how much. Nodes with one input only are dropped, and
every level's own input reaches its last node as well. The layer can be repeated.
Differs from paper: `repeats` is 1, so that the graph can be read; its smallest network has 3. `shift` is ours. There
are two levels or more; with two there is no node in between, and each level has one node.
Differs from the released code: nothing in a node (swish, separable 3x3 convolution, normalisation, in this order).
There every edge into the first layer has a 1x1 convolution of its own where channels differ; here every level has one.
Trap: the paper says that the fast weights sum to 1. They sum to S / (S + 0.0001), and to 0 where no v is positive.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.fusion._base import Context, Fused, FusionModule, resize
from fusionviz.fusion._pyramid import place_of, pooled
from fusionviz.records import AttentionMap
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.trace import NullTrace

EPSILON = 1e-4
LAWS = {
    "fast": ("normalised", "almost", r"w=\delta(v)/(10^{-4}+\sum_k \delta(v_k))"),
    "softmax": ("softmax", "branches", r"w=\mathrm{softmax}(v)"),
    "unbounded": ("affine", "none", r"w=v"),
}
"""By weighting: the kind of weight, what it sums to, its formula."""

SPEC = FusionSpec(
    key="bifpn",
    family="pyramid",
    equation=r"O = K \ast \phi(\sum_k w_k I_k), \quad w_k = \delta(v_k)\,/\,(10^{-4} + \sum_j \delta(v_j))",
    year=2020,
    takes="pyramid",
    align="none",  # bringing levels together is the method itself
    params=(
        Param("width", 64, low=4, high=1024, step=4, refit=True),
        Param("weighting", "fast", choices=tuple(LAWS), refit=True),
        Param("repeats", 1, low=1, high=8, step=1, refit=True),
        Param("shift", 0.0, low=-2.0, high=4.0, step=0.1),
    ),
    paper="Tan, Pang, Le. EfficientDet: Scalable and Efficient Object Detection. CVPR 2020",
    link="https://arxiv.org/abs/1911.09070",
    cite="Tan et al., CVPR 2020 · arXiv 1911.09070",
)


@register(SPEC)
class BiFPN(FusionModule):
    """Let every node of a two-way pyramid weigh its inputs by learned numbers, the same for every picture and place.

    Equation: with I_i a layer's inputs, level 1 the finest and n the coarsest, T_n = I_n; T_i = node(I_i, up(T_{i+1}));
    O_1 = T_1; O_i = node(down(O_{i-1}), I_i, T_i); O_n = node(down(O_{n-1}), I_n);
    node(maps) = BN(K * swish(sum_k w_k maps_k)), K depthwise 3x3 then 1x1.
    Args:
        levels: two maps or more [b c_i h_i w_i], fine to coarse.
    Returns:
        FusionResult; "p4", "p8", ... are the last layer's O_i [b width h_i w_i], "fused" is O_1. Attention is one
        [b n 1 1 1] for every node, called LAYER_td_LEVEL and LAYER_out_LEVEL, its inputs fine to coarse: for td the
        level's own input, then the level above; for out the level below, the own input, then T (not at the top). The
        first is the node that makes "fused". Each in [0, 1) and summing to S / (S + 0.0001), S the sum of relu(v); to
        1 with softmax; any number when unbounded. The share of low is |w_1 I_1| / (|w_1 I_1| + |w_2 up(T_2)|) there.
    Differs from paper: `shift` is added to v of the low level's own edge into that node.
    Source: arXiv 1911.09070
    """

    def setup(self, width: int, weighting: str, repeats: int, shift: float) -> None:
        self.weighting, self.repeats, self.shift, n = weighting, repeats, shift, len(self.channels)
        self.lateral, self.conv, self.edges = nn.ModuleDict(), nn.ModuleDict(), nn.ParameterDict()
        for i, c in enumerate(self.channels, start=1):
            self.lateral[str(i)] = nn.Sequential(nn.Conv2d(c, width, 1, bias=False), nn.BatchNorm2d(width))
        for r in range(1, repeats + 1):
            inputs = {f"{r}_td_{i}": 2 for i in range(1, n)} | {f"{r}_out_{i}": 2 + (i < n) for i in range(2, n + 1)}
            for name, count in inputs.items():
                depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False)
                pointwise = nn.Conv2d(width, width, 1, bias=False)
                self.conv[name] = nn.Sequential(nn.SiLU(), depthwise, pointwise, nn.BatchNorm2d(width))
                self.edges[name] = nn.Parameter(torch.ones(count))

    def fuse(self, *maps: Tensor, context: Context, trace: NullTrace) -> Fused:
        levels, weights = [], {}
        for i, c in enumerate(maps, start=1):
            role, formula = {1: "low", len(maps): "high"}.get(i, ""), rf"I_{{{i}}}=\mathrm{{BN}}(W_{{{i}}}C_{{{i}}})"
            levels.append(trace.step(f"lateral_{i}", "conv_bn", self.lateral[str(i)], c, formula=formula, role=role))
        for r in range(1, self.repeats + 1):
            levels, met, found = self._layer(r, levels, trace)
            weights |= found
        first = f"{self.repeats}_td_1"
        order = (first, *(name for name in weights if name != first))
        low, high = weights[first][:, 0], weights[first][:, 1]
        return Fused(
            levels[0],
            tuple(self._attention(name, weights[name]) for name in order),
            terms=lambda: (low * met[0], high * met[1]),
            levels=tuple(levels),
            aligned=met,
        )

    def _layer(self, r: int, inputs: list[Tensor], trace: NullTrace) -> tuple:
        """One way down and one way up: the levels, the two maps that met in T_1, and every node's weights."""
        n, weights, sizes = len(inputs), {}, [tuple(t.shape[-2:]) for t in inputs]
        down = [inputs[-1]]
        for i in range(n - 1, 0, -1):
            letter = f"{'T' if i < n - 1 else 'I'}_{{{i + 1}}}"
            above = self._resize(f"{r}_up_{i}", "resize_nearest", down[0], sizes[i - 1], rf"\uparrow {letter}", trace)
            met, name = (inputs[i - 1], above), f"{r}_td_{i}"
            weights[name], t = self._node(name, met, rf"T_{{{i}}}", trace, last=i == 1 and r == self.repeats)
            down.insert(0, t)
        up = [down[0]]
        for i in range(2, n + 1):
            formula, name = rf"\downarrow O_{{{i - 1}}}", f"{r}_out_{i}"
            below = self._resize(f"{r}_down_{i}", "max_pool", up[-1], sizes[i - 1], formula, trace)
            own = (inputs[i - 1],) if i == n else (inputs[i - 1], down[i - 1])
            weights[name], o = self._node(name, (below, *own), rf"O_{{{i}}}", trace)
            up.append(o)
        return up, met, weights

    def _resize(self, key: str, op: str, m: Tensor, size: tuple[int, int], formula: str, trace: NullTrace) -> Tensor:
        if tuple(m.shape[-2:]) == size:
            return m  # levels of one size, as a transformer has them, meet as they are
        fit = (lambda t: pooled(t, size)) if op == "max_pool" else (lambda t: resize(t, size, "nearest"))
        return trace.step(key, op, fit, m, formula=formula)

    def _node(self, name: str, maps: tuple[Tensor, ...], letter: str, trace: NullTrace, last: bool = False) -> tuple:
        """A node's weights [b n 1 1 1] and what comes out of it [b c h w]; `last` makes the fused map."""
        v, batch, role = self.edges[name], maps[0].shape[0], "fused" if last else ""
        weigh = lambda: self._weights(v, self.shift if last else 0.0, batch)  # noqa: E731 - it looks at no map
        formula = LAWS[self.weighting][2]
        w = trace.step(f"{name}_w", "branch_weights", weigh, formula=formula, role="weight", module=v)  # [b n 1 1 1]
        mix = lambda w, *maps: sum(w[:, k] * m for k, m in enumerate(maps))  # noqa: E731
        s = trace.step(f"{name}_sum", "weighted_sum", mix, w, *maps, formula=r"\sum_k w_k I_k")  # [b c h w]
        formula = rf"{letter}=K\ast\mathrm{{swish}}(\sum_k w_k I_k)"
        return w, trace.step(name, "separable", self.conv[name], s, formula=formula, role=role)  # [b c h w]

    def _weights(self, v: Tensor, shift: float, batch: int) -> Tensor:
        v = torch.cat((v[:1] + shift, v[1:])) if shift else v
        if self.weighting == "fast":
            v = F.relu(v)
            v = v / (EPSILON + v.sum())
        elif self.weighting == "softmax":
            v = torch.softmax(v, 0)
        return v.view(1, -1, 1, 1, 1).expand(batch, -1, -1, -1, -1)

    def _attention(self, name: str, weight: Tensor) -> AttentionMap:
        _, way, level = name.split("_")
        kind, sums, _ = LAWS[self.weighting]
        return AttentionMap(name, weight, "b n 1 1 1", kind, f"edges_{way}", place_of(int(level), self.channels), sums)
