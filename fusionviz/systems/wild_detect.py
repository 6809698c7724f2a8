"""In the wild: torchvision's detectors, with the level that claimed each box.

Paper: Lin, Dollár, Girshick, He, Hariharan, Belongie, "Feature Pyramid Networks for Object Detection", CVPR 2017,
arXiv 1612.03144. The detectors: Faster R-CNN (arXiv 1506.01497), Mask R-CNN (arXiv 1703.06870), RetinaNet (arXiv
1708.02002), FCOS (arXiv 1904.01355), SSD (arXiv 1512.02325), SSDlite (arXiv 1801.04381).
Idea: a feature pyramid merges the levels before anything is predicted; SSD predicts on each as it is. In RetinaNet,
FCOS and SSD a box is claimed by the level whose cell predicted it; in Faster and Mask R-CNN by the level out of which
its proposal was cut, which follows from the proposal's size alone.
Differs from paper: the networks are torchvision's, weights and all. Its pyramids have no P6 of their own in Faster
R-CNN, but every second place of P5; in its MobileNet version two levels share one stride, and all boxes are cut out of
the first. Boxes below `score` are left out at the end; below torchvision's own limit it lowers that limit too.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models
from torchvision.models.detection import FCOS, MaskRCNN
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import maskrcnn_inference
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import resize_boxes
from torchvision.ops import FrozenBatchNorm2d, batched_nms, clip_boxes_to_image, remove_small_boxes

from fusionviz.fusion import Context
from fusionviz.records import Detections, FeatureMap, FusionResult, Preprocessing, RegionMaps
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.systems import _wild_levels as wild_levels
from fusionviz.systems._boxes import as_rows
from fusionviz.systems._wild import SCALE, Frame, Wild, names
from fusionviz.trace import NullTrace

FROZEN = {
    "fasterrcnn_resnet50_fpn": 0.0,
    "maskrcnn_resnet50_fpn": 0.0,
    "retinanet_resnet50_fpn": 0.0,
    "fcos_resnet50_fpn": 1e-5,
    "fasterrcnn_mobilenet_v3_large_fpn": 1e-5,
    "fasterrcnn_mobilenet_v3_large_320_fpn": 1e-5,
}
"""Networks in whose bodies torchvision freezes batch normalisation once they are trained, and what it adds to the
variance then: older weights were trained with nothing added."""

SPEC = FusionSpec(
    key="wild_detect",
    family="wild",
    equation=r"M_i = W_i\,C_i + {\uparrow} M_{i+1}, \quad P_i = K_i \ast M_i, \quad "
    r"D = \mathrm{NMS}(\,[H(P_1);\, \ldots;\, H(P_n)]\,)",
    year=2017,
    takes="image",
    align="none",
    params=(
        Param(
            "net",
            "fasterrcnn_resnet50_fpn",
            choices=names("fasterrcnn", "maskrcnn", "retinanet", "fcos", "ssd", among="detection"),
            refit=True,
        ),
        Param("score", 0.5, low=0.01, high=0.99, step=0.01),
        SCALE,
    ),
    paper="Lin, Dollár, Girshick, He, Hariharan, Belongie. Feature Pyramid Networks for Object Detection. CVPR 2017",
    link="https://arxiv.org/abs/1612.03144",
    cite="Lin et al., CVPR 2017 · arXiv 1612.03144",
)


@register(SPEC)
class WildDetect(Wild):
    """Find things, and say which level found each.

    Equation: M_i = W_i C_i + up(M_{i+1}), P_i = K_i * M_i; every level predicts boxes, of which the surest stay.
    Args:
        picture: [1 3 h w], normalised as the context says; enlarged as torchvision does where `scale` is "own". SSD
            always takes one size.
    Returns:
        FusionResult; "detections" with boxes in pixels of the picture given, of torchvision's classes; the levels on
        which is predicted, "p4" ... "p64" or "s8" ... "s300", fine to coarse; "fused" the finest level of a pyramid;
        "low" and "high", the finest and the coarsest map that were merged; "o4" ..., for each level how sure it is of
        anything at a place, [1 1 h w] in [0, 1]; "masks" of Mask R-CNN, [n 1 28 28] in [0, 1] over each box.
    Differs from paper: see the head of this file.
    Source: torchvision.models.detection
    """

    side = 320

    def assemble(self, net: str) -> nn.Module:
        network = models.get_model(net, weights=None, weights_backbone=None)
        if net in FROZEN:
            network.backbone.body = _frozen(network.backbone.body, FROZEN[net])
        return network

    @property
    def preprocessing(self) -> Preprocessing:
        wants = self.network.transform
        side = wants.fixed_size[0] if wants.fixed_size else wants.min_size[-1]
        return Preprocessing(side, side, tuple(wants.image_mean), tuple(wants.image_std))

    @property
    def grids(self) -> tuple[wild_levels.Grid, ...]:
        """The levels on which it predicts, fine to coarse."""
        return wild_levels.grids(self.net)

    @property
    def least(self) -> float:
        """The least score at which a box is a candidate: torchvision's, or the knob's where that is lower."""
        heads = self.network.roi_heads if isinstance(self.network, GeneralizedRCNN) else self.network
        return min(self.params["score"], heads.score_thresh)

    def see(
        self, picture: Tensor, levels: tuple[FeatureMap, ...], *, context: Context, trace: NullTrace
    ) -> FusionResult:
        frame, images = self._fitted(picture, context, trace)
        late = isinstance(self.network, SSD)
        find = wild_levels.cascade if late else wild_levels.pyramid
        maps = find(self.network.backbone, self.grids, frame, trace)
        inputs, merged = ((maps[0], maps[-1]), maps) if late else (maps[: -len(self.grids)], maps[-len(self.grids) :])
        outputs: dict = {m.name: m for m in merged}
        outputs |= {
            name: FeatureMap(name, m.tensor, m.stride, m.offset, m.stage)
            for name, m in (("low", inputs[0]), ("high", inputs[-1]), *([] if late else [("fused", merged[0])]))
        }
        predict = self._two_stages if isinstance(self.network, GeneralizedRCNN) else self._one_stage
        kept, sure = predict(merged, images, trace)  # [n 7], maps
        scaled = lambda k: torch.cat((resize_boxes(k[:, :4], images.image_sizes[0], frame.size), k[:, 4:]), 1)  # noqa: E731
        found = trace.step("found", "to_picture", scaled, kept, formula="B")  # [n 7]
        outputs["detections"] = Detections(
            "detections",
            found[:, :4],
            found[:, 4],
            found[:, 5].long(),
            found[:, 6].long(),
            self.categories,
            tuple(g.name for g in self.grids),
        )
        for level, tensor in zip(merged, sure, strict=True):
            name = f"o{level.name[1:]}"
            outputs[name] = FeatureMap(name, tensor, level.stride, level.offset, level.stage)
        if isinstance(self.network, MaskRCNN):
            masks = self._masks(kept, merged, images, trace)
            said = tuple(self.categories[i] for i in found[:, 5].long().tolist())
            outputs["masks"] = RegionMaps("masks", masks, found[:, :4], said)
        return FusionResult(outputs, trace=trace.steps, provenance=self.provenance)

    def _fitted(self, picture: Tensor, context: Context, trace: NullTrace) -> tuple[Frame, ImageList]:
        """Return the network's input, at the size that torchvision gives it, filled up with zeros to whole strides."""
        fit, given = copy.copy(self.network.transform), tuple(picture.shape[-2:])  # its limits are this run's alone
        if self.params["scale"] == "given":
            fit.min_size, fit.max_size = (min(given),), max(given)
        size: list[tuple[int, int]] = []

        def prepare(seen: Tensor) -> Tensor:
            images, _ = fit(list(seen))
            size.append(images.image_sizes[0])
            return images.tensors

        seen = trace.input("picture", self.pixels(picture, context), formula="I")
        x = trace.step("fitted", "fit", prepare, seen, formula=r"\hat{I}")  # [1 3 h w]
        ratio = tuple(g / n for g, n in zip(given, size[0], strict=True))
        return Frame(x, ratio, given), ImageList(x, size)

    # --- one stage: RetinaNet, FCOS, SSD ---------------------------------------------------------
    def _one_stage(
        self, maps: tuple[FeatureMap, ...], images: ImageList, trace: NullTrace
    ) -> tuple[Tensor, list[Tensor]]:
        network, sure, codes, places = self.network, [], [], []
        for i, level in enumerate(maps, start=1):
            score, code = self._read(i, level, trace)
            sure.append(score)
            codes.append(code)
            h, w = level.size
            surest = lambda t, h=h, w=w: t[..., -self._kinds :].amax(2).view(1, 1, h, w, -1).amax(-1)  # noqa: E731
            key = f"o{level.name[1:]}"
            places.append(trace.step(key, "objectness", surest, score, formula=rf"\mathrm{{max}}\,p_{{{i}}}"))
        counts = [s.shape[1] for s in sure]
        anchors = network.anchor_generator(images, [m.tensor for m in maps])[0]  # [rows 4]
        choose = self._chosen_ssd if isinstance(network, SSD) else self._chosen
        keep = lambda *t: choose(t[: len(maps)], t[len(maps) :], anchors.split(counts), images.image_sizes[0])  # noqa: E731
        return trace.step("kept", "suppress", keep, *sure, *codes, formula=r"\mathrm{NMS}(D)"), places

    @property
    def _kinds(self) -> int:
        """Classes that a row of scores has without the background, which only SSD has as a class."""
        return len(self.categories) - isinstance(self.network, SSD)

    def _read(self, i: int, level: FeatureMap, trace: NullTrace) -> tuple[Tensor, Tensor]:
        """Return a level's scores [1 rows classes] in [0, 1], and box codes [1 rows 4]."""
        head, name, x = self.network.head, level.name, level.tensor
        if isinstance(self.network, SSD):
            said, moved = (part.module_list[i - 1] for part in (head.classification_head, head.regression_head))
            rows = lambda t, m=said: as_rows(m(t), len(self.categories))  # noqa: E731
            logits = trace.step(f"classes_{name}", "classes", rows, x, formula=rf"S_{{{i}}}", module=said)
            soft = lambda t: F.softmax(t, -1)  # noqa: E731
            formula = rf"p_{{{i}}}=\mathrm{{softmax}}(S_{{{i}}})"
            sure = trace.step(f"sure_{name}", "softmax", soft, logits, formula=formula)
            rows = lambda t, m=moved: as_rows(m(t), 4)  # noqa: E731
            return sure, trace.step(f"codes_{name}", "codes", rows, x, formula=rf"T_{{{i}}}", module=moved)
        # One head reads all levels: its numbers are counted once, at the finest.
        once = lambda m: m if i == 1 else None  # noqa: E731
        said, moved = head.classification_head, head.regression_head
        read = lambda t: said([t])  # noqa: E731
        logits = trace.step(f"classes_{name}", "classes", read, x, formula=rf"S_{{{i}}}", module=once(said))
        if isinstance(self.network, FCOS):
            both = lambda t: torch.cat(moved([t]), -1)  # noqa: E731 - four distances, and how near the middle it stands
            formula = rf"[T_{{{i}}};c_{{{i}}}]"
            out = trace.step(f"codes_{name}", "codes", both, x, formula=formula, module=once(moved))  # [1 rows 5]
            mean = lambda s, t: torch.sqrt(torch.sigmoid(s) * torch.sigmoid(t[..., 4:]))  # noqa: E731
            formula = rf"p_{{{i}}}=\sqrt{{\sigma(S_{{{i}}})\sigma(c_{{{i}}})}}"
            return trace.step(f"sure_{name}", "geometric_mean", mean, logits, out, formula=formula), out
        read = lambda t: moved([t])  # noqa: E731
        codes = trace.step(f"codes_{name}", "codes", read, x, formula=rf"T_{{{i}}}", module=once(moved))
        formula = rf"p_{{{i}}}=\sigma(S_{{{i}}})"
        return trace.step(f"sure_{name}", "sigmoid", torch.sigmoid, logits, formula=formula), codes

    def _chosen(
        self, sure: Sequence[Tensor], codes: Sequence[Tensor], anchors: Sequence[Tensor], size: tuple[int, int]
    ) -> Tensor:
        """The surest candidates of every level, then of all levels together: [n 7] box, score, class, level."""
        network, found = self.network, []
        coder = network.box_coder
        decode = coder.decode if isinstance(network, FCOS) else coder.decode_single
        for i, (score, code, anchor) in enumerate(zip(sure, codes, anchors, strict=True)):
            flat = score[0].flatten()
            rows = torch.where(flat > self.least)[0]
            best, order = flat[rows].topk(min(network.topk_candidates, len(rows)))
            rows = rows[order]
            at, kind = rows // score.shape[-1], rows % score.shape[-1]
            boxes = clip_boxes_to_image(decode(code[0, at, :4], anchor[at]), size)
            found.append(_rows(boxes, best, kind, torch.full_like(kind, i)))
        return self._suppressed(torch.cat(found), network)

    def _chosen_ssd(
        self, sure: Sequence[Tensor], codes: Sequence[Tensor], anchors: Sequence[Tensor], size: tuple[int, int]
    ) -> Tensor:
        """The surest candidates of every class, whatever their level: [n 7] box, score, class, level."""
        level = torch.cat([torch.full_like(a[:, 0], i) for i, a in enumerate(anchors)])
        score, code = torch.cat(list(sure), 1)[0], torch.cat(list(codes), 1)[0]
        boxes = clip_boxes_to_image(self.network.box_coder.decode_single(code, torch.cat(list(anchors))), size)
        found = []
        for kind in range(1, score.shape[1]):
            rows = torch.where(score[:, kind] > self.least)[0]
            best, order = score[rows, kind].topk(min(self.network.topk_candidates, len(rows)))
            rows = rows[order]
            found.append(_rows(boxes[rows], best, torch.full_like(rows, kind), level[rows]))
        return self._suppressed(torch.cat(found), self.network)

    def _suppressed(self, found: Tensor, heads: nn.Module) -> Tensor:
        """Of each class, none that overlaps a surer one; of these the surest that the knob lets through."""
        kept = batched_nms(found[:, :4], found[:, 4], found[:, 5], heads.nms_thresh)[: heads.detections_per_img]
        found = found[kept]
        return found[found[:, 4] > self.params["score"]]

    # --- two stages: Faster and Mask R-CNN -------------------------------------------------------
    def _two_stages(
        self, maps: tuple[FeatureMap, ...], images: ImageList, trace: NullTrace
    ) -> tuple[Tensor, list[Tensor]]:
        rpn, heads = self.network.rpn, self.network.roi_heads
        asked, moves, places = [], [], []
        for i, level in enumerate(maps, start=1):
            name, once = level.name, lambda m, i=i: m if i == 1 else None
            hidden = trace.step(
                f"hidden_{name}",
                "hidden",
                rpn.head.conv,
                level.tensor,
                formula=rf"H_{{{i}}}",
                module=once(rpn.head.conv),
            )
            for kept, key, op, part, letter in (
                (asked, "asked", "asked", rpn.head.cls_logits, "a"),
                (moves, "moves", "codes", rpn.head.bbox_pred, "t"),
            ):
                formula = rf"{letter}_{{{i}}}"
                kept.append(trace.step(f"{key}_{name}", op, part, hidden, formula=formula, module=once(part)))
            surest = lambda t: t.sigmoid().amax(1, keepdim=True)  # noqa: E731
            formula = rf"\mathrm{{max}}\,\sigma(a_{{{i}}})"
            places.append(trace.step(f"o{name[1:]}", "objectness", surest, asked[-1], formula=formula))
        tensors, sizes = [m.tensor for m in maps], images.image_sizes
        anchors = rpn.anchor_generator(images, tensors)

        def propose(*rows: Tensor) -> Tensor:
            scores, codes = list(rows[: len(maps)]), list(rows[len(maps) :])
            counts = [s[0].numel() for s in scores]
            scores, codes = concat_box_prediction_layers(scores, codes)
            boxes = rpn.box_coder.decode(codes, anchors).view(1, -1, 4)
            return rpn.filter_proposals(boxes, scores, sizes, counts)[0][0]

        proposals = trace.step("proposals", "propose", propose, *asked, *moves, formula="R")  # [m 4]
        pool = _fresh(heads.box_roi_pool)
        cut = lambda r, *levels: pool(self._named(levels), [r], sizes)  # noqa: E731
        formula = r"\mathrm{RoIAlign}(P_{k},R)"
        regions = trace.step("regions", "cut", cut, proposals, *tensors, formula=formula)  # [m 256 7 7]
        read = trace.step("read", "read", heads.box_head, regions, formula="F")  # [m 1024]
        said, moved = heads.box_predictor.cls_score, heads.box_predictor.bbox_pred
        logits = trace.step("classes", "classes", said, read, formula="S")  # [m classes]
        soft = lambda t: F.softmax(t, -1)  # noqa: E731
        sure = trace.step("sure", "softmax", soft, logits, formula=r"p=\mathrm{softmax}(S)")
        codes = trace.step("codes", "codes", moved, read, formula="T")  # [m classes*4]
        decode = lambda t, r: heads.box_coder.decode(t, [r])  # noqa: E731
        boxes = trace.step("boxes", "decode", decode, codes, proposals, formula="B")  # [m classes 4]
        keep = lambda b, p, r: self._chosen_regions(b, p, pool.map_levels([r]), sizes[0])  # noqa: E731
        return trace.step("kept", "suppress", keep, boxes, sure, proposals, formula=r"\mathrm{NMS}(B)"), places

    def _chosen_regions(self, boxes: Tensor, sure: Tensor, level: Tensor, size: tuple[int, int]) -> Tensor:
        """The surest of all regions and classes: [n 7] box, score, class, level.

        Args:
            boxes: [m classes 4]; sure: [m classes]; level: [m], out of which each region was cut.
        """
        boxes, sure = clip_boxes_to_image(boxes, size)[:, 1:], sure[:, 1:]  # nothing is found as background
        row, kind = torch.where(sure > self.least)
        found = _rows(boxes[row, kind], sure[row, kind], kind + 1, level[row])
        found = found[remove_small_boxes(found[:, :4], min_size=1e-2)]
        return self._suppressed(found, self.network.roi_heads)

    def _masks(self, kept: Tensor, maps: tuple[FeatureMap, ...], images: ImageList, trace: NullTrace) -> Tensor:
        """Return what of each box belongs to the thing in it, [n 1 28 28]."""
        heads, sizes = self.network.roi_heads, images.image_sizes
        pool = _fresh(heads.mask_roi_pool)
        cut = lambda k, *levels: pool(self._named(levels), [k[:, :4]], sizes)  # noqa: E731
        tensors = [m.tensor for m in maps]
        regions = trace.step("mask_regions", "cut", cut, kept, *tensors, formula=r"\mathrm{RoIAlign}(P_{k},B)")
        draw = nn.Sequential(heads.mask_head, heads.mask_predictor)
        drawn = trace.step("mask_scores", "draw_masks", draw, regions, formula="U")  # [n classes 28 28]
        own = lambda u, k: maskrcnn_inference(u, [k[:, 5].long()])[0]  # noqa: E731
        return trace.step("masks", "own_class", own, drawn, kept, formula=r"\sigma(U_{c})")  # [n 1 28 28]

    def _named(self, levels: Sequence[Tensor]) -> dict[str, Tensor]:
        """The levels under torchvision's own names, of which it cuts regions out of the numbered ones only."""
        taps = (*self.network.backbone.body.return_layers.values(), "pool")
        return dict(zip(taps, levels, strict=True))


def _rows(boxes: Tensor, sure: Tensor, kind: Tensor, level: Tensor) -> Tensor:
    return torch.cat((boxes, torch.stack((sure, kind.to(sure), level.to(sure)), 1)), 1)


def _fresh(pool: nn.Module) -> nn.Module:
    """torchvision keeps the scales of the first picture in its pooling; a copy without them keeps nothing of a run."""
    own = copy.copy(pool)
    own.scales = own.map_levels = None
    return own


def _frozen(body: nn.Module, eps: float) -> nn.Module:
    """Put frozen batch normalisation in the place of every other, as torchvision does in networks that are trained."""
    for name, child in body.named_children():
        if isinstance(child, nn.BatchNorm2d):
            body.register_module(name, FrozenBatchNorm2d(child.num_features, eps=eps))
        else:
            _frozen(child, eps)
    return body
