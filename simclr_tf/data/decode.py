"""Decodes bytes to upright pixels: JPEG (also grayscale, CMYK), PNG, BMP, GIF, WebP, any size."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from simclr_tf.augment import crop
from simclr_tf.data import header, upright, webp
from simclr_tf.data.byte_ops import checked

# Bytes in place of what may be missing of a scan: as codes they mean other levels than the zeros
# that the decoder assumes. They found every cut of two bytes or more.
_FILLING = b"\xf6" * 64


def decode_any(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes the whole image upright, uint8 [H, W, 3]; the first frame of an animated one.

    Raises:
      tf.errors.InvalidArgumentError: it does not decode, or `header.image_shape` refuses it.
    """
    layout = header.layout(encoded)
    with tf.control_dependencies([layout]):
        return upright.pixels(_decode(tf.identity(encoded)), layout[2])


def decode_crops(
    encoded: tf.Tensor,
    boxes: tf.Tensor,
    sizes: Sequence[int],
    layout: tf.Tensor | None = None,
) -> list[tf.Tensor]:
    """Cuts boxes out of an encoded image and resizes each to a square, bicubically.

    A JPEG is decoded once, and only the smallest rectangle that holds all boxes. Where chroma is
    stored at half the resolution, the last column of that rectangle may differ by a few levels from
    the whole image's: its chroma lacks a neighbour to interpolate with.

    Args:
      encoded: string scalar.
      boxes: int32 [V, 4], rows (y, x, height, width) in pixels of the upright image, within the
        shape that `header.image_shape` returns, so that an image that it refuses never gets here.
      sizes: side of each of the V results in pixels.
      layout: what `header.layout` returns; read here if not given.

    Returns:
      V views, float32 [size, size, 3]: levels from 0 to 255, and beyond where the interpolation
      overshoots; `crop.from_levels` brings them to [0, 1].
    """
    layout = header.layout(encoded) if layout is None else layout
    boxes = upright.stored_boxes(boxes, layout[:2], layout[2])
    corner, window = _window_around(boxes)
    image, offset = tf.cond(
        tf.io.is_jpeg(encoded) & ~header.lacks_end(encoded),
        lambda: (tf.image.decode_and_crop_jpeg(encoded, window, channels=3), corner),
        lambda: (_decode(encoded), tf.zeros_like(corner)),
    )
    image = tf.ensure_shape(image, [None, None, 3])
    views = _cut_out(image, boxes, offset, sizes)
    turned = [upright.pixels(view, layout[2]) for view in views]
    return [tf.ensure_shape(v, [size, size, 3]) for v, size in zip(turned, sizes, strict=True)]


def crops_of(image: tf.Tensor, boxes: tf.Tensor, sizes: Sequence[int]) -> list[tf.Tensor]:
    """Returns what `decode_crops` returns, for a decoded upright image, uint8 [H, W, 3]."""
    return _cut_out(image, boxes, tf.zeros([2], tf.int32), sizes)


def decode_center(encoded: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes an image for evaluation: whole if it has the requested size, up to 32 pixels.

    Any other image is centre-cropped and resized, as in the reference.

    Args:
      encoded: string scalar.
      size: side of the result in pixels.

    Returns:
      float32 [size, size, 3] in [0, 1].
    """
    layout = header.layout(encoded)
    height, width = tf.unstack(header.upright_shape(layout))
    whole = tf.reduce_all([height == size, width == size, size <= 32])
    box = tf.where(whole, [0, 0, size, size], tf.stack(crop.center_crop_box(height, width)))
    (view,) = decode_crops(encoded, box[tf.newaxis], [size], layout)
    return crop.from_levels(view)


@header.traced_once
def _decode(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes an image as it is stored."""

    def webp_or_other():
        return tf.cond(
            webp.is_webp(encoded), lambda: _decode_webp(encoded), lambda: _decode_other(encoded)
        )

    def jpeg_or_other():
        return tf.cond(
            header.lacks_end(encoded), lambda: _decode_without_end(encoded), webp_or_other
        )

    image = tf.cond(header.is_bmp(encoded), lambda: _decode_bmp(encoded), jpeg_or_other)
    return tf.ensure_shape(image, [None, None, 3])


def _decode_other(encoded: tf.Tensor) -> tf.Tensor:
    is_gif = header.is_gif(encoded)
    still = tf.cond(is_gif, lambda: header.first_frame(encoded), lambda: encoded)
    return tf.io.decode_image(still, channels=3, expand_animations=False)


def _decode_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a WebP by the op of all formats, which every version has; a copy of alpha is cut."""
    return tf.io.decode_image(webp.first_frame(encoded), expand_animations=False)[..., :3]


def _decode_without_end(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG without its end marker, whose scans must be complete.

    The decoder would fill with gray what is missing. Where nothing is, bytes that are added do not
    change the image.
    """
    size = tf.strings.length(encoded)
    half_marker = tf.strings.substr(encoded, size - 1, 1) == header.JPEG_END[:1]
    scans = tf.strings.substr(encoded, 0, tf.where(half_marker, size - 1, size))
    image, other = (
        tf.io.decode_jpeg(scans + filling + header.JPEG_END, channels=3)
        for filling in (b"", _FILLING)
    )
    message = "A JPEG must not be cut short. Received the length of its file:"
    return checked(tf.reduce_all(image == other), image, message, size)


def _decode_bmp(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a BMP, and resolves what the decoder leaves: colour-table indices and alpha."""
    image = tf.io.decode_bmp(encoded, channels=0)

    def look_up():
        table = header.bmp_table(encoded)
        return tf.gather(table, tf.cast(image[..., 0], tf.int32))

    return tf.cond(tf.shape(image)[-1] == 1, look_up, lambda: image[..., :3])


def _window_around(boxes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the smallest rectangle that holds all boxes: (y, x), and (y, x, height, width)."""
    corner = tf.reduce_min(boxes[:, :2], axis=0)
    end = tf.reduce_max(boxes[:, :2] + boxes[:, 2:], axis=0)
    return corner, tf.concat([corner, end - corner], axis=0)


def _cut_out(
    image: tf.Tensor, boxes: tf.Tensor, offset: tf.Tensor, sizes: Sequence[int]
) -> list[tf.Tensor]:
    pairs = zip(tf.unstack(boxes), sizes, strict=True)
    return [_cut_and_resize(image, box, offset, size) for box, size in pairs]


def _cut_and_resize(image: tf.Tensor, box: tf.Tensor, offset: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes as the reference, bicubic without antialiasing, from floats: bytes are slower."""
    begin = tf.concat([box[:2] - offset, [0]], axis=0)
    pixels = tf.slice(image, begin, tf.concat([box[2:], [3]], axis=0))
    return tf.image.resize(tf.cast(pixels, tf.float32), [size, size], method="bicubic")
