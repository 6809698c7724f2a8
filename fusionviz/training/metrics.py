"""How good a prediction is: by pixel, by the size of the thing, and at its outline.

mIoU                  intersection over union, the mean over the classes that are there
small, medium, large  the same around things under 16, under 40, and from 40 pixels high, at 128 pixels
boundary F1           how much of the predicted outline lies within a pixel of the true one, and the other way
class accuracy        of the pixels rightly called a thing, how many got the right kind
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fusionviz import scenes

SMALL_PX, LARGE_PX = scenes.SMALL_BELOW, scenes.LARGE_FROM
"""Heights from which things are medium and large, in pixels of a picture 128 pixels high."""

NEAR_PX = 8
"""What is wrongly called a thing so near to one counts against that one's size."""

NAMES = ("miou", "small", "medium", "large", "boundary_f1", "class_accuracy")
"""What `Score.read` gives, all in percent."""

_SIZES = ("small", "medium", "large")


@dataclass(frozen=True)
class Truth:
    """What the labels of some scenes say, worked out once for every prediction that is held against them.

    Attributes:
        classes: [b h w].
        sizes: whose neighbourhood each pixel is, see `around`.
        outline, near: the true outline, and the same one pixel wider.
    """

    classes: Tensor
    sizes: Tensor
    outline: Tensor
    near: Tensor

    @classmethod
    def of(cls, classes: Tensor, instances: Tensor) -> "Truth":
        """Work it out of classes and instances [b h w], 0 where there is no thing."""
        real = outline(classes)
        # A few at a time: how far the nearest thing is takes many times the labels' memory.
        sizes = torch.cat([around(part).to(torch.uint8) for part in instances.split(64)])
        near = torch.cat([grow(part) for part in real.split(64)])
        return cls(classes, sizes, real, near)

    def __getitem__(self, which: slice) -> "Truth":
        return Truth(*(getattr(self, name)[which] for name in ("classes", "sizes", "outline", "near")))

    def __len__(self) -> int:
        return len(self.classes)


class Score:
    """Gathers predictions over many scenes; the figures are of all of them together, not means over scenes."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64)
        """[truth prediction] counts of pixels."""
        self.by_size = {name: torch.zeros(classes, classes, dtype=torch.int64) for name in _SIZES}
        self.outline = torch.zeros(4, dtype=torch.int64)
        """Predicted outline that is right, predicted outline; true outline that was found, true outline."""

    def add(self, prediction: Tensor, truth: Tensor, instances: Tensor) -> None:
        """Count scenes.

        Args:
            prediction, truth: classes [b h w].
            instances: [b h w], 0 where there is no thing.
        """
        self.hold(prediction, Truth.of(truth, instances))

    def hold(self, prediction: Tensor, truth: Truth) -> None:
        """Count scenes whose truth has been worked out; `prediction` as in `add`."""
        n = self.classes
        pairs = (truth.sizes.long() * n + truth.classes.long()) * n + prediction.long()
        counts = torch.bincount(pairs.flatten(), minlength=4 * n * n).view(4, n, n).cpu()
        self.confusion += counts.sum(0)
        for i, name in enumerate(_SIZES, 1):
            self.by_size[name] += counts[i]
        mine, real = outline(prediction), truth.outline
        right, found = mine & truth.near, real & grow(mine)
        self.outline += torch.stack([mask.sum() for mask in (right, mine, found, real)]).cpu()

    def read(self) -> dict[str, float]:
        """Return every figure of NAMES in percent; one that had nothing to count is nan."""
        right = self.confusion[1:, 1:].diagonal().sum()
        precise, found = (int(self.outline[i]) / max(int(self.outline[i + 1]), 1) for i in (0, 2))
        figures = {
            "miou": _iou(self.confusion, first=0),
            **{name: _iou(self.by_size[name], first=1) for name in _SIZES},
            "boundary_f1": 2 * precise * found / (precise + found) if precise and found else 0.0,
            "class_accuracy": right / self.confusion[1:, 1:].sum(),
        }
        return {name: round(100 * float(value), 2) for name, value in figures.items()}


def _iou(confusion: Tensor, first: int) -> Tensor:
    """Mean over the classes from `first` on that the truth has; what is wrongly called one of them counts too."""
    both = confusion.diagonal().double()
    either = confusion.sum(0) + confusion.sum(1) - both
    there = confusion.sum(1)[first:] > 0
    return (both[first:] / either[first:])[there].mean()


def outline(classes: Tensor) -> Tensor:
    """Return where the next pixel to the right or below is of another class, [b h w] bool."""
    edge = torch.zeros_like(classes, dtype=torch.bool)
    edge[:, :, :-1] |= classes[:, :, 1:] != classes[:, :, :-1]
    edge[:, :-1] |= classes[:, 1:] != classes[:, :-1]
    return edge


def grow(mask: Tensor) -> Tensor:
    """Return a mask [b h w] one pixel wider, its corners too."""
    return F.max_pool2d(mask.float().unsqueeze(1), 3, 1, 1).squeeze(1) > 0


def around(instances: Tensor) -> Tensor:
    """Return whose neighbourhood each pixel is: 1 small, 2 medium, 3 large, 0 nobody's, [b h w].

    A pixel without a thing belongs to the nearest one, if that is at most NEAR_PX steps away, diagonal steps too.
    """
    b, h, w = instances.shape
    ids = instances.long()
    count = int(ids.max()) + 1
    rows = torch.arange(h, device=ids.device)
    # [b h count]: which thing is seen in which row; its height is how far apart its first and last row are.
    seen = torch.zeros(b, h, count, dtype=torch.bool, device=ids.device).scatter_(2, ids, True)
    first = torch.where(seen, rows.view(1, h, 1), h).amin(1)
    last = torch.where(seen, rows.view(1, h, 1), -1).amax(1)
    height = (last - first + 1) * 128 / h  # [b count]
    size = 1 + (height >= SMALL_PX).long() + (height >= LARGE_PX).long()
    size[:, 0] = 0
    found = size.gather(1, ids.view(b, -1)).view(b, 1, h, w).float()
    for _ in range(round(NEAR_PX * h / 128)):
        wider = F.max_pool2d(found, 3, 1, 1)
        found = torch.where(found > 0, found, wider)
    return found.squeeze(1).long()
