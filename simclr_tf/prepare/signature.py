"""Tells whether two pictures look alike: 64 bits to find candidates, 16 x 16 colours to decide."""

from __future__ import annotations

import numpy as np
from PIL import Image

THUMBNAIL_BYTES = 16 * 16 * 3
# Copies that were resized or encoded again differ by at most this many of the 64 bits.
MAX_BITS = 3
# Levels of brightness, and of the rest: noise, and a share of the contrast.
_MAX_BRIGHTNESS = 24.0
_MAX_NOISE, _MAX_SHARE = 1.5, 0.15


def bits_of(image: Image.Image) -> int:
    """Returns 64 bits (dHash): whether each of 8 x 8 fields is brighter than that at its right."""
    luma = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    return int.from_bytes(np.packbits(luma[:, :-1] > luma[:, 1:]).tobytes(), "big")


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
