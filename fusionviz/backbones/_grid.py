"""Where the cells of a tensor lie in the picture: its grid's stride and offset, and which axes hold rows and columns.

A `Place` goes with a tensor through a network. Convolutions and pooling move the grid; reshape, permute and
concatenation only move the axes, and a grid cut into windows or strung into tokens is found again when the pieces
are put back: an axis is a list of runs, major to minor, and a reshape is a regrouping of runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

Pair = tuple[float, float]
OTHER = "c"


@dataclass(frozen=True)
class Run:
    """Cells along an axis.

    Attributes:
        kind: "h" rows | "w" columns | "t" tokens behind others such as a class token | "b" batch | "c" anything else.
        size: how many.
        step: distance of neighbours, in cells of the grid; windows of 7 rows are a run of step 7 and a run of step 1.
        lead: how many tokens stand before those of the grid.
        inner: the runs that the tokens of the grid are made of.
    """

    kind: str
    size: int
    step: int = 1
    lead: int = 0
    inner: tuple[Run, ...] = ()


Axis = tuple[Run, ...]


@dataclass(frozen=True)
class Place:
    """The grid of a tensor.

    Attributes:
        axes: of the tensor, each a list of runs; an axis of size 1 is empty.
        stride, offset: (y, x), as in `records.FeatureMap`.
        learned: the tensor has passed a layer with weights, so it is features and no longer the picture.
    """

    axes: tuple[Axis, ...]
    stride: Pair = (1.0, 1.0)
    offset: Pair = (0.5, 0.5)
    learned: bool = False

    def holds_grid(self, axis: int) -> bool:
        """Say whether rows or columns lie along this axis."""
        return any(run.kind in "hwt" for run in self.axes[axis])


def of_picture(shape: tuple[int, ...]) -> Place:
    """Return the place of a network's input [b c h w]."""
    return Place(tuple((Run(kind, n),) if n > 1 else () for kind, n in zip("bchw", shape, strict=True)))


def reshape(place: Place, shape: tuple[int, ...]) -> Place | None:
    """Return the place after a reshape to `shape`, or None where rows and columns get mixed up."""
    runs, axes = [run for axis in place.axes for run in axis], []
    for size in shape:
        axis, need = [], size
        while need > 1:
            if not runs:
                return None
            run = runs.pop(0)
            if need % run.size == 0:
                axis.append(run)
                need //= run.size
            elif run.size % need == 0 and run.kind != "t":
                minor = run.size // need
                axis.append(replace(run, size=need, step=run.step * minor))
                runs.insert(0, replace(run, size=minor))
                need = 1
            else:
                return None
        axes.append(_join(axis))
    return None if runs else replace(place, axes=tuple(axes))


def permute(place: Place, order: tuple[int, ...]) -> Place:
    """Return the place after a permutation of the axes."""
    return replace(place, axes=tuple(place.axes[i] for i in order))


def window(place: Place, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair, size: Pair) -> Place | None:
    """Return the place behind a sliding window over [... h w]: its first centre, its step.

    The window over cell 0 covers cells -p ... -p + d (k - 1), so its centre lies at -p + d (k - 1) / 2 of the old grid.
    """
    if not _whole(place.axes[-2], "h") or not _whole(place.axes[-1], "w"):
        return None
    offset = tuple(
        o + s * (d * (k - 1) / 2 - p)
        for o, s, k, p, d in zip(place.offset, place.stride, kernel, padding, dilation, strict=True)
    )
    new_stride = tuple(s * t for s, t in zip(place.stride, stride, strict=True))
    rows, columns = ((Run(kind, int(n)),) for kind, n in zip("hw", size, strict=True))
    return replace(place, axes=(*place.axes[:-2], rows, columns), stride=new_stride, offset=offset)


def merge_neighbours(place: Place, shape: tuple[int, ...]) -> Place | None:
    """Return the place [... h w c] behind Swin's patch merging, which lays 2x2 neighbours side by side as channels."""
    if not _whole(place.axes[-3], "h") or not _whole(place.axes[-2], "w"):
        return None
    axes = (*place.axes[:-3], (Run("h", shape[-3]),), (Run("w", shape[-2]),), (Run(OTHER, shape[-1]),))
    offset = tuple(o + s / 2 for o, s in zip(place.offset, place.stride, strict=True))
    return replace(place, axes=axes, stride=tuple(2 * s for s in place.stride), offset=offset)


def resize_other(place: Place, axis: int, size: int) -> Place | None:
    """Return the place after an axis without rows or columns got another size."""
    if place.holds_grid(axis):
        return None
    axes = list(place.axes)
    axes[axis] = (Run(OTHER, size),) if size > 1 else ()
    return replace(place, axes=tuple(axes))


def take(place: Place, index: tuple[object, ...], shape: tuple[int, ...]) -> Place | None:
    """Return the place of tensor[index], for whole numbers, slices, None and `...`."""
    count = sum(i is not None and i is not Ellipsis for i in index)
    if Ellipsis in index:
        at = index.index(Ellipsis)
        index = index[:at] + (slice(None),) * (len(place.axes) - count) + index[at + 1 :]
    else:
        index = index + (slice(None),) * (len(place.axes) - count)
    axes, stride, offset, axis = [], list(place.stride), list(place.offset), 0
    for i in index:
        if i is None:
            axes.append(())
            continue
        runs = place.axes[axis]
        if isinstance(i, slice):
            size = shape[len(axes)]
            if i == slice(None):
                axes.append(runs)
            elif _whole(runs, "h") or _whole(runs, "w"):
                start, _, step = i.indices(runs[0].size)
                side = "hw".index(runs[0].kind)
                offset[side] += stride[side] * start
                stride[side] *= step
                axes.append((Run(runs[0].kind, size),))
            elif len(runs) == 1 and runs[0].kind == "t" and i == slice(runs[0].lead, None):
                axes.append(runs[0].inner)
            elif not place.holds_grid(axis):
                axes.append((Run(runs[0].kind if runs else OTHER, size),) if size > 1 else ())
            else:
                return None
        elif not isinstance(i, int) or place.holds_grid(axis):
            return None
        axis += 1
    return replace(place, axes=tuple(axes), stride=tuple(stride), offset=tuple(offset))


def concatenate(parts: list[tuple[Place | None, int]], axis: int) -> Place | None:
    """Return the place of tensors laid one behind the other; `parts` has each one's place and its size along `axis`.

    Channels from maps with different first centres get the mean of these, weighted by channels.
    """
    placed = [(place, size) for place, size in parts if place is not None]
    if not placed:
        return None
    first = placed[0][0]
    axis %= len(first.axes)
    total = sum(size for _, size in parts)
    axes = list(first.axes)
    if len(placed) == 1 and parts[-1][0] is first and first.holds_grid(axis) and total > placed[0][1]:
        axes[axis] = (Run("t", total, lead=total - placed[0][1], inner=first.axes[axis]),)
        return replace(first, axes=tuple(axes))
    if any(place.holds_grid(axis) or place.stride != first.stride for place, _ in placed):
        return None
    axes[axis] = (Run(OTHER, total),) if total > 1 else ()
    weight = sum(size for _, size in placed)
    offset = tuple(sum(place.offset[side] * size for place, size in placed) / weight for side in (0, 1))
    return replace(first, axes=tuple(axes), offset=offset, learned=any(place.learned for place, _ in placed))


def combine(places: list[Place], rank: int) -> Place | None:
    """Return the place of an element-by-element result of `rank` axes, whose operands broadcast from the right."""
    strides = {place.stride for place in places}
    if len(strides) != 1:
        return None
    axes: list[Axis] = [()] * rank
    for place in places:
        if len(place.axes) > rank:
            return None
        for i, runs in enumerate(place.axes, rank - len(place.axes)):
            if not axes[i] or (runs and not any(run.kind in "hwt" for run in axes[i])):
                axes[i] = runs
            elif any(run.kind in "hwt" for run in runs) and runs != axes[i]:
                return None
    offset = tuple(sum(place.offset[side] for place in places) / len(places) for side in (0, 1))
    return Place(tuple(axes), places[0].stride, offset, any(place.learned for place in places))


def einsum(equation: str, places: list[Place | None]) -> Place | None:
    """Return the place of an einsum: each letter of the result is an axis of the first operand that has it."""
    inputs, _, result = equation.replace(" ", "").partition("->")
    if not result or "." in equation:
        return None
    found: dict[str, Axis] = {}
    for letters, place in zip(inputs.split(","), places, strict=True):
        if place is not None:
            for letter, runs in zip(letters, place.axes, strict=True):
                found.setdefault(letter, runs)
    placed = [place for place in places if place is not None]
    if not placed or len({place.stride for place in placed}) != 1:
        return None
    return replace(placed[0], axes=tuple(found.get(letter, ()) for letter in result))


@dataclass(frozen=True)
class View:
    """How to see a tensor as a map [b c h w]: drop the leading tokens, lay tokens on the grid, permute."""

    channels: int
    order: tuple[int, ...] = ()
    lead: int = 0
    grid: tuple[int, int] = ()


def as_map(place: Place | None, shape: tuple[int, ...]) -> View | None:
    """Return how this tensor can be seen as a map, or None if it has no whole rows and columns."""
    if place is None or len(shape) not in (3, 4):
        return None
    if len(shape) == 4:
        rows = [i for i, runs in enumerate(place.axes) if _whole(runs, "h")]
        columns = [i for i, runs in enumerate(place.axes) if _whole(runs, "w")]
        rest = [i for i in range(4) if not place.holds_grid(i)]
        if len(rows) != 1 or len(columns) != 1 or rest[:1] != [0]:
            return None
        return View(shape[rest[1]], (0, rest[1], rows[0], columns[0]))
    if place.holds_grid(0) or place.holds_grid(2):
        return None
    runs, lead = place.axes[1], 0
    if len(runs) == 1 and runs[0].kind == "t":
        runs, lead = runs[0].inner, runs[0].lead
    if len(runs) != 2 or not _whole(runs[:1], "h") or not _whole(runs[1:], "w"):
        return None
    return View(shape[2], lead=lead, grid=(runs[0].size, runs[1].size))


def _whole(axis: Axis, kind: str) -> bool:
    return len(axis) == 1 and axis[0].kind == kind and axis[0].step == 1


def _join(axis: list[Run]) -> Axis:
    """Put neighbouring runs back together where they were one."""
    joined: list[Run] = []
    for run in axis:
        last = joined[-1] if joined else None
        follows = last is not None and last.kind == run.kind and run.kind != "t"
        if follows and (run.kind in "bc" or last.step == run.step * run.size):
            joined[-1] = replace(run, size=last.size * run.size)
        else:
            joined.append(run)
    return tuple(joined)
