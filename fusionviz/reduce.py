"""Maps with many channels -> pictures: the strongest channels, or one picture of all of them.

Everything returns numpy arrays in float32 (or uint8 for RGB), of the first picture of a batch.
"""

import math

import numpy as np
import torch
from torch import Tensor


def part(tensor: Tensor, name: str = "abs") -> Tensor:
    """Return a real tensor: `tensor` itself, or one part of a complex one (abs, arg in (-pi, pi], re, im)."""
    if not tensor.is_complex():
        return tensor
    return {"abs": torch.abs, "arg": torch.angle, "re": torch.real, "im": torch.imag}[name](tensor)


def strongest(tensor: Tensor, count: int) -> tuple[int, ...]:
    """Return the channels of [1 c h w] with the most energy (mean square), strongest first; ties by number."""
    energy = tensor[0].abs().float().square().mean((1, 2)).cpu().numpy()
    return tuple(int(i) for i in np.argsort(-energy, kind="stable")[:count])


def array(tensor: Tensor) -> np.ndarray:
    """Return a float32 array on the CPU, free of torch's memory."""
    return np.array(tensor.detach().float().cpu().numpy(), dtype=np.float32)


def channels(tensor: Tensor, chosen: tuple[int, ...]) -> np.ndarray:
    """Return the chosen channels of [1 c h w] as [n h w]."""
    return array(tensor[0, list(chosen)])


def reduced(tensor: Tensor, how: str) -> np.ndarray:
    """Return one picture [h w] of all channels of a real [1 c h w]: "mean" | "max" | "norm" (the vector's length)."""
    real = tensor[0]
    if how == "mean":
        return array(real.mean(0))
    if how == "max":
        return array(real.amax(0))
    return array(torch.linalg.vector_norm(real.float(), dim=0))


def rms(tensor: Tensor) -> np.ndarray:
    """Return [h w]: the root mean square over the channels of [1 c h w]; maps of any width can share its scale."""
    return array(tensor[0].abs().float().square().mean(0).sqrt())


def reduced_phase(tensor: Tensor, how: str) -> np.ndarray:
    """Return one angle [h w] for all channels of a complex [1 c h w]: "mean" | "max".

    Angles go round, so their own mean says nothing: "mean" is the angle of the mean, "max" that of the longest number.
    """
    z = tensor[0]
    if how == "mean":
        return array(z.mean(0).angle())
    return array(z.gather(0, z.abs().argmax(0, keepdim=True))[0].angle())


def in_place(maps: np.ndarray, boxes: np.ndarray, size: tuple[int, int], step: float) -> tuple[np.ndarray, ...]:
    """Return every region's map [h w] where its box is: n cells spread over the box, and zero around it.

    Args:
        maps: [n h w].
        boxes: [n 4], x0 y0 x1 y1 in pixels.
        size: (h, w) of the results.
        step: pixels from one of their cells to the next; the first one's centre is half of it from the edge.
    """
    placed = []
    for cells, (x0, y0, x1, y1) in zip(maps, boxes, strict=True):
        out = np.zeros(size, np.float32)
        (down, rows), (along, columns) = (
            _inside(n, step, begin, end, count)
            for n, begin, end, count in ((size[0], y0, y1, cells.shape[0]), (size[1], x0, x1, cells.shape[1]))
        )
        out[np.ix_(down, along)] = cells[np.ix_(rows, columns)]
        placed.append(out)
    return tuple(placed)


def _inside(count: int, step: float, begin: float, end: float, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of `count` centres lie between `begin` and `end`, and in which of `cells` equal parts each does."""
    part = np.floor(((np.arange(count) + 0.5) * step - begin) / (end - begin) * cells).astype(int)
    inside = np.flatnonzero((part >= 0) & (part < cells))
    return inside, part[inside]


def pca_rgb(tensor: Tensor) -> np.ndarray:
    """Return uint8 [h w 3]: the three principal components of the channels of [1 c h w] as red, green, blue.

    Components are ordered by variance; each is turned so that its largest loading is positive, so the same
    map always has the same colours, and runs from its 1st to its 99th percentile.
    """
    flat = tensor[0].detach().cpu().double().flatten(1)  # [c, h w]; on the CPU first: Apple's GPUs have no doubles
    flat = flat.nan_to_num(0, 0, 0)  # what is no number has no direction
    centred = flat - flat.mean(1, keepdim=True)
    channels, places = centred.shape
    if channels <= places:
        axes = torch.linalg.eigh(centred @ centred.T)[1].flip(1)[:, :3]  # [c 3], largest variance first
    else:  # the same directions from the smaller square: 2048 channels of 7 x 7 places would take seconds
        scores = torch.linalg.eigh(centred.T @ centred)[1].flip(1)[:, :3]  # [h w, 3]
        axes = torch.nn.functional.normalize(centred @ scores, dim=0)
    top = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    scores = ((axes * top.sign()).T @ centred).numpy()  # [3, h w]
    rgb = np.full((3, scores.shape[1]), 0.5)
    for i, score in enumerate(scores):
        low, high = np.percentile(score, (1, 99))
        # A component that is only rounding noise stays grey: a constant map has to look constant.
        if high - low > 1e-6 * max(1e-12, float(flat.abs().max())):
            rgb[i] = np.clip((score - low) / (high - low), 0, 1)
    h, w = tensor.shape[-2:]
    return np.round(rgb * 255).astype(np.uint8).reshape(3, h, w).transpose(1, 2, 0).copy()


def domain_rgb(tensor: Tensor) -> np.ndarray:
    """Return uint8 [h w 3] for a complex [h w]: hue is the argument, brightness the modulus (to its 99th percentile).

    The hue turns once around: 0 (all real: low alone) is blue, pi/2 (all imaginary: high alone) is orange.
    """
    z = np.nan_to_num(tensor.detach().cpu().numpy(), posinf=0, neginf=0)
    modulus = np.abs(z)
    bright = np.clip(modulus / max(float(np.percentile(modulus, 99)), 1e-12), 0, 1)
    low, high = np.array([0, 114, 178.0]), np.array([213, 94, 0.0])
    turn = np.angle(z)[..., None]
    mixed = 127.5 + np.cos(turn) * (low - 127.5) * 0.9 + np.sin(turn) * (high - 127.5) * 0.9
    return np.round(np.clip(mixed, 0, 255) * bright[..., None]).astype(np.uint8)


def grid_side(count: int) -> int:
    """Return the side of the smallest square grid that holds `count` maps."""
    return math.isqrt(max(count - 1, 0)) + 1
