"""In the wild: every squeeze-and-excitation gate inside torchvision's MobileNetV3, EfficientNet and RegNetY.

Paper: Hu, Shen, Sun, Albanie, Wu, "Squeeze-and-Excitation Networks", CVPR 2018, arXiv 1709.01507. The networks:
MobileNetV3 (arXiv 1905.02244), EfficientNet (arXiv 1905.11946), EfficientNetV2 (arXiv 2104.00298), RegNet (arXiv
2003.13678).
Idea: each of these networks asks, block by block, which channels matter in this very picture. Early gates answer much
the same for all pictures; late ones tell pictures apart.
Differs from paper: the networks are torchvision's, weights and all. EfficientNet squeezes with SiLU in place of ReLU;
MobileNetV3's gate is the hard sigmoid, which reaches 0 and 1. `depth` says at which block one looks more closely.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn
from torchvision.ops import SqueezeExcitation

from fusionviz.fusion import Context
from fusionviz.records import AttentionMap, FeatureMap, FusionResult, Logits
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.systems._wild import DEPTH, SCALE, Wild, at_depth, names
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="wild_gates",
    family="wild",
    equation=r"Z = U \otimes \sigma(W_2\,\delta(W_1\,\mathrm{GAP}(U)))",
    year=2018,
    takes="image",
    align="none",
    params=(
        Param(
            "net",
            "mobilenet_v3_large",
            choices=names("mobilenet_v3", "efficientnet_b", "efficientnet_v2", "regnet_y"),
            refit=True,
        ),
        DEPTH,
        SCALE,
    ),
    paper="Hu, Shen, Sun, Albanie, Wu. Squeeze-and-Excitation Networks. CVPR 2018",
    link="https://arxiv.org/abs/1709.01507",
    cite="Hu et al., CVPR 2018 · arXiv 1709.01507",
)


@register(SPEC)
class WildGates(Wild):
    """Show what every gate of a trained network says about a picture, and one block step by step.

    Equation: Z = U * s, s = sigma(W_2 delta(W_1 GAP(U))).
    Args:
        picture: [1 3 h w], normalised as the context says; its short side becomes that of the published weights where
            `scale` is "own".
    Returns:
        FusionResult; "fused" is the gated map [1 c h w] of the block at `depth`, "before" the map that it was given,
        "classes" the network's own scores. Attention "gate_1" ... "gate_n" are [1 c 1 1] in [0, 1], one for each block
        from the picture on; the one at `depth` comes first.
    Differs from paper: see the head of this file.
    Source: torchvision.ops.SqueezeExcitation
    """

    def assemble(self, net: str) -> nn.Module:
        network = super().assemble(net).eval()  # what training drops at random is written into the graph
        self.graph = _Tracer().trace(network)
        self.gates = tuple(n for n in self.graph.nodes if n.op == "call_module" and _is_gate(network, n))
        return network

    def see(
        self, picture: Tensor, levels: tuple[FeatureMap, ...], *, context: Context, trace: NullTrace
    ) -> FusionResult:
        own = self.params["scale"] == "own"
        frame = self.frame(picture, context, trace, size=(self.preprocessing.crop_px,) if own else None)
        chosen = self.gates[at_depth(self.params["depth"], len(self.gates))]
        walk = _Walk(self.network, frame.tensor, self.graph)
        start = lambda _: walk.until(chosen.args[0])  # noqa: E731
        u = trace.step("before", "layers", start, frame.tensor, formula="U")  # [1 c h w]
        z, gate = self._gated(self.network.get_submodule(chosen.target), u, trace)
        walk.env[chosen] = z
        finish = lambda _: walk.until(None)  # noqa: E731
        logits = trace.step("classes", "layers", finish, z, formula=r"\ell")  # [1 classes]
        walk.gates[chosen] = gate
        stride = _stride(tuple(frame.tensor.shape[-2:]), tuple(u.shape[-2:]))
        attention = {}
        for node in (chosen, *(n for n in self.gates if n is not chosen)):
            name = f"gate_{self.gates.index(node) + 1}"
            attention[name] = AttentionMap(name, walk.gates[node], "b c 1 1", "gate", "channel_gate", "block")
        outputs = {
            "fused": frame.map("fused", z, stride),
            "before": frame.map("before", u, stride),
            "classes": Logits("classes", logits[0], self.categories),
        }
        return FusionResult(outputs, attention, trace.steps, provenance=self.provenance)

    @staticmethod
    def _gated(block: SqueezeExcitation, u: Tensor, trace: NullTrace) -> tuple[Tensor, Tensor]:
        """Return the gated map [1 c h w] and the gate [1 c 1 1]."""
        few = lambda t: block.activation(block.fc1(t))  # noqa: E731
        hard = isinstance(block.scale_activation, nn.Hardsigmoid)
        g = trace.step("squeeze", "pool", block.avgpool, u, formula=r"g=\mathrm{GAP}(U)")  # [1 c 1 1]
        e = trace.step("reduce", "reduce", few, g, formula=r"e=\delta(W_1\,g)", module=block.fc1)
        t = trace.step("expand", "expand", block.fc2, e, formula=r"W_2\,e")  # [1 c 1 1]
        op, formula = "hard_sigmoid" if hard else "sigmoid", r"s=\sigma(W_2\,e)"
        s = trace.step("weight", op, block.scale_activation, t, formula=formula, role="weight")
        return trace.step("fused", "multiply", torch.mul, s, u, formula=r"U\otimes s", role="fused"), s


class _Tracer(fx.Tracer):
    """Follows a network down to its gates, which stay whole."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, SqueezeExcitation) or super().is_leaf_module(module, name)


def _is_gate(network: nn.Module, node: fx.Node) -> bool:
    return isinstance(network.get_submodule(node.target), SqueezeExcitation)


class _Walk(fx.Interpreter):
    """One run through a network that can be stopped at a node and taken up again, keeping the gates it passes.

    It holds what is still needed of the run, so that nothing is kept on the network: hooks would be shared by all.
    """

    def __init__(self, network: nn.Module, picture: Tensor, graph: fx.Graph) -> None:
        super().__init__(network, graph=graph)
        self.args_iter = iter((picture,))
        self.waiting = iter(graph.nodes)
        self.gates: dict[fx.Node, Tensor] = {}

    def until(self, last: fx.Node | None) -> Tensor:
        """Run to a node, or to the end, and return what came out there; what was put into `env` is not run."""
        for node in self.waiting:
            if node in self.env:
                value = self.env[node]
            elif node.op == "call_module" and _is_gate(self.module, node):
                u = self.env[node.args[0]]
                gate = self.gates[node] = self.module.get_submodule(node.target)._scale(u)
                value = gate * u
            else:
                value = self.run_node(node)
            self.env[node] = value
            for done in self.user_to_last_uses.get(node, ()):
                del self.env[done]
            if node is last or node.op == "output":
                return value
        raise ValueError(f"{last} is no node ahead of this run")


def _stride(pixels: tuple[int, int], cells: tuple[int, int]) -> float:
    """Return how many pixels a cell is wide, in a network whose every halving rounds up."""
    stride = 1
    while tuple(-(-n // stride) for n in pixels) != cells:
        stride *= 2
        if stride > max(pixels):
            raise ValueError(f"{pixels} pixels are not halved to {cells} cells")
    return float(stride)
