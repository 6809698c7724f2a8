"""In the wild: what each place of a picture looks at inside torchvision's ViT and Swin.

Paper: Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai, Unterthiner, Dehghani, Minderer, Heigold, Gelly, Uszkoreit,
Houlsby, "An Image is Worth 16x16 Words", ICLR 2021, arXiv 2010.11929; Liu, Lin, Cao, Hu, Wei, Zhang, Lin, Guo, "Swin
Transformer", ICCV 2021, arXiv 2103.14030; Swin Transformer V2, CVPR 2022, arXiv 2111.09883.
Idea: in ViT every patch asks all others, and one more token, which lies nowhere, gathers what is needed for the class.
In Swin a patch asks only those in its window; in every other block the windows are shifted by half, so that neighbours
in different windows meet. Windows that would reach over the picture's edge hold parts from opposite sides, which are
kept from seeing each other.
Differs from paper: the networks are torchvision's, weights and all. The picture is resized to the square that the
published weights take, so that nothing is cut off and windows come out even. `depth` says which block is looked into.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer
from torchvision.models.swin_transformer import ShiftedWindowAttention, SwinTransformerBlock, SwinTransformerBlockV2
from torchvision.models.vision_transformer import EncoderBlock

from fusionviz.fusion import Context
from fusionviz.records import AttentionMap, FeatureMap, FusionResult, Logits, Tokens
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.systems._wild import DEPTH, Frame, Wild, at_depth, names
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="wild_attention",
    family="wild",
    equation=r"A_i = \mathrm{softmax}(Q_i K_i^{\top} / \sqrt{d}), \quad Z = T + W_O\,[A_1 V_1; \ldots; A_h V_h]",
    year=2021,
    takes="image",
    align="none",
    params=(Param("net", "vit_b_16", choices=names("vit", "swin_t", "swin_s", "swin_b", "swin_v2"), refit=True), DEPTH),
    paper="Dosovitskiy, Beyer, Kolesnikov, Weissenborn, Zhai, Unterthiner, Dehghani, Minderer, Heigold, Gelly, "
    "Uszkoreit, Houlsby. An Image is Worth 16x16 Words. ICLR 2021",
    link="https://arxiv.org/abs/2010.11929",
    cite="Dosovitskiy et al., ICLR 2021 · arXiv 2010.11929",
)


@register(SPEC)
class WildAttention(Wild):
    """Show whom every place asks in one block of a transformer, head by head.

    Equation: A_i = softmax(Q_i K_i^T / sqrt(d)), Z = T + W_O [A_1 V_1; ...; A_h V_h]. Swin adds a learned number for
    how two places lie to each other; its second version compares directions, and normalises what comes out.
    Args:
        picture: [1 3 h w], normalised as the context says; resized to the square that the network takes.
    Returns:
        FusionResult; "fused" are the block's tokens [1 c h w] after its attention, "before" those that it was given,
        "classes" the network's own scores. ViT's attention "pairs" is [1 head n n], each row summing to 1, the class
        token before the patches. Swin has one for each window, "window_1_1" ... by row and column, the middle one
        first: [1 head 49 49], in blocks of tokens that lie together in the picture.
    Differs from paper: see the head of this file.
    Source: torchvision.models.vision_transformer, torchvision.models.swin_transformer
    """

    def see(
        self, picture: Tensor, levels: tuple[FeatureMap, ...], *, context: Context, trace: NullTrace
    ) -> FusionResult:
        side = self.preprocessing.crop_px
        frame = self.frame(picture, context, trace, size=(side, side))
        look = self._vit if isinstance(self.network, VisionTransformer) else self._swin
        outputs, attention, logits = look(frame, trace)
        outputs["classes"] = Logits("classes", logits[0], self.categories)
        return FusionResult(outputs, attention, trace.steps, provenance=self.provenance)

    # --- ViT -------------------------------------------------------------------------------------
    def _vit(self, frame: Frame, trace: NullTrace) -> tuple[dict, dict, Tensor]:
        net, blocks = self.network, list(self.network.encoder.layers)
        at = at_depth(self.params["depth"], len(blocks))
        block: EncoderBlock = blocks[at]
        side = net.image_size // net.patch_size
        cut = lambda x: net.conv_proj(x).flatten(2).transpose(1, 2)  # noqa: E731
        patches = trace.step("patches", "patches", cut, frame.tensor, formula=r"E\,I", module=net.conv_proj)
        begin = lambda t: torch.cat((net.class_token, t), 1) + net.encoder.pos_embedding  # noqa: E731
        t = trace.step("tokens", "codes", begin, patches, formula=r"[c; E\,I]+P")  # [1 n c]
        if at:
            t = trace.step("before", "blocks", nn.Sequential(*blocks[:at]), t, formula="T")
        x = trace.step("norm", "layer_norm", block.ln_1, t, formula=r"\mathrm{LN}(T)")
        mha = block.self_attention
        parts = zip(mha.in_proj_weight.chunk(3), mha.in_proj_bias.chunk(3), strict=True)
        q, k, v = (
            trace.step(
                key,
                key,
                lambda x, w=w, b=b: _split(F.linear(x, w, b), mha.num_heads),
                x,
                formula=rf"{m}=W_{m}\,\mathrm{{LN}}(T)",
                module=w,
            )  # [1 head n d]
            for key, m, (w, b) in zip(("queries", "keys", "values"), "QKV", parts, strict=True)
        )
        weigh = lambda q, k: torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1]), -1)  # noqa: E731
        formula = r"A_i=\mathrm{softmax}(Q_i K_i^{\top}/\sqrt{d})"
        a = trace.step("weight", "attend", weigh, q, k, formula=formula, role="weight")  # [1 head n n]
        o = self._answered(a, v, mha.out_proj, trace)
        z = trace.step("fused", "add", torch.add, o, t, formula="Z=T+O", role="fused")  # [1 n c]

        def finish(z: Tensor) -> Tensor:
            y = z + block.mlp(block.ln_2(z))
            return net.heads(net.encoder.ln(nn.Sequential(*blocks[at + 1 :])(y))[:, 0])

        logits = trace.step("classes", "layers", finish, z, formula=r"\ell")  # [1 classes]
        every = (
            self._tokens("class_token", frame, (1, 1), net.image_size),
            self._tokens("patches", frame, (side, side), net.patch_size),
        )
        pairs = AttentionMap("pairs", a, "b head q k", "softmax", "rows", "patches", "row", queries=every, keys=every)
        grid = lambda t: t[:, 1:].transpose(1, 2).unflatten(2, (side, side))  # noqa: E731 - the class token lies nowhere
        half = net.patch_size / 2
        maps = {n: frame.map(n, grid(m), net.patch_size, half) for n, m in (("fused", z), ("before", t))}
        return maps, {"pairs": pairs}, logits

    # --- Swin ------------------------------------------------------------------------------------
    def _swin(self, frame: Frame, trace: NullTrace) -> tuple[dict, dict, Tensor]:
        chain = [m for stage in self.network.features for m in (stage if _is_stage(stage) else (stage,))]
        blocks = [i for i, m in enumerate(chain) if isinstance(m, SwinTransformerBlock)]
        at = blocks[at_depth(self.params["depth"], len(blocks))]
        block, later = chain[at], isinstance(chain[at], SwinTransformerBlockV2)
        t = trace.step("before", "blocks", nn.Sequential(*chain[:at]), frame.tensor, formula="T")  # [1 h w c]
        x = t if later else trace.step("norm", "layer_norm", block.norm1, t, formula=r"\mathrm{LN}(T)")
        part = block.attn
        windows = _Windows(tuple(t.shape[1:3]), tuple(part.window_size), tuple(part.shift_size))
        w = trace.step("windows", "windows", windows.cut, x, formula=r"T_w")  # [windows 49 c]
        heads, width = part.num_heads, t.shape[-1]
        bias = _bias(part)
        q, k, v = (
            trace.step(
                key,
                key,
                lambda x, n=n: _split(
                    F.linear(x, part.qkv.weight[n * width : (n + 1) * width], bias[n * width : (n + 1) * width]), heads
                ),
                w,
                formula=rf"{m}=W_{m}\,T_w",
                module=part.qkv.weight[n * width : (n + 1) * width],
            )  # [windows head 49 d]
            for n, (key, m) in enumerate(zip(("queries", "keys", "values"), "QKV", strict=True))
        )
        weigh = lambda q, k: torch.softmax(_scores(part, q, k) + windows.masked(q), -1)  # noqa: E731
        formula = (
            r"A_i=\mathrm{softmax}(\tau_i\cos(Q_i,K_i)+B)"
            if later
            else r"A_i=\mathrm{softmax}(Q_i K_i^{\top}/\sqrt{d}+B)"
        )
        a = trace.step("weight", "attend", weigh, q, k, formula=formula, role="weight")  # [windows head 49 49]
        o = self._answered(a, v, part.proj, trace)
        o = trace.step("joined", "join_windows", windows.join, o, formula="O")  # [1 h w c]
        if later:
            o = trace.step("norm", "layer_norm", block.norm1, o, formula=r"\mathrm{LN}(O)")
        z = trace.step("fused", "add", torch.add, t, o, formula="Z=T+O", role="fused")  # [1 h w c]

        def finish(z: Tensor) -> Tensor:
            y = z + (block.norm2(block.mlp(z)) if later else block.mlp(block.norm2(z)))
            net = self.network
            return net.head(net.flatten(net.avgpool(net.permute(net.norm(nn.Sequential(*chain[at + 1 :])(y))))))

        logits = trace.step("classes", "layers", finish, z, formula=r"\ell")  # [1 classes]
        stride = frame.tensor.shape[-1] / t.shape[2]
        place = lambda name, t: frame.map(name, t.permute(0, 3, 1, 2), stride, stride / 2)  # noqa: E731
        rows, columns = windows.count
        middle = (rows // 2, columns // 2)
        order = sorted(((r, c) for r in range(rows) for c in range(columns)), key=lambda rc: rc != middle)
        attention = {}
        for r, c in order:
            name, (pieces, index) = f"window_{r + 1}_{c + 1}", windows.pieces(r, c)
            index = index.to(a.device)
            weights = a[r * columns + c][:, index][:, :, index][None]  # [1 head 49 49], piece by piece
            tokens = tuple(
                Tokens("patches", size, place("", t).stride, self._corner(frame, first, stride))
                for first, size in pieces
            )
            attention[name] = AttentionMap(
                name, weights, "b head q k", "softmax", "rows", "window", "row", queries=tokens, keys=tokens
            )
        return {"fused": place("fused", z), "before": place("before", t)}, attention, logits

    # --- both ------------------------------------------------------------------------------------
    @staticmethod
    def _answered(a: Tensor, v: Tensor, mix: nn.Module, trace: NullTrace) -> Tensor:
        gather = lambda a, v: (a @ v).transpose(1, 2).flatten(2)  # noqa: E731
        u = trace.step("heads", "heads", gather, a, v, formula=r"[A_1 V_1;\ldots;A_h V_h]")  # [b n c]
        return trace.step("mixed", "mix_heads", mix, u, formula=r"O=W_O\,[A_1 V_1;\ldots;A_h V_h]")

    @staticmethod
    def _tokens(level: str, frame: Frame, size: tuple[int, int], stride: float) -> Tokens:
        stride = tuple(stride * r for r in frame.ratio)
        return Tokens(level, size, stride, tuple(s / 2 for s in stride))

    @staticmethod
    def _corner(frame: Frame, first: tuple[int, int], stride: float) -> tuple[float, float]:
        """Return the centre of a cell in pixels of the picture."""
        return tuple((n + 0.5) * stride * r for n, r in zip(first, frame.ratio, strict=True))


class _Windows:
    """How the tokens of a map [1 h w c] are cut into windows, shifted or not.

    Args:
        size: (h, w) of the map, whole windows; window: of one window; shift: by how many cells they are moved; a
            window that is as large as the map stays where it is.
    """

    def __init__(self, size: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> None:
        self.size, self.window = size, window
        self.shift = tuple(0 if w >= n else s for n, w, s in zip(size, window, shift, strict=True))
        self.count = tuple(n // w for n, w in zip(size, window, strict=True))

    def cut(self, t: Tensor) -> Tensor:
        """[1 h w c] -> [windows tokens c], row by row."""
        t = torch.roll(t, tuple(-s for s in self.shift), (1, 2))
        (h, w), (rows, columns) = self.window, self.count
        return t.view(rows, h, columns, w, -1).permute(0, 2, 1, 3, 4).reshape(rows * columns, h * w, -1)

    def join(self, t: Tensor) -> Tensor:
        """[windows tokens c] -> [1 h w c]."""
        (h, w), (rows, columns) = self.window, self.count
        t = t.view(rows, columns, h, w, -1).permute(0, 2, 1, 3, 4).reshape(1, *self.size, -1)
        return torch.roll(t, self.shift, (1, 2))

    def masked(self, like: Tensor) -> Tensor:
        """Return what is added to the scores [windows 1 tokens tokens]: -100 between parts that lie far apart."""
        parts = torch.zeros(self.size, device=like.device)
        for dim, (n, w, s) in enumerate(zip(self.size, self.window, self.shift, strict=True)):
            at = torch.arange(n, device=like.device)
            band = (at >= n - w).to(like.dtype) + (at >= n - s).to(like.dtype) * (s > 0)
            parts = parts + band.view((-1, 1) if dim == 0 else (1, -1)) * 3**dim
        parts = self._plain().cut(parts[None, :, :, None])[..., 0]  # [windows tokens]
        return -100.0 * (parts[:, None] != parts[:, :, None])[:, None].to(like.dtype)

    def pieces(self, row: int, column: int) -> tuple[list[tuple[tuple[int, int], tuple[int, int]]], Tensor]:
        """Return the parts of a window that lie together in the picture, each as its first cell and its size, and
        the order [tokens] that puts the window's tokens part by part."""
        spans = []  # of each axis: (first cell in the picture, first in the window, length)
        for at, n, w, s in zip((row, column), self.size, self.window, self.shift, strict=True):
            first = at * w + s
            inside = min(w, n - first)
            spans.append([(first, 0, inside), *([(0, inside, w - inside)] if inside < w else [])])
        index = torch.arange(self.window[0] * self.window[1]).view(self.window)
        found, order = [], []
        for y, at_y, h in spans[0]:
            for x, at_x, w in spans[1]:
                found.append(((y, x), (h, w)))
                order.append(index[at_y : at_y + h, at_x : at_x + w].flatten())
        return found, torch.cat(order)

    def _plain(self) -> _Windows:
        return _Windows(self.size, self.window, (0, 0))


def _scores(part: ShiftedWindowAttention, q: Tensor, k: Tensor) -> Tensor:
    """Return how queries meet keys, with what is learned of how two places lie to each other: [windows head n n]."""
    if hasattr(part, "logit_scale"):
        met = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-2, -1)
        met = met * torch.clamp(part.logit_scale, max=math.log(100.0)).exp()
    else:
        met = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    return met + part.get_relative_position_bias()


def _bias(part: ShiftedWindowAttention) -> Tensor:
    """Return the biases of queries, keys and values; the second version has none for the keys."""
    if not hasattr(part, "logit_scale"):
        return part.qkv.bias
    third = part.qkv.bias.numel() // 3
    return torch.cat((part.qkv.bias[:third], torch.zeros_like(part.qkv.bias[:third]), part.qkv.bias[2 * third :]))


def _split(t: Tensor, heads: int) -> Tensor:
    """[b n c] -> [b head n d]."""
    return t.unflatten(-1, (heads, -1)).transpose(1, 2)


def _is_stage(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and isinstance(module[0], SwinTransformerBlock)
