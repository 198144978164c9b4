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
_CHUNKS = (b"eXIf", b"EXIF")
_JPEG_STOPS = (b"\xff\xda", b"\xff\xd9")  # a scan, the end
_TAG, _SHORT, _LONG = 0x0112, 3, 4
_HEAD = 10  # bytes of a piece that tell what it is
_MAX_PIECES = 2**14  # a PNG often has one for each 8 KiB
_MAX_ENTRIES = 1024  # of the directory that holds the orientation; usual are 12
_MAX_BYTES = 2**20


def likely_in_jpeg(before_scan: tf.Tensor) -> tf.Tensor:
    """Returns, at little cost, whether a JPEG may have EXIF data.

    Args:
      before_scan: its bytes before the first that look like a scan, a string scalar. Without EXIF
        data in them there are none, unless they end inside a small image in another segment.
    """
    after_start = tf.strings.substr(before_scan, 2, _MAX_BYTES)
    return contains(before_scan, _START) | contains(after_start, b"\xff\xd8\xff")


def likely_in_png(encoded: tf.Tensor) -> tf.Tensor:
    """Returns, at little cost, whether a PNG may have EXIF data."""
    return contains(encoded, b"eXIf")


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Returns the orientation of a JPEG, PNG or WebP, int32, 1 to 8.

    One loop serves the three formats: each function that uses it copies its ops.
    """
    first = tf.strings.substr(encoded, 0, 1)
    jpeg, png = first == b"\xff", first == b"\x89"
    name_at = tf.where(png, 4, 0)

    def is_exif(head: tf.Tensor) -> tf.Tensor:
        name = tf.strings.substr(head, name_at, 4)
        start = tf.strings.substr(head, 0, 2) + tf.strings.substr(head, 4, 6)
        return tf.where(jpeg, start == b"\xff\xe1" + _START, tf.reduce_any(name == _CHUNKS))

    def stops(head: tf.Tensor) -> tf.Tensor:
        marker = tf.strings.substr(head, 0, 2)
        over = tf.reduce_any(marker == _JPEG_STOPS) | (tf.strings.substr(head, 0, 1) != b"\xff")
        return is_exif(head) | (jpeg & over)

    def length(head: tf.Tensor) -> tf.Tensor:
        marker = head[1]
        alone = (marker == 1) | ((marker >= 0xD0) & (marker <= 0xD8))
        segment = tf.where(alone, tf.constant(2, tf.int64), 2 + value_of(head[2:4]))
        segment = tf.where(marker == 0xFF, tf.constant(1, tf.int64), segment)  # FF fills up
        chunk = tf.where(png, 12 + value_of(head[:4]), riff_length(head))
        return tf.where(jpeg, segment, chunk)

    start = tf.where(jpeg, 2, tf.where(png, 8, 12))
    position, found = walk(encoded, start, _HEAD, stops, length, _MAX_PIECES)
    # What follows the piece is no harm: the directory says where its data are.
    content_at = tf.where(found, tf.cast(position, tf.int32) + tf.where(jpeg, 4, 8), 0)
    content = tf.strings.substr(encoded, content_at, tf.where(found, _MAX_BYTES, 0))
    prefixed = tf.strings.substr(content, 0, 6) == _START
    return _of_tiff(tf.strings.substr(content, tf.where(prefixed, 6, 0), _MAX_BYTES))


def riff_length(head: tf.Tensor) -> tf.Tensor:
    """Returns the length of a chunk of a RIFF file, from the numbers of its first 8 bytes."""
    content = value_of(head[7:3:-1])
    return 8 + content + content % 2


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
        return value_of(tf.where(little, digits[::-1], digits))

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
