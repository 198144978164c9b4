"""Reads every image of a folder once, and lists those that training from it would skip."""

from __future__ import annotations

import concurrent.futures
import os
import sys

import tensorflow as tf

from simclr_tf.data import decode, folder_source
from simclr_tf.errors import RequestError, cause
from simclr_tf.prepare import manifest, pictures, reasons
from simclr_tf.prepare.job import progress
from simclr_tf.prepare.scan import SourceFile, scan


def check(root: str, csv_path: str, threads: int, follow_links: bool) -> int:
    """Decodes every image as training does, and writes a table of those that do not decode.

    Args:
      root: the folder.
      csv_path: the table: path, reason.
      threads: how many images are decoded at a time.
      follow_links: as for `scan`.

    Returns:
      How many do not decode.

    Raises:
      RequestError: the folder holds no image, or the table cannot be written.
    """
    files = [file for file in scan(root, follow_links).files if _is_image(file)]
    if not files:
        raise RequestError(f"The folder must hold images. Received: {root}, without one.")
    found: dict[str, str] = {}
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        said = pool.map(lambda file: _reason(os.path.join(root, file.path)), files)
        with progress("checking", len(files)) as bar:
            for file, reason in zip(files, said, strict=True):
                if reason:
                    found[file.path] = reason
                bar.update()
    try:
        manifest.write_table(csv_path, ("path", "reason"), found.items())
    except OSError as error:
        raise RequestError(f"The table must be written. Received: {csv_path}, {error}.") from error
    print(f"{len(files) - len(found):,} of {len(files):,} images decode", file=sys.stderr)
    return len(found)


def _is_image(file: SourceFile) -> bool:
    return not file.left_out and reasons.names_an_image(file.path)


def _reason(path: str) -> str:
    """Returns why training does not read a file; empty if it does."""
    extension = os.path.splitext(path)[1].lower()
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if extension not in folder_source.EXTENSIONS:
        return f"training does not read {extension} files from a folder: prepare the folder"
    try:
        decode.decode_any(tf.constant(content))
    except tf.errors.InvalidArgumentError as error:
        return _explained(content, path, cause(error))
    return ""


def _explained(content: bytes, path: str, said: str) -> str:
    """Returns why TensorFlow refuses a file: what Pillow says of it, or else TensorFlow."""
    try:
        pictures.read(content, path, 64)
    except pictures.Unreadable as error:
        return str(error)
    return reasons.misnamed(content, path) or f"damaged ({said})"
