"""Says in words why a file is not read as an image."""

from __future__ import annotations

import os

from PIL import Image

from simclr_tf.data import file_kinds

# Bytes that tell what a file is.
BEGINNING = 16

_RAW = {".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw"}
_PLUG_INS = {"a HEIC file": "HEIF", "an AVIF file": "AVIF"}  # Pillow's names, if installed
_OTHERS = _RAW | {".heic", ".heif", ".avif"}
_IMAGES = {f"a {name} file" for name in ("JPEG", "PNG", "GIF", "TIFF", "WebP")} | {*_PLUG_INS}
_EXTRA = "install the extra `prepare` to read it: pip install 'simclr_tf[prepare]'"


def of(content: bytes, name: str, error: Exception) -> str:
    """Returns the reason of an error that reading the file raised."""
    kind = file_kinds.name_of(content)
    misnamed = file_kinds.misnamed(kind, name)
    if kind in _PLUG_INS and _PLUG_INS[kind] not in Image.OPEN:
        return f"{kind}{misnamed}, which this Pillow does not decode; {_EXTRA}"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} megapixels"
    if kind and kind not in _IMAGES and isinstance(error, Image.UnidentifiedImageError):
        return f"{kind}{misnamed}" if content else kind
    file = f"{kind}{misnamed}" if kind in _IMAGES else f"no image{misnamed}"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"{file}, damaged at its beginning" if kind else file
    said = str(error).rstrip(".")
    if isinstance(error, EOFError) or "truncated" in said.lower() or "unexpected end" in said:
        return f"{kind or 'a file'}{misnamed}, cut short"
    return f"damaged ({said or type(error).__name__})"


def names_an_image(name: str) -> bool:
    """Returns whether a file of this name should hold an image, whether or not it is read."""
    extension = os.path.splitext(name)[1].lower()
    Image.init()
    return extension in _OTHERS or Image.EXTENSION.get(extension) in Image.OPEN


def begins_as_image(content: bytes) -> bool:
    """Returns whether the first bytes of a file, at least BEGINNING, are those of an image."""
    return file_kinds.name_of(content) in _IMAGES


def unread(name: str) -> str:
    """Returns why a file of this name is not tried, or ""."""
    if os.path.splitext(name)[1].lower() in _RAW:
        return "a camera's raw file: develop it to JPEG or TIFF"  # Pillow gives its preview
    return ""
