"""Show, Attend and Tell: a sentence about the picture, and for every word a look at the places that it is about.

Paper: Xu, Ba, Kiros, Cho, Courville, Salakhutdinov, Zemel, Bengio, "Show, Attend and Tell: Neural Image Caption
Generation with Visual Attention", ICML 2015, arXiv 1502.03044.
Idea: before each word the decoder asks every place of a map how much it matters now. Soft attention takes the mean of
all places by these weights; hard attention draws one place by them. The weights are a picture of their own, one for
each word: attention over time.
Differs from paper: what is annotated are not VGG's 14x14 places but the places of s8, made of two levels, of the
picture's colours (the backbone was trained to forget them) and of where a place is. The sentence names the things from
left to right, each as colour and kind, then ends: of 21 words. One set of weights, trained with soft attention, serves
both kinds; the paper trains hard attention apart, by REINFORCE. In training every annotation also has to name the
thing at its place, through a layer that is not kept; the paper fits all by the sentence alone; and a second round
follows, in which looks may be sharper. Scores go through tanh and the context through a scalar gate, as in the
released code; a copy that is widely used has ReLU and a gate for each channel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.fusion import Context
from fusionviz.records import AttentionMap, FeatureMap, FusionResult, Words
from fusionviz.registry import FusionSpec, Param, register
from fusionviz.scenes.colours import COLOURS
from fusionviz.scenes.kinds import KINDS
from fusionviz.systems._base import System
from fusionviz.trace import NullTrace

WORDS = ("end", *COLOURS, *KINDS)
"""What it can say; the end is position 0. Before the first word stands one more, which is never said."""
END, START = 0, len(WORDS)
LONGEST = 19
"""Nine things, a colour and a kind each, and the end."""

WIDTH, STATE, WORD, SCORES = 96, 80, 32, 64

SPEC = FusionSpec(
    key="show_attend_tell",
    family="place_time",
    equation=r"\hat{z}_t = \beta_t \sum_i \alpha_{ti} a_i, "
    r"\quad \alpha_t = \mathrm{softmax}_i \frac{v^{\top} \tanh(W_a a_i + W_h h_{t-1})}{\tau}",
    year=2015,
    takes="image",
    align="none",
    params=(
        Param("attention", "soft", choices=("soft", "hard")),
        Param("temperature", 1.0, low=0.0, high=20.0, step=0.05),
        Param("maps", "both", choices=("both", "low", "high")),
        Param("doubly", True, refit=True),
    ),
    paper="Xu, Ba, Kiros, Cho, Courville, Salakhutdinov, Zemel, Bengio. Show, Attend and Tell: Neural Image Caption "
    "Generation with Visual Attention. ICML 2015",
    link="https://arxiv.org/abs/1502.03044",
    cite="Xu et al., ICML 2015 · arXiv 1502.03044",
)


@dataclass(frozen=True)
class Told:
    """What was said about a batch of pictures, up to the longest sentence in it.

    Attributes:
        words: positions in WORDS [b t]; what stands behind an end means nothing.
        logits: of every word that could have been said [b t words].
        attention: [b t places], sums to 1 over the places.
        looked: the places that hard attention drew [b t], else None.
    """

    words: Tensor
    logits: Tensor
    attention: Tensor
    looked: Tensor | None


@register(SPEC)
class ShowAttendTell(System):
    """Name the things of a picture from left to right, and show where each word was looked for.

    Soft attention is a mean and can be differentiated; hard attention is a draw and cannot, but its mean over many
    draws is the soft one. The temperature goes from one to the other: at 0 all weight lies on the best place, at high
    values on all alike.

    Equation: alpha_t = softmax((v tanh(W_a a_i + W_h h)) / tau); z = beta_t sum_i alpha_ti a_i, beta_t = sigma(f h);
    h_t = LSTM([E y, z], h); p(y_t) = softmax(W_o (E y + W_s h_t + W_z z)), y the word before.
    Args:
        levels: s8 and s16; the annotations a_i lie on the places of s8.
    Returns:
        FusionResult; "words" is what was said, with the places drawn if attention is hard; "fused" is the map of
        annotations [1 96 h w]; attention "words" is [1 t h w], one map for each word, sums to 1.
    Differs from paper: see the head of this file.
    Source: arXiv 1502.03044
    """

    takes_levels = ("s8", "s16")

    def setup(self, attention: str, temperature: float, maps: str, doubly: bool) -> None:
        low, high = (info.channels for info in self.infos)
        self.low = nn.Sequential(nn.Conv2d(low, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH))
        self.high = nn.Sequential(nn.Conv2d(high, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH))
        self.colour = nn.Sequential(*_conv(3, 24), *_conv(24, 48), *_conv(48, WIDTH)[:-1])
        self.place = nn.Conv2d(2, WIDTH, 1, bias=False)
        self.around = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 5, padding=2, groups=WIDTH), nn.Conv2d(WIDTH, WIDTH, 1, bias=False)
        )
        self.settle = nn.BatchNorm2d(WIDTH)
        self.start = nn.Linear(WIDTH, 2 * STATE)
        self.keys, self.asks = nn.Linear(WIDTH, SCORES), nn.Linear(STATE, SCORES, bias=False)
        self.score = nn.Linear(SCORES, 1, bias=False)
        self.gate = nn.Linear(STATE, 1)
        self.embed = nn.Embedding(len(WORDS) + 1, WORD)
        self.cell = nn.LSTMCell(WORD + WIDTH, STATE)
        self.from_state, self.from_context = nn.Linear(STATE, WORD), nn.Linear(WIDTH, WORD, bias=False)
        self.out = nn.Linear(WORD, len(WORDS))

    # --- what is looked at -----------------------------------------------------------------------
    def annotate(
        self, picture: Tensor, low: Tensor, high: Tensor, trace: NullTrace, keep: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Return the annotations [b 96 h w] at the places of the low level.

        Args:
            picture: [b 3 H W], normalised; low, high: [b c h w] of any sizes.
            keep: what each level's term is multiplied by, [b 1 1 1] each; training leaves some out. None: the knob.
        """
        size, maps = tuple(low.shape[-2:]), self.params["maps"]
        small = lambda t: F.interpolate(t, size=size, mode="bilinear", align_corners=False)  # noqa: E731
        picture = trace.input("picture", picture, formula="I")
        terms = []
        if keep is not None or maps != "high":
            x = trace.input("low", low, formula="X", role="low")
            term = trace.step("low_project", "project_norm", self.low, x, formula="W_x X", role="low")
            terms.append(term if keep is None else term * keep[0])  # [b 96 h w]
        if keep is not None or maps != "low":
            y = trace.input("high", high, formula="Y", role="high")
            term = trace.step("high_project", "project_norm", self.high, y, formula="W_y Y", role="high")
            term = trace.step("high_resize", "resize_bilinear", small, term, formula=r"\uparrow W_y Y", role="high")
            terms.append(term if keep is None else term * keep[1])  # [b 96 h w]
        colour = trace.step("colour", "colours", self.colour, picture, formula=r"\phi(I)")
        if tuple(colour.shape[-2:]) != size:  # a backbone that rounds sizes another way
            colour = trace.step("colour_resize", "resize_bilinear", small, colour, formula=r"\phi(I)")
        where = trace.input("coordinates", _coordinates(size, low), formula="p")
        where = trace.step("place", "positions", self.place, where, formula="W_p p")  # [1 96 h w]
        total = lambda *t: F.relu(sum(t[1:], t[0]))  # noqa: E731 - all that is known of a place, in one vector
        f = trace.step("sum", "add_relu", total, *terms, colour, where, formula=r"f=\delta(\Sigma)")
        mix = lambda t: F.relu(self.settle(t + self.around(t)))  # noqa: E731 - a place hears of its neighbours
        return trace.step(
            "fused", "around", mix, f, formula="a", role="fused", module=nn.ModuleList((self.around, self.settle))
        )  # [b 96 h w]

    # --- what is said ----------------------------------------------------------------------------
    def tell(
        self,
        annotations: Tensor,
        *,
        given: Tensor | None = None,
        generator: torch.Generator | None = None,
        trace: NullTrace | None = None,
    ) -> Told:
        """Say a sentence about every picture, the likeliest word each time, until all have said the end.

        Args:
            annotations: [b 96 h w].
            given: words [b t] to be said instead, as in training.
            generator: of hard attention's draws: one number for each word, the same for all pictures.
            trace: sees the first word; the others run the same steps.
        """
        trace = trace or NullTrace()
        flat = lambda t: t.flatten(2).transpose(1, 2)  # noqa: E731
        mean = lambda t: torch.tanh(self.start(t.mean(1)))  # noqa: E731
        a = trace.step("places", "tokens", flat, annotations, formula="a_i")  # [b places 96]
        keys = trace.step("keys", "keys", self.keys, a, formula="W_a a_i")  # [b places 64]
        state = trace.step("start", "start", mean, a, formula="h_0", module=self.start)  # [b 160], h and c
        before = trace.input("before", self.embed.weight[START].expand(len(a), -1), formula="E y_0")
        logits, weights, looked, words = [], [], [], []
        ended = torch.zeros(len(a), dtype=torch.bool, device=a.device)
        for t in range(LONGEST if given is None else given.shape[1]):
            alpha = self.attend(keys, state, trace)  # [b places]
            context, place = self._look(a, alpha, generator, trace)
            state, scores = self._speak(context, before, state, trace)
            word = scores.argmax(1) if given is None else given[:, t]
            for kept, value in zip((logits, weights, looked, words), (scores, alpha, place, word), strict=True):
                kept.append(value)
            ended = ended | (word == END)
            if given is None and bool(ended.all()):
                break
            before, trace = self.embed(word), NullTrace()
        drawn = None if looked[0] is None else torch.stack(looked, 1)
        return Told(torch.stack(words, 1), torch.stack(logits, 1), torch.stack(weights, 1), drawn)

    def attend(self, keys: Tensor, state: Tensor, trace: NullTrace) -> Tensor:
        """Return how much each place matters now [b places]; sums to 1."""
        tau = self.params["temperature"]
        score = lambda k, s: self.score(torch.tanh(k + self.asks(s[:, None, :STATE]))).squeeze(-1)  # noqa: E731
        formula = r"e_{ti}=v^{\top}\tanh(W_a a_i+W_h h_{t-1})"
        e = trace.step(
            "scores", "tanh_scores", score, keys, state, formula=formula, module=nn.ModuleList((self.asks, self.score))
        )  # [b places]
        soften = lambda t: sharpened(t, tau)  # noqa: E731
        return trace.step(
            "weights", "softmax", soften, e, formula=r"\alpha_t=\mathrm{softmax}(e_t/\tau)", role="weight"
        )

    def _look(
        self, a: Tensor, alpha: Tensor, generator: torch.Generator | None, trace: NullTrace
    ) -> tuple[Tensor, Tensor | None]:
        """Return what is seen [b 96], and the place of hard attention [b]."""
        if self.params["attention"] == "soft":
            mean = lambda w, a: torch.einsum("bi,bid->bd", w, a)  # noqa: E731
            return trace.step("context", "weighted_mean", mean, alpha, a, formula=r"z_t=\Sigma_i\,\alpha_{ti}a_i"), None
        place = drawn(alpha, torch.rand((), generator=generator))  # [b]
        pick = lambda _, a: a[torch.arange(len(a), device=a.device), place]  # noqa: E731
        return trace.step("context", "drawn_place", pick, alpha, a, formula=r"z_t=a_s,\ s\sim\alpha_t"), place

    def _speak(self, z: Tensor, before: Tensor, state: Tensor, trace: NullTrace) -> tuple[Tensor, Tensor]:
        """Return the next state [b 160] and the scores of all words [b words]."""
        gate = lambda s: torch.sigmoid(self.gate(s[:, :STATE]))  # noqa: E731
        beta = trace.step("gate", "gate", gate, state, formula=r"\beta_t=\sigma(f h_{t-1})", module=self.gate)  # [b 1]
        z = trace.step("gated", "multiply", torch.mul, z, beta, formula=r"\beta_t z_t")  # [b 96]
        step = lambda y, z, s: torch.cat(self.cell(torch.cat((y, z), 1), s.chunk(2, 1)), 1)  # noqa: E731
        formula = r"h_t=\mathrm{LSTM}([E y;z_t],h_{t-1})"
        state = trace.step("state", "lstm", step, before, z, state, formula=formula, module=self.cell)
        say = lambda y, z, s: self.out(y + self.from_context(z) + self.from_state(s[:, :STATE]))  # noqa: E731
        formula = r"W_o(E y+W_s h_t+W_z z_t)"
        said = nn.ModuleList((self.out, self.from_state, self.from_context))
        return state, trace.step("word", "word", say, before, z, state, formula=formula, module=said)

    def see(
        self, picture: Tensor, levels: tuple[FeatureMap, ...], *, context: Context, trace: NullTrace
    ) -> FusionResult:
        low, high = levels
        a = self.annotate(picture, low.tensor, high.tensor, trace)
        generator = context.generator or torch.Generator().manual_seed(self.seed)
        told = self.tell(a, generator=generator, trace=trace)
        said = told.words[0].tolist()
        count = said.index(END) if END in said else len(said)
        chances = told.logits[0, :count].softmax(1).gather(1, told.words[0, :count, None])[:, 0]
        places = None if told.looked is None else self._places(told.looked[0, :count], low)
        words = Words("words", tuple(WORDS[w] for w in said[:count]), chances, places)
        maps = told.attention[:, :count].unflatten(2, low.size)  # [1 t h w]
        weight = AttentionMap(
            "words", maps, "b t h w", "softmax", "words", "both", "places", stride=low.stride, offset=low.offset
        )
        fused = FeatureMap("fused", a, low.stride, low.offset, low.stage)
        attention = {"words": weight} if count else {}  # a picture of which nothing was said has no row
        return FusionResult({"fused": fused, "words": words}, attention, trace.steps, provenance=self.provenance)

    @staticmethod
    def _places(index: Tensor, low: FeatureMap) -> Tensor:
        """Return the middles of cells [t 2], (y, x) in pixels of the network's input."""
        cells = torch.stack((index // low.size[1], index % low.size[1]), 1).float()
        return cells * cells.new_tensor(low.stride) + cells.new_tensor(low.offset)


def sharpened(scores: Tensor, temperature: float) -> Tensor:
    """Return the softmax of scores [b places] at a temperature; at 0 all weight lies on the first of the highest."""
    if temperature == 0:
        return F.one_hot(scores.argmax(-1), scores.shape[-1]).to(scores.dtype)
    return (scores / temperature).softmax(-1)


def drawn(weights: Tensor, number: Tensor) -> Tensor:
    """Return the place [b] at which weights [b places], summed up, pass a number drawn from [0, 1)."""
    reached = weights.cumsum(-1)
    return (reached <= number.to(reached) * reached[..., -1:]).sum(-1).clamp_max(weights.shape[-1] - 1)


def doubly_stochastic(attention: Tensor, spoken: Tensor) -> Tensor:
    """Return the mean over places and pictures of (1 - sum_t alpha_ti)^2: 0 where every place was looked at once.

    Args:
        attention: [b t places].
        spoken: [b t], 1 for words up to the end, 0 behind it.
    """
    return (1 - (attention * spoken[..., None]).sum(1)).square().mean()


def _conv(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()


def _coordinates(size: tuple[int, int], like: Tensor) -> Tensor:
    """Return (y, x) in [-1, 1] of the middles of h x w cells, [1 2 h w]."""
    y, x = ((torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) * 2 / n - 1 for n in size)
    return torch.stack(torch.meshgrid(y, x, indexing="ij"))[None]
