"""Random numbers by counter: what a scene draws depends on its seed and on nothing else.

A generator with a state would make a scene depend on what was drawn before it, and numpy promises no
stream across versions. Here every number is a hash of (seed, stream, counter), so that a scene is the same
alone, in any batch, in any order and in any process.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def _key(*numbers: int) -> int:
    """Return one 64-bit number that depends on all `numbers` and their order."""
    state = 0
    for number in numbers:
        state = (state + number + _GOLDEN) & _WORD
        state = ((state ^ (state >> 30)) * _FIRST) & _WORD
        state = ((state ^ (state >> 27)) * _SECOND) & _WORD
        state ^= state >> 31
    return state


@lru_cache(256)
def _counters(count: int) -> NDArray[np.uint64]:
    return np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)


def uniform(seed: int, stream: int, count: int) -> NDArray[np.float64]:
    """Draw `count` numbers in [0, 1): number `i` of a stream never depends on `count`.

    Args:
        seed: the scene's seed.
        stream: which of the scene's streams; streams of one seed are independent.
        count: how many numbers.

    Returns:
        Numbers [count] with 53 random bits each.

    Source: Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators (SplitMix64), OOPSLA 2014.
    """
    z = _counters(count) + np.uint64(_key(seed, stream))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_FIRST)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_SECOND)
    z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)) * 2.0**-53


@lru_cache(2)
def _places(size: int) -> NDArray[np.uint32]:
    """Return one well-mixed number per channel, row and column: [3 size size], the same for every scene."""
    channel, y, x = np.ogrid[:3, :size, :size]
    place = ((channel * 4096 + y) * 4096 + x).astype(np.uint32)
    place *= np.uint32(0x9E3779B1)
    place ^= place >> np.uint32(15)
    place.flags.writeable = False
    return place


def sensor_noise(seed: int, size: int) -> NDArray[np.float32]:
    """Draw the noise of a camera's sensor: a hash of (seed, channel, y, x).

    Two 16-bit halves of each hash are added, which gives a triangular distribution: close enough to a
    normal one for an eye, and much cheaper.

    Returns:
        Noise [3 size size] with mean 0 and standard deviation 1.
    """
    key = _key(seed, 0x5E)
    h = _places(size) + np.uint32(key & 0xFFFFFFFF)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h += np.uint32(key >> 32)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    halves = h.view(np.uint16).reshape(3, size, size, 2)
    noise = halves[..., 0].astype(np.float32)
    noise += halves[..., 1]
    noise -= 65535.0
    noise *= np.float32(6**0.5 / 65536)
    return noise
