"""What the systems that take a phrase share: how they see, how they read, and how they point.

A system's own file holds what the systems differ in: where picture and phrase meet. All are trained alike, on masks
of what phrases mean; and while they learn, what is seen has to tell size, colour, texture and kind of every thing, see
`training.grounding`. No paper of theirs asks for that. By masks alone they stayed deaf to colour words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.errors import ParameterError
from fusionviz.fusion import Context
from fusionviz.fusion._base import resize
from fusionviz.records import AttentionMap, FeatureMap, FusionResult, LevelInfo
from fusionviz.scenes import VOCABULARY, words_of
from fusionviz.systems._base import System
from fusionviz.trace import NullTrace

WIDTH = 48
"""Channels of what is seen."""
TEXT = 64
"""Numbers that a phrase becomes."""
_WORD, _COLOUR = 32, 32


def numbers(phrases: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
    """Return the words of phrases as numbers [b t], counted from 1 in the vocabulary; 0 behind the last word.

    Raises:
        ParameterError: for a word outside the vocabulary; it says which there are.
    """
    rows = [[1 + VOCABULARY.index(word) for word in words_of(phrase)] for phrase in phrases]
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)


class Reading(nn.Module):
    """Phrase -> one vector: every word a vector, read in order by a GRU, whose last state it is."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(VOCABULARY) + 1, _WORD, padding_idx=0)
        self.read = nn.GRU(_WORD, TEXT, batch_first=True)

    def forward(self, words: Tensor, trace: NullTrace) -> Tensor:
        """Return [b text] for words [b t]; what stands behind a phrase's last word changes nothing."""
        vectors = trace.step("words", "phrase_words", self.words, words, formula=r"e_{t}", role="high")  # [b t e]

        def last(vectors: Tensor, words: Tensor) -> Tensor:
            states, _ = self.read(vectors)
            return states[torch.arange(len(words)), (words > 0).sum(1) - 1]

        formula = r"Y=\mathrm{GRU}(e_{1},\ldots,e_{t})"
        return trace.step("text", "phrase_read", last, vectors, words, formula=formula, role="high", module=self.read)


class Seeing(nn.Module):
    """Picture and levels -> one map at the finest level's places.

    Colours are words, and the network behind the levels was trained to look past colour: so the picture itself is
    seen once more. "Leftmost" is a word too, so every place is told where it is.
    """

    def __init__(self, levels: Sequence[LevelInfo]) -> None:
        super().__init__()
        self.names = tuple(level.name for level in levels)
        self.project = nn.ModuleDict(
            {v.name: nn.Sequential(nn.Conv2d(v.channels, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH)) for v in levels}
        )
        self.colour = nn.Sequential(
            nn.Conv2d(3, _COLOUR, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(_COLOUR),
            nn.ReLU(),
            nn.Conv2d(_COLOUR, WIDTH, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(WIDTH),
        )
        self.place = nn.Conv2d(2, WIDTH, 1)
        self.mix = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH))

    def forward(self, picture: Tensor, levels: Sequence[Tensor], trace: NullTrace) -> Tensor:
        """Return [b width h w] at the size of the first level."""
        size, parts = tuple(levels[0].shape[-2:]), []
        bring = lambda t: resize(t, size)  # noqa: E731
        for i, (name, level) in enumerate(zip(self.names, levels, strict=True), start=1):
            part = trace.step(
                f"project_{name}", "see_project", self.project[name], level, formula=rf"W_{{{i}}}C_{{{i}}}"
            )
            if tuple(part.shape[-2:]) != size:
                formula = rf"\uparrow W_{{{i}}}C_{{{i}}}"
                part = trace.step(f"bring_{name}", "resize_bilinear", bring, part, formula=formula)
            parts.append(part)  # [b width h w]
        colour = lambda t: bring(self.colour(t))  # noqa: E731 - sizes differ by a row where the picture's is odd
        parts.append(trace.step("colour", "see_colours", colour, picture, formula=r"\phi(I)", module=self.colour))
        places = trace.input("places", coordinates(size, picture), formula=r"P")  # [1 2 h w]
        parts.append(trace.step("place", "linear", self.place, places, formula=r"W_{P}P"))  # [1 width h w]
        total = lambda *maps: F.relu(sum(maps))  # noqa: E731
        formula = r"S=\delta(\sum_{i} W_{i}C_{i}+\phi(I)+W_{P}P)"
        seen = trace.step("sum", "see_sum", total, *parts, formula=formula)
        return trace.step("seen", "see_mix", self.mix, seen, formula=r"X=\mathrm{BN}(K\ast S)", role="low")


def coordinates(size: tuple[int, int], like: Tensor) -> Tensor:
    """Return (x, y) of every place, [1 2 h w], from -1 at the left and top edge to 1 at the right and bottom one."""
    y, x = (((torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) * 2 / n) - 1 for n in size)
    return torch.stack((x.expand(size), y.unsqueeze(1).expand(size))).unsqueeze(0)


class Pointing(nn.Module):
    """A map -> scores at twice its resolution, after a look around and one at the whole.

    A superlative compares: whether a thing is the leftmost depends on all others. So every place also hears the
    greatest value that each channel has anywhere.
    """

    def __init__(self, channels: int, scores: int = 1) -> None:
        super().__init__()
        self.near = nn.Sequential(
            nn.Conv2d(channels, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()
        )
        self.far = nn.Linear(WIDTH, WIDTH, bias=False)
        self.join = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH))
        self.tell = nn.Conv2d(WIDTH, 4 * scores, 1)

    def forward(self, fused: Tensor, trace: NullTrace, *, letter: str = "Z") -> Tensor:
        """Return [b scores 2h 2w]."""
        start = lambda t: self.near(F.relu(t))  # noqa: E731
        formula = rf"H=\delta(\mathrm{{BN}}(K_{{1}}\ast\delta({letter})))"
        near = trace.step("near", "point_near", start, fused, formula=formula, module=self.near)  # [b width h w]
        peak = trace.step("peak", "pool_max", lambda t: t.amax((2, 3)), near, formula=r"m=\max H")  # [b width]
        far = trace.step("far", "linear", self.far, peak, formula=r"W_{m}\,m")  # [b width]
        compare = lambda near, far: F.relu(self.join(near) + far[..., None, None])  # noqa: E731
        formula = r"C=\delta(\mathrm{BN}(K_{2}\ast H)+W_{m}\,m)"
        joined = trace.step("compare", "point_compare", compare, near, far, formula=formula, module=self.join)
        tell = lambda t: F.pixel_shuffle(self.tell(t), 2)  # noqa: E731 - four scores of a place become four places
        return trace.step(
            "scores", "point_tell", tell, joined, formula=r"s=W_{s}\,C", module=self.tell
        )  # [b scores 2h 2w]


@dataclass(frozen=True)
class Met:
    """What came of picture and phrase.

    Attributes:
        fused: the map in which they met.
        logits: [b 1 2h 2w], before the sigmoid: is this place part of what the phrase means?
        attention: weights, those with places at the places of `fused`.
        aligned: the two maps that met, [b c h w] each, where the phrase became a map.
        fine: whether `fused` has the places of the answer, and not those of the finest level.
    """

    fused: Tensor
    logits: Tensor
    attention: tuple[AttentionMap, ...] = ()
    aligned: tuple[Tensor, Tensor] | None = None
    fine: bool = False


class PhraseSystem(System):
    """A system that lights up what a phrase means. Subclasses write `build` and `meet`."""

    def setup(self, **params: object) -> None:
        self.seeing, self.reading = Seeing(self.infos), Reading()
        self.build(**params)

    def build(self, **params: object) -> None:
        """Build what is the system's own."""
        raise NotImplementedError(type(self).__name__)

    def meet(self, x: Tensor, y: Tensor, trace: NullTrace) -> Met:
        """Return what comes of the picture x [b width h w] and the phrase y [b text]."""
        raise NotImplementedError(type(self).__name__)

    def answer(self, picture: Tensor, levels: Sequence[Tensor], words: Tensor, trace: NullTrace) -> Met:
        """Return what comes of pictures [b 3 h w], their levels, and a phrase for each as `numbers` [b t]."""
        return self.meet(self.seeing(picture, levels, trace), self.reading(words, trace), trace)

    def see(
        self, picture: Tensor, levels: tuple[FeatureMap, ...], *, context: Context, trace: NullTrace
    ) -> FusionResult:
        """Return the map in which they meet, "fused", and the probability that a place is meant, "answer".

        Raises:
            ParameterError: without a phrase, or for a word outside the vocabulary; it says which words there are.
        """
        phrase = (context.phrase or "").lower()
        if not phrase.strip():
            raise ParameterError("scene.phrase", method=self.spec.key, known=", ".join(VOCABULARY))
        words = numbers([phrase], picture.device).expand(len(picture), -1)
        picture = trace.input("picture", picture, formula="I", role="low")
        maps = [trace.input(m.name, m.tensor, formula=rf"C_{{{i}}}") for i, m in enumerate(levels, start=1)]
        met = self.answer(
            picture, maps, trace.input("phrase", words, formula=r"w_{1},\ldots,w_{t}", role="high"), trace
        )
        sure = trace.step("answer", "sigmoid", torch.sigmoid, met.logits, formula=r"\sigma(s)")
        finest = levels[0]
        grid = {"stride": finest.stride, "offset": finest.offset, "stage": finest.stage}
        # Its scores were compared with pixels as if its cells shared out the picture, so that is where they lie.
        stride = tuple(s / 2 for s in finest.stride)
        fine = {"stride": stride, "offset": tuple(s / 2 for s in stride), "stage": finest.stage}
        outputs = {
            "fused": FeatureMap("fused", met.fused, **(fine if met.fine else grid)),
            "answer": FeatureMap("answer", sure, **fine),
        }
        attention = {
            a.name: replace(a, stride=grid["stride"], offset=grid["offset"]) if "w" in a.axes.split() else a
            for a in met.attention
        }
        aligned = met.aligned and tuple(
            FeatureMap(name, t, **grid) for name, t in zip(("low", "high"), met.aligned, strict=True)
        )
        return FusionResult(outputs, attention, trace.steps, aligned, provenance=self.provenance)
