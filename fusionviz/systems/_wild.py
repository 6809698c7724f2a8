"""What networks in the wild share: torchvision's own networks, built as it builds them, shown where they fuse.

Nothing here is trained by this project. A network is built with random weights, and `recall` gives it the weights that
torchvision publishes, once they are in torch's cache. What is computed is torchvision's own forward pass, layer by
layer through its own modules, so that what fuses becomes steps: tests compare the results with torchvision's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from torch import Tensor, nn
from torchvision import models
from torchvision.transforms import functional as images

from fusionviz import weights
from fusionviz.axes import expect, shape_text
from fusionviz.backbones import torchvision
from fusionviz.backbones.bundled import PREPROCESSING
from fusionviz.errors import FusionvizError, WeightsError
from fusionviz.fusion import Context
from fusionviz.records import FeatureMap, Preprocessing, Provenance
from fusionviz.registry import Param
from fusionviz.selection import Value
from fusionviz.systems._base import System, pixels
from fusionviz.trace import NullTrace

SCALE = Param("scale", "own", choices=("own", "given"))
"""Whether a picture is enlarged to what the published weights were trained on, or taken as it comes."""
DEPTH = Param("depth", 1.0, low=0.0, high=1.0, step=0.01)
"""Which of a network's blocks is looked at: 0 is the first, 1 the last. Networks have from 8 to 60 of them."""


@dataclass(frozen=True)
class Frame:
    """How the network's own input lies over the picture that the system was given.

    Attributes:
        tensor: the network's input [1 3 h w], normalised as it wants it.
        ratio: (y, x) pixels of the picture for one of the input.
        size: (h, w) of the picture.
    """

    tensor: Tensor
    ratio: tuple[float, float]
    size: tuple[int, int]

    def map(self, name: str, tensor: Tensor, stride: float, offset: float = 0.5, stage: int = 0) -> FeatureMap:
        """Return a map with its place in the picture.

        Args:
            stride, offset: in pixels of the network's own input. Convolutions and poolings with an odd window and
                half of it as padding leave the first cell's centre where the first pixel's is, at 0.5.
        """
        ry, rx = self.ratio
        return FeatureMap(name, tensor, (stride * ry, stride * rx), (offset * ry, offset * rx), stage)


class Wild(System):
    """One of torchvision's networks. Subclasses write `assemble` and `see`.

    It looks at the picture itself, which comes normalised as `context.preprocessing` says; that is undone, and the
    network's own mean and standard deviation are applied. `preprocessing` says which picture suits it best.
    """

    takes_levels = ()
    side = 224
    """Of the picture that it is given, in pixels, where nobody chose another."""

    @classmethod
    def wants(cls, params: Mapping[str, Value]) -> Preprocessing:
        return replace(PREPROCESSING, resize_px=cls.side, crop_px=cls.side)

    def setup(self, net: str, **knobs: object) -> None:
        self.net = net
        self.network = self.assemble(net).eval().requires_grad_(False)
        self.categories = weights.categories(net)

    def assemble(self, net: str) -> nn.Module:
        """Return the network as torchvision builds it for its published weights, with random ones."""
        return torchvision.recipe(net).build(len(weights.categories(net)), ())

    @property
    def preprocessing(self) -> Preprocessing:
        """How torchvision prepares a picture for this network."""
        return torchvision.recipe(self.net).preprocessing

    # --- published weights -----------------------------------------------------------------------
    def recall(self) -> tuple[FusionvizError, ...]:
        """Take the published weights if they are in torch's cache; return what had to be said about them.

        Without them, or where the file is damaged, the network keeps its random weights, and says so.
        """
        path = weights.cached(self.net)
        if path is None:
            return ()
        try:
            self.fill(weights.read(path, self.net), Provenance("pretrained", weights.published(self.net).name))
        except WeightsError as broken:
            return (broken,)
        return ()

    def fill(self, state: Mapping[str, Tensor], provenance: Provenance) -> None:
        """Load the network's numbers; from then on it says where they come from.

        Raises:
            WeightsError: if they are another network's; it has not changed then.
        """
        here = self.network.state_dict()
        before = {name: tensor.clone() for name, tensor in here.items()}
        odd = [
            f"{name} {shape_text(tuple(state[name].shape)) or 1} ≠ {shape_text(tuple(tensor.shape)) or 1}"
            for name, tensor in here.items()
            if name in state and state[name].shape != tensor.shape
        ]
        # torchvision's modules know their older names themselves, so what is missing is known only after loading.
        found = None if odd else self.network.load_state_dict(state, strict=False)
        if odd or found.missing_keys or found.unexpected_keys:
            self.network.load_state_dict(before)
            raise WeightsError(
                "backbone.state",
                backbone=self.net,
                missing=_some(found.missing_keys if found else ()),
                unknown=_some(found.unexpected_keys if found else ()),
                shapes=_some(odd),
            )
        self.trained = provenance

    # --- the picture -----------------------------------------------------------------------------
    @staticmethod
    def pixels(picture: Tensor, context: Context) -> Tensor:
        """Return the picture as numbers in [0, 1]."""
        expect(picture, "1 3 h w", of="picture")
        wants = context.preprocessing or PREPROCESSING
        return pixels(picture, wants.mean, wants.std)

    def frame(self, picture: Tensor, context: Context, trace: NullTrace, *, size: Sequence[int] | None = None) -> Frame:
        """Return the network's input.

        Args:
            size: of the input: its short side, or both; None leaves the picture's own.
        """
        wants, given = self.preprocessing, tuple(picture.shape[-2:])
        mean, std = (picture.new_tensor(v).view(3, 1, 1) for v in (wants.mean, wants.std))

        def fit(seen: Tensor) -> Tensor:
            if size is not None:
                how = images.InterpolationMode(wants.interpolation)
                seen = images.resize(seen, list(size), interpolation=how, antialias=True)
            return (seen - mean) / std

        seen = trace.input("picture", self.pixels(picture, context), formula="I")
        x = trace.step("fitted", "fit", fit, seen, formula=r"\hat{I}")  # [1 3 h w]
        return Frame(x, tuple(g / n for g, n in zip(given, x.shape[-2:], strict=True)), given)


@cache
def names(*beginnings: str, among: str = "") -> tuple[str, ...]:
    """Return torchvision's networks whose names begin so, small to large, those of the first beginning first.

    Args:
        among: "detection" | "segmentation" | "" for classification.
    """
    module = getattr(models, among) if among else models
    listed = set(models.list_models(module=module))
    order = sorted(listed, key=lambda n: models.get_model_weights(n).DEFAULT.meta["num_params"])
    return tuple(dict.fromkeys(n for beginning in beginnings for n in order if n.startswith(beginning)))


def at_depth(depth: float, count: int) -> int:
    """Return the position of the block at a depth of 0 ... 1, of so many."""
    return int(depth * (count - 1) + 0.5)


def stages(body: nn.ModuleDict, wanted: Collection[str]) -> list[tuple[str, nn.Sequential]]:
    """Return the layers of torchvision's IntermediateLayerGetter up to each map that it hands out, by the map's name.

    Args:
        wanted: names of the maps; what leads to others only is left out behind the last one.
    """
    found, run = [], []
    for name, module in body.items():
        run.append(module)
        tap = body.return_layers.get(name)
        if tap in wanted:
            found.append((tap, nn.Sequential(*run)))
            run = []
    return found


def _some(names: Collection[str], most: int = 3) -> str:
    shown = ", ".join(list(names)[:most])
    return f"{shown}, … ({len(names)})" if len(names) > most else shown or "–"
