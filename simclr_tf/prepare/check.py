"""Reads every image of a folder once, and lists those that training from it would skip."""

from __future__ import annotations

import concurrent.futures
import os
import sys

from simclr_tf.data.folder_scan import extensions
from simclr_tf.data.reasons import reason
from simclr_tf.errors import RequestError
from simclr_tf.prepare import manifest, reasons
from simclr_tf.prepare.job import progress
from simclr_tf.prepare.scan import SourceFile, files_below


def check(root: str, csv_path: str, threads: int, follow_links: bool) -> int:
    """Decodes every image as training does, and writes a table of those that do not decode.

    Args:
      root: the folder.
      csv_path: the table: path, reason.
      threads: how many images are decoded at a time.
      follow_links: whether links that lead out of it are followed.

    Returns:
      How many do not decode.

    Raises:
      RequestError: the folder holds no image, or the table cannot be written.
    """
    files = [file for file in files_below(root, follow_links) if _is_image(file)]
    if not files:
        raise RequestError(f"The folder must hold images. Received: {root}, without one.")
    found: dict[str, str] = {}
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        said = pool.map(lambda file: _reason(os.path.join(root, file.path)), files)
        with progress("checking", len(files)) as bar:
            for file, why in zip(files, said, strict=True):
                if why:
                    found[file.path] = why
                bar.update()
    try:
        manifest.write_table(csv_path, ("path", "reason"), found.items())
    except OSError as error:
        raise RequestError(f"The table must be written. Received: {csv_path}, {error}.") from error
    print(f"{len(files) - len(found):,} of {len(files):,} images decode", file=sys.stderr)
    return len(found)


def _is_image(file: SourceFile) -> bool:
    return not file.left_out and reasons.names_an_image(file.path)


def _reason(path: str) -> str | None:
    """Returns why training does not read a file; None if it does."""
    extension = os.path.splitext(path)[1].lower()
    if extension not in extensions():
        return f"training does not read {extension} files from a folder: prepare the folder"
    return reason(path)
