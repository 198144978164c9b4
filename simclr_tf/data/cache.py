"""`data.cache`: holds a data set's files, or their pixels, in memory and reads them there.

The copies lie in TensorFlow's in-memory file system (`ram://`), which any reader of files can use.
So images keep their numbers and their order, and images that do not decode are replaced and
recorded as usual.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import os
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import logging

from simclr_tf import system_memory
from simclr_tf.data import decode, header
from simclr_tf.data.read_errors import reading_explained
from simclr_tf.data.source import Source
from simclr_tf.errors import RequestError

_GIB = 2**30
# Share of the available memory; the rest is for batches, networks and the library.
_LARGEST_SHARE = 0.8
# Concurrent reads; network file systems need many.
_READERS = 16


def hold(source: Source, cache: str) -> Source:
    """Reads a source into memory, once, and returns a source that reads from there.

    Args:
      source: files or records; a source in memory already is returned unchanged.
      cache: `none`, `encoded` (the files unchanged) or `decoded` (uint8 pixels, image files only).

    Raises:
      RequestError: it would not fit, cannot be read, or has record files and `cache` is `decoded`.
    """
    paths = source.files_read()
    if cache == "none" or not paths:
        return source
    if cache == "decoded" and not source.image_files:
        raise RequestError(
            "Decoded images can be held of files of their own, which are reached by number. "
            f"Received: data.cache = 'decoded' with {source.name}, whose records are read in "
            "order. Bind data.cache = 'encoded', or give the images as data.source = 'folder:'."
        )
    held = dataclasses.replace(source, cache=cache)
    copy = functools.partial(_copy_decoded, _decoder(source)) if cache == "decoded" else _copy
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        sizes = pool.map(
            _decoded_size if cache == "decoded" else _file_size, map(os.fsencode, paths)
        )
        total = sum(sizes)
        _check_fits(total, source, cache)
        start = time.perf_counter()
        list(pool.map(lambda path: _remove(held.location(path)), paths))
        with reading_explained(source):
            list(pool.map(lambda path: copy(os.fsencode(path), held.location(path)), paths))
    seconds = time.perf_counter() - start
    logging.info("%s: %.2f GiB in memory, read in %.0f s", source.name, total / _GIB, seconds)
    return held


def pixels(copy: tf.Tensor) -> tf.Tensor:
    """Returns the image, uint8 [H, W, 3], of a decoded copy, a string scalar."""
    flat = tf.io.decode_raw(copy, tf.uint8)
    shape = tf.bitcast(tf.reshape(flat[:8], [2, 4]), tf.int32)
    return tf.reshape(flat[8:], [shape[0], shape[1], 3])


def _file_size(path: bytes) -> int:
    return tf.io.gfile.stat(path).length


def _decoded_size(path: bytes) -> int:
    """Returns the size by the file's header; 0 for no image or one too large, which is not held."""
    from PIL import Image  # comes with matplotlib

    bomb = Image.DecompressionBombError
    try:
        with (
            tf.io.gfile.GFile(path, "rb") as file,
            Image.open(file, formats=("JPEG", "PNG", "GIF", "BMP", "WEBP")) as image,
        ):
            pixels = image.width * image.height
    except (OSError, ValueError, SyntaxError, bomb, tf.errors.OpError):
        return 0
    return 3 * pixels if pixels <= header.MAX_PIXELS else 0


def _check_fits(total: int, source: Source, cache: str) -> None:
    available = system_memory.available_bytes()
    if available is not None and total > _LARGEST_SHARE * available:
        smaller = {
            "encoded": "'none', with which files are read again in every epoch",
            "decoded": "'encoded', which takes the size of the files, or 'none'",
        }
        raise RequestError(
            f"data.cache must fit in {_LARGEST_SHARE:.0%} of the memory that is available, which "
            f"are {_LARGEST_SHARE * available / _GIB:.2f} of {available / _GIB:.2f} GiB. Received: "
            f"data.cache = {cache!r} with {source.name}, {source.num_examples:,} images, which "
            f"takes {total / _GIB:.2f} GiB. Bind data.cache = {smaller[cache]}."
        )


def _remove(copy: str) -> None:
    """Deletes the copy that an earlier source in this process left."""
    if tf.io.gfile.exists(copy):
        tf.io.gfile.remove(copy)


def _copy(path: bytes, to: str) -> None:
    with tf.io.gfile.GFile(path, "rb") as file:
        _write(to, file.read())


def _copy_decoded(decoder: Callable[[tf.Tensor], tf.Tensor], path: bytes, to: str) -> None:
    """Writes an image's pixels; an empty copy, which does not decode, if the image does not."""
    try:
        image = decoder(tf.io.read_file(path)).numpy()
    except tf.errors.InvalidArgumentError:
        _write(to, b"")
        return
    shape = np.array(image.shape[:2], np.int32)
    _write(to, shape.tobytes() + image.tobytes())


def _decoder(source: Source) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns the decoder, traced once for all threads that call it."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def decoder(encoded: tf.Tensor) -> tf.Tensor:
        return decode.decode_any(source.with_upper_bits(encoded))

    return decoder


def _write(path: str, content: bytes) -> None:
    with tf.io.gfile.GFile(path, "wb") as file:
        file.write(content)
