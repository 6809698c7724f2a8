"""The axis vocabulary: maps are `b c h w`, tokens `q k`; every shape error names its axes."""

from torch import Tensor

from fusionviz.errors import ShapeError


def shape_text(shape: tuple[int, ...]) -> str:
    """Write a shape as people read it: `64 × 56 × 56`."""
    return " × ".join(str(n) for n in shape)


def expect(tensor: Tensor, axes: str, *, of: str = "map", **sizes: int) -> Tensor:
    """Return `tensor` if its shape matches `axes` such as "b c h w" or "b 1 h w", else raise.

    A number in `axes` must match exactly; a letter given in `sizes` too; other letters match any size
    but the same size everywhere they stand.

    Raises:
        ShapeError: with the axes expected and the shape that came.
    """
    names, bound = axes.split(), dict(sizes)
    fits = tensor.ndim == len(names)
    for name, size in zip(names, tensor.shape, strict=False):
        want = int(name) if name.isdigit() else bound.setdefault(name, size)
        fits = fits and size == want
    if not fits:
        known = ", ".join(f"{k} = {v}" for k, v in sizes.items()) or "any sizes"
        raise ShapeError("shape.axes", of=of, axes=axes, known=known, received=shape_text(tuple(tensor.shape)))
    return tensor
