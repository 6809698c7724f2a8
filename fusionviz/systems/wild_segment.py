"""In the wild: how torchvision's segmentation networks fuse what they know of a place with what they know around it.

Paper: Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam, "Searching for MobileNetV3",
ICCV 2019, arXiv 1905.02244 (LR-ASPP); Chen, Papandreou, Schroff, Adam, "Rethinking Atrous Convolution for Semantic
Image Segmentation", arXiv 1706.05587 (DeepLabv3); Long, Shelhamer, Darrell, "Fully Convolutional Networks for Semantic
Segmentation", CVPR 2015, arXiv 1411.4038 (FCN).
Idea: LR-ASPP adds the votes of a fine level to those of a gated coarse one. DeepLabv3 fuses no levels but looks at one
of them at five distances at once, and stacks what it saw. torchvision's FCN reads one level alone.
Differs from paper: the networks are torchvision's, weights and all. There, FCN has none of the paper's skips, LR-ASPP
takes its mean over the whole map, and all were trained on those pictures of COCO that have the 20 classes of VOC.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from fusionviz.fusion import Context
from fusionviz.records import AttentionMap, ClassMap, FeatureMap, FusionResult, Preprocessing
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.systems._wild import SCALE, Frame, Wild, names, stages
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="wild_segment",
    family="wild",
    equation=r"Z = W_x X + W_y\,{\uparrow}(V \otimes s), \quad Z = W\,[B_{1};\, \ldots;\, B_{5}]",
    year=2019,
    takes="image",
    align="none",
    params=(
        Param(
            "net",
            "lraspp_mobilenet_v3_large",
            choices=names("lraspp", "deeplabv3_mobilenet", "deeplabv3", "fcn", among="segmentation"),
            refit=True,
        ),
        SCALE,
    ),
    paper="Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam. Searching for MobileNetV3. "
    "ICCV 2019",
    link="https://arxiv.org/abs/1905.02244",
    cite="Howard et al., ICCV 2019 · arXiv 1905.02244",
)


@register(SPEC)
class WildSegment(Wild):
    """Say for every place what is there, and show what the scores were fused from.

    Equation: LR-ASPP: Z = W_x X + W_y up(V * s), V = relu(BN(W Y)), s = sigma(W_s GAP(Y)). DeepLabv3: Z reads
    [B_1; ...; B_5], five branches over one level: 1x1, three 3x3 with holes, and the mean of all places.
    Args:
        picture: [1 3 h w], normalised as the context says; its short side becomes 520 pixels where `scale` is "own".
    Returns:
        FusionResult; "fused" are the scores [1 21 h w] at the head's own places, "classes" the class of every pixel of
        the network's input, "low" and "high" what the head was given, "branch_1" ... "branch_5" of DeepLabv3 what was
        stacked. Attention "gate" of LR-ASPP is [1 128 1 1], in (0, 1).
    Differs from paper: see the head of this file.
    Source: torchvision.models.segmentation
    """

    side = 320

    def assemble(self, net: str) -> nn.Module:
        # Published weights hold a second head, which only training listens to.
        extra = {} if net.startswith("lraspp") else {"aux_loss": True}
        return models.get_model(net, weights=None, weights_backbone=None, **extra)

    @property
    def preprocessing(self) -> Preprocessing:
        wants = models.get_model_weights(self.net).DEFAULT.transforms()
        side = wants.resize_size[0]
        return Preprocessing(side, side, tuple(wants.mean), tuple(wants.std), wants.interpolation.value)

    def see(
        self, picture: Tensor, levels: tuple[FeatureMap, ...], *, context: Context, trace: NullTrace
    ) -> FusionResult:
        own = self.params["scale"] == "own"
        frame = self.frame(picture, context, trace, size=(self.preprocessing.resize_px,) if own else None)
        head = self._lraspp if self.net.startswith("lraspp") else self._one_level
        outputs, attention, more = head(frame, trace)
        size = tuple(frame.tensor.shape[-2:])
        enlarge = lambda t: F.interpolate(t, size=size, mode="bilinear", align_corners=False)  # noqa: E731
        scores = trace.step("enlarged", "resize_bilinear", enlarge, outputs["fused"].tensor, formula=r"{\uparrow}Z")
        pick = lambda t: t.argmax(1, keepdim=True).to(t.dtype)  # noqa: E731
        said = trace.step("classes", "argmax", pick, scores, formula=r"\mathrm{argmax}_c\,{\uparrow}Z_c")
        half = tuple(r / 2 for r in frame.ratio)
        outputs["classes"] = ClassMap("classes", said[0, 0].long(), self.categories, frame.ratio, half)
        return FusionResult(outputs, attention, trace.steps, provenance=self.provenance, **more)

    def _tapped(self, frame: Frame, taps: tuple[str, ...], trace: NullTrace) -> dict[str, FeatureMap]:
        """Run the network's body and return the maps that its head is given, by name."""
        x, found = frame.tensor, {}
        for i, (tap, layers) in enumerate(stages(self.network.backbone, taps), start=1):
            name = {"out": "high"}.get(tap, tap)
            letter = {"low": "X", "high": "Y"}[name]
            x = trace.step(name, "layers", layers, x, formula=letter, role=name)  # [1 c h w]
            coarse = 16 if "mobilenet" in self.net else 8  # the ResNets have holes in place of their last two strides
            found[name] = frame.map(name, x, {"low": 8, "high": coarse}[name], stage=i)
        return found

    def _lraspp(self, frame: Frame, trace: NullTrace) -> tuple[dict, dict, dict]:
        head, maps = self.network.classifier, self._tapped(frame, ("low", "high"), trace)
        x, y = maps["low"].tensor, maps["high"].tensor
        mean, linear, squash = head.scale
        v = trace.step("reduce", "conv_bn_relu", head.cbr, y, formula=r"V=\delta(\mathrm{BN}(W Y))", role="high")
        g = trace.step("squeeze", "pool", mean, y, formula=r"g=\mathrm{GAP}(Y)")  # [1 960 1 1]
        t = trace.step("scale", "conv_1x1", linear, g, formula=r"W_s\,g")  # [1 128 1 1]
        s = trace.step("gate", "sigmoid", squash, t, formula=r"s=\sigma(W_s\,g)", role="weight")
        vs = trace.step("gated", "multiply", torch.mul, v, s, formula=r"V\otimes s", role="high")
        up = lambda t: F.interpolate(t, size=x.shape[-2:], mode="bilinear", align_corners=False)  # noqa: E731
        u = trace.step("high_resize", "resize_bilinear", up, vs, formula=r"{\uparrow}(V\otimes s)", role="high")
        low = trace.step("low_votes", "votes", head.low_classifier, x, formula="W_x X", role="low")
        formula = r"W_y\,{\uparrow}(V\otimes s)"
        high = trace.step("high_votes", "votes", head.high_classifier, u, formula=formula, role="high")
        z = trace.step("fused", "add", torch.add, low, high, formula=rf"W_x X+{formula}", role="fused")  # [1 21 h w]
        fine = maps["low"]
        fused, a, b = (
            FeatureMap(n, t, fine.stride, fine.offset, fine.stage)
            for n, t in (("fused", z), ("low", low), ("high", high))
        )
        gate = AttentionMap("gate", s, "b c 1 1", "gate", "channel_gate", "high")
        plain = lambda: tuple(  # noqa: E731 - the biases belong to neither level
            F.conv2d(t, c.weight) for t, c in ((x, head.low_classifier), (u, head.high_classifier))
        )
        return {"fused": fused, **maps}, {"gate": gate}, {"aligned": (a, b), "terms": plain}

    def _one_level(self, frame: Frame, trace: NullTrace) -> tuple[dict, dict, dict]:
        maps = self._tapped(frame, ("out",), trace)
        high, branches, head = maps["high"], {}, self.network.classifier
        place = lambda name, t: FeatureMap(name, t, high.stride, high.offset, high.stage)  # noqa: E731
        if self.net.startswith("deeplab"):
            aspp, *rest = head
            for i, branch in enumerate(aspp.convs, start=1):
                op = "branch_1x1" if i == 1 else "branch_mean" if i == len(aspp.convs) else "branch_holes"
                key = f"branch_{i}"
                out = trace.step(key, op, branch, high.tensor, formula=rf"B_{{{i}}}(Y)")  # [1 256 h w]
                branches[key] = place(key, out)
            stack = lambda *t: torch.cat(t, 1)  # noqa: E731
            formula = rf"[B_{{1}};\,\ldots;\,B_{{{len(branches)}}}]"
            y = trace.step("stacked", "concat", stack, *(b.tensor for b in branches.values()), formula=formula)
            y = trace.step("projected", "project_norm", aspp.project, y, formula=rf"W_p\,{formula}")  # [1 256 h w]
            y = trace.step("refined", "conv_bn_relu", nn.Sequential(*rest[:-1]), y, formula="K")
        else:
            *rest, _ = head
            y = trace.step("refined", "conv_bn_relu", nn.Sequential(*rest), high.tensor, formula="K")
        z = trace.step("fused", "votes", head[-1], y, formula="Z=W K", role="fused")  # [1 21 h w]
        return {"fused": place("fused", z), **maps, **branches}, {}, {}
