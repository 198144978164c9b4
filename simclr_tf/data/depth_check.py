"""Looks whether images of 16 bits use them, since those that do not are nearly black."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator

import tensorflow as tf

from simclr_tf.data import header
from simclr_tf.data.bit_depth import FULL_DEPTH, is_deep
from simclr_tf.data.read_errors import reading_explained
from simclr_tf.data.source import Source

# Fewer bits than these are surely meant to be stretched.
_SUSPICIOUS = 13


def with_bit_depth(source: Source, bits: int) -> Source:
    """Returns a source of encoded images that takes `bits` as in use; notes if they are fewer."""
    if bits != FULL_DEPTH:
        return dataclasses.replace(source, bit_depth=bits)
    with reading_explained(source), tf.device("/CPU:0"):
        notes = notes_on(_largest_level(_first_images(source)))
    return dataclasses.replace(source, notes=[*source.notes, *notes]) if notes else source


def _first_images(source: Source, count: int = 8) -> Iterator[tf.Tensor]:
    for content, label, _ in source.stored().take(count):
        with contextlib.suppress(tf.errors.InvalidArgumentError):  # a record without an image
            yield source.unpack(content, label)[0]


def notes_on(largest: int | None) -> list[str]:
    """Returns a note if levels of 16 bits reach no further than `largest`, else none.

    Args:
      largest: the largest level, or None without an image of 16 bits.
    """
    bits = FULL_DEPTH if largest is None else max(largest.bit_length(), 8)
    if bits >= _SUSPICIOUS:
        return []
    return [
        f"the 16-bit images looked at hold levels up to {largest:,} only, so that they are nearly "
        f"black; bind data.bit_depth = {bits} if that is white"
    ]


def _largest_level(encoded: Iterable[tf.Tensor]) -> int | None:
    """Returns the largest level of the PNGs of 16 bits among images; None if there are none."""
    found = []
    for image in encoded:
        with contextlib.suppress(tf.errors.InvalidArgumentError):  # named where it is trained on
            if is_deep(image):
                header.image_shape(image)
                found.append(int(tf.reduce_max(tf.image.decode_png(image, dtype=tf.uint16))))
    return max(found, default=None)
