"""Finds how an image was turned when it was stored: the orientation of its EXIF data.

JPEG holds EXIF in a segment APP1 before its scans, PNG in a chunk eXIf, WebP in a chunk EXIF. Wrong
or damaged EXIF data count as none, and never make an image fail.

1 is upright. 2 to 4 are mirrored left to right, turned by 180 degrees, and mirrored top to bottom.
5 to 8 are the same as 1 to 4 after height and width were exchanged: 5 is transposed, 6 needs a
quarter turn clockwise, 7 is transposed across the other diagonal, and 8 needs a quarter turn back.
"""

from __future__ import annotations

import tensorflow as tf

from simclr_tf.data.byte_ops import contains, value_of, walk

_START = b"Exif\0\0"
_TAG, _SHORT, _LONG = 0x0112, 3, 4
_JPEG_STOPS = (b"\xff\xda", b"\xff\xd9")  # a scan, the end
# Pieces looked at. A PNG often has one chunk for each 8 KiB.
_MAX_SEGMENTS, _MAX_CHUNKS, _MAX_RIFF_CHUNKS = 512, 2**14, 2**12
_MAX_ENTRIES = 1024  # of the directory that holds the orientation; usual are 12
_MAX_BYTES = 2**20


def of_jpeg(encoded: tf.Tensor, before_scan: tf.Tensor) -> tf.Tensor:
    """Returns the orientation of a JPEG, int32, 1 to 8.

    Args:
      encoded: the file, a string scalar.
      before_scan: its bytes before the first that look like a scan. They tell at no cost that there
        is nothing to search: no EXIF data, and no small image whose scan they may end at.
    """
    likely = contains(before_scan, _START) | contains(
        tf.strings.substr(before_scan, 2, _MAX_BYTES), b"\xff\xd8\xff"
    )
    return tf.cond(likely, lambda: _in_segments(encoded), _upright)


def of_png(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the orientation of a PNG, int32, 1 to 8."""

    def search() -> tf.Tensor:
        position, found = walk(
            encoded,
            8,
            8,
            lambda head: tf.strings.substr(head, 4, 4) == b"eXIf",
            lambda head: 12 + value_of(head[:4]),
            _MAX_CHUNKS,
        )
        return _of_piece(encoded, position, found, 8, lambda head: value_of(head[:4]))

    return tf.cond(contains(encoded, b"eXIf"), search, _upright)


def of_webp(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the orientation of a WebP, int32, 1 to 8."""
    position, found = walk(
        encoded,
        12,
        8,
        lambda head: tf.strings.substr(head, 0, 4) == b"EXIF",
        riff_length,
        _MAX_RIFF_CHUNKS,
    )
    return _of_piece(encoded, position, found, 8, lambda head: value_of(head[:3:-1]))


def riff_length(head: tf.Tensor) -> tf.Tensor:
    """Returns the length of a chunk of a RIFF file, from the numbers of its first 8 bytes."""
    content = value_of(head[:3:-1])
    return 8 + content + content % 2


def _in_segments(encoded: tf.Tensor) -> tf.Tensor:
    def stops(head: tf.Tensor) -> tf.Tensor:
        marker, start = tf.strings.substr(head, 0, 2), tf.strings.substr(head, 4, 6)
        exif = (marker == b"\xff\xe1") & (start == _START)
        over = tf.reduce_any(marker == _JPEG_STOPS) | (tf.strings.substr(head, 0, 1) != b"\xff")
        return exif | over

    def length(head: tf.Tensor) -> tf.Tensor:
        marker = head[1]
        alone = (marker == 1) | ((marker >= 0xD0) & (marker <= 0xD8))
        of_segment = tf.where(alone, tf.constant(2, tf.int64), 2 + value_of(head[2:4]))
        return tf.where(marker == 0xFF, tf.constant(1, tf.int64), of_segment)  # FF fills up

    position, found = walk(encoded, 2, 10, stops, length, _MAX_SEGMENTS)
    return _of_piece(encoded, position, found, 4, lambda head: value_of(head[2:4]) - 2)


def _of_piece(encoded, position, found, head_length: int, length) -> tf.Tensor:
    """Reads the orientation in a piece whose content follows a head; 1 if it was not found."""

    def read() -> tf.Tensor:
        head = tf.io.decode_raw(tf.strings.substr(encoded, position, head_length), tf.uint8)
        size = tf.clip_by_value(length(tf.ensure_shape(head, [head_length])), 0, _MAX_BYTES)
        content = tf.strings.substr(encoded, position + head_length, size)
        prefixed = tf.strings.substr(content, 0, 6) == _START
        skipped = tf.where(prefixed, 6, 0)
        return _of_tiff(tf.strings.substr(content, skipped, tf.constant(_MAX_BYTES)))

    return tf.cond(found, read, _upright)


def _of_tiff(tiff: tf.Tensor) -> tf.Tensor:
    """Reads the orientation in the first directory of a TIFF, which EXIF data are."""
    order = tf.strings.substr(tiff, 0, 4)
    little, big = order == b"II*\0", order == b"MM\0*"
    size = tf.cast(tf.strings.length(tiff), tf.int64)

    def number(position: tf.Tensor, count: int) -> tf.Tensor:
        inside = position + count <= size
        place = tf.where(inside, position, tf.zeros_like(position))
        part = tf.strings.substr(tiff, place, tf.where(inside, place * 0 + count, 0))
        digits = tf.io.decode_raw(part, tf.uint8)
        return value_of(tf.cond(little, lambda: digits[::-1], lambda: digits))

    directory = number(tf.constant(4, tf.int64), 4)
    room = (size - directory - 2) // 12
    count = tf.maximum(tf.minimum(tf.minimum(number(directory, 2), room), _MAX_ENTRIES), 0)
    place = tf.where(count > 0, directory + 2, tf.zeros_like(directory))
    table = tf.io.decode_raw(tf.strings.substr(tiff, place, 12 * count), tf.uint8)
    entries = tf.cast(tf.reshape(table, [-1, 12]), tf.int32)

    def pair(column: int) -> tf.Tensor:
        one, other = entries[:, column], entries[:, column + 1]
        return tf.where(little, one + 256 * other, 256 * one + other)

    kind = pair(2)
    single = pair(4) + pair(6) == 1
    found = (pair(0) == _TAG) & ((kind == _SHORT) | (kind == _LONG)) & single
    value = tf.where((kind == _LONG) & big, pair(10), pair(8))
    orientation = tf.concat([tf.boolean_mask(value, found), [1]], axis=0)[0]
    valid = (little | big) & (orientation >= 1) & (orientation <= 8)
    return tf.where(valid, orientation, 1)


def _upright() -> tf.Tensor:
    return tf.constant(1)
