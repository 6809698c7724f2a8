"""RAM: look at a few glimpses instead of the whole picture, and let the network choose where.

Paper: Mnih, Heess, Graves, Kavukcuoglu, "Recurrent Models of Visual Attention", NeurIPS 2014, arXiv 1406.6247.
Idea: a glimpse is sharp in the middle and coarse around it, as an eye sees. What it shows and where it was are added;
a state remembers all glimpses, and says what the thing is and where to look next. A place is a draw, through which no
gradient runs: it is learned by REINFORCE, from whether the answer was right. Hard attention over place and time.
Differs from paper: convolutions see the windows where the paper has a fully connected layer. They begin as the first
layers of the shipped network and are taught to see before the walk is learned, and stay as they are from then on; in
training the state also has to tell where the thing is; see `training/glimpsing`. A window that reaches over the edge
sees the edge's pixels again. The reward is the chance of the right answer, each further glimpse counting half as much,
and what it is above the baseline is divided by its spread; a second round with narrower draws follows. It answers
after every glimpse, not after the last one alone, so that their number can be changed. `join=multiply` joins what and
where as DRAM does.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from fusionviz.registry import FusionSpec, Param, register
from fusionviz.systems._glimpses import GLIMPSES, JOINS, LOOK, SIGMA, WIDTH, Glimpses
from fusionviz.trace import NullTrace

SPEC = FusionSpec(
    key="ram",
    family="place_time",
    equation=r"g_t = \delta(W_g h_{\rho} + W_l h_l), \quad h_t = \delta(W_h h_{t-1} + W g_t), "
    r"\quad l_{t+1} \sim \mathcal{N}(\tanh(W_{\mu} h_t), \sigma^2)",
    year=2014,
    takes="image",
    align="none",
    params=(GLIMPSES, LOOK, SIGMA, Param("join", "add", choices=JOINS, refit=True)),
    paper="Mnih, Heess, Graves, Kavukcuoglu. Recurrent Models of Visual Attention. NeurIPS 2014",
    link="https://arxiv.org/abs/1406.6247",
    cite="Mnih et al., NeurIPS 2014 · arXiv 1406.6247",
)


@register(SPEC)
class RAM(Glimpses):
    """Name the one thing of a picture from a few glimpses.

    Cheap on large pictures: six glimpses read 4 x 12 x 12 cells each, however many pixels there are. Whatever lies
    in no window is never seen.

    Equation: g = relu(W_g what + W_l where), h = relu(W_h h + W g), next place = tanh(W h) + sigma n; the first
    place is random.
    Returns:
        FusionResult; "path" holds places, windows and what was thought after each glimpse, "kinds" the last answer.
    Differs from paper: see the head of this file.
    Source: arXiv 1406.6247
    """

    def setup(self, glimpses: int, look: str, sigma: float, join: str) -> None:
        self.build(join, WIDTH, WIDTH)
        self.from_glimpse, self.from_state = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH, bias=False)
        nn.init.eye_(self.from_state.weight)  # at first one half of the state adds up glimpses and forgets none,
        nn.init.zeros_(self.from_state.weight[WIDTH // 2 :])  # and the other knows the last one alone

    def begin(self, picture: Tensor, trace: NullTrace) -> tuple[Tensor, ...]:
        return (trace.input("state_0", picture.new_zeros(len(picture), WIDTH), formula=r"h_{t-1}"),)

    def remember(self, glimpse: Tensor, states: tuple[Tensor, ...], trace: NullTrace) -> tuple[Tensor, ...]:
        both = nn.ModuleList((self.from_glimpse, self.from_state))
        step = lambda g, h: F.relu(self.from_glimpse(g) + self.from_state(h))  # noqa: E731
        formula = r"h_t=\delta(W_h h_{t-1}+W g_t)"
        # [b 80]
        return (trace.step("state", "state", step, glimpse, states[0], formula=formula, module=both),)
