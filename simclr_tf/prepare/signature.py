"""Tells whether two pictures look alike: hashes find candidates, 16 x 16 colours decide."""

from __future__ import annotations

import numpy as np
from PIL import Image

THUMBNAIL_BYTES = 16 * 16 * 3
# Copies that were resized or encoded again differ by at most this many of the 64 bits.
MAX_BITS = 3
_COSINES = np.cos(np.pi / 32 * np.outer(np.arange(8), np.arange(32) + 0.5))
# Levels of brightness, and of the rest: noise, and a share of the contrast.
_MAX_BRIGHTNESS = 24.0
_MAX_NOISE, _MAX_SHARE = 1.5, 0.15


def hashes_of(image: Image.Image) -> tuple[int, int]:
    """Returns two hashes of 64 bits, since copies that the one misses are found by the other.

    dHash: whether each of 8 x 8 fields is brighter than that at its right. pHash: whether each of
    the 8 x 8 lowest frequencies is above their median, without the mean.
    """
    luma = image.convert("L")
    fields = np.asarray(luma.resize((9, 8), Image.Resampling.BOX), np.int16)
    frequencies = np.asarray(luma.resize((32, 32), Image.Resampling.BOX), np.float64)
    low = _COSINES @ frequencies @ _COSINES.T
    low[0, 0] = 0.0
    low = low.round(3)  # a flat picture has no frequency above another
    return _packed(fields[:, :-1] > fields[:, 1:]), _packed(low > np.median(low))


def _packed(bits: np.ndarray) -> int:
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def thumbnail_of(image: Image.Image) -> bytes:
    """Returns 16 x 16 mean colours, uint8 [16, 16, 3] as bytes."""
    return image.convert("RGB").resize((16, 16), Image.Resampling.BOX).tobytes()


def alike(one: bytes, other: bytes) -> bool:
    """Returns whether two thumbnails are of the same picture, up to brightness and noise."""
    both = np.frombuffer(one + other, np.uint8).reshape(2, 256, 3).astype(np.float32)
    means = both.mean(axis=1, keepdims=True)
    if np.abs(means[0] - means[1]).max() > _MAX_BRIGHTNESS:
        return False
    centred = both - means
    difference = np.sqrt(np.mean((centred[0] - centred[1]) ** 2))
    contrast = np.sqrt(np.mean(centred**2, axis=(1, 2))).min()
    return bool(difference <= _MAX_NOISE + _MAX_SHARE * contrast)
