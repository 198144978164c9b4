"""Says in words why a file is not read as an image."""

from __future__ import annotations

import os

from PIL import Image

_RAW = {".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw"}
_PLUG_INS = {"HEIC": "HEIF", "AVIF": "AVIF"}  # names that Pillow has for them, if installed
BEGINNING = 16
_OTHERS = _RAW | {".heic", ".heif", ".avif"}
_KINDS = (
    (b"\xff\xd8\xff", "JPEG", (".jpg", ".jpeg", ".jpe", ".jfif")),
    (b"\x89PNG\r\n", "PNG", (".png",)),
    (b"GIF8", "GIF", (".gif",)),
    (b"II*\0", "TIFF", (".tif", ".tiff")),
    (b"MM\0*", "TIFF", (".tif", ".tiff")),
    (b"%PDF", "PDF", (".pdf",)),
    (b"PK\x03\x04", "ZIP", (".zip",)),
    (b"8BPS", "Photoshop", (".psd",)),
)
_BRANDS = {
    b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"mif1": "HEIC", b"msf1": "HEIC",
    b"avif": "AVIF", b"avis": "AVIF", b"qt  ": "video", b"isom": "video", b"mp42": "video",
    b"mp41": "video", b"M4V ": "video",
}  # fmt: skip
_EXTRA = "install the extra `prepare` to read it: pip install 'simclr_tf[prepare]'"


def of(content: bytes, name: str, error: Exception) -> str:
    """Returns the reason of an error that reading the file raised."""
    extension = os.path.splitext(name)[1].lower()
    kind, extensions = _kind(content)
    named = "" if not extension or extension in extensions else f" named {extension}"
    if not content:
        return "an empty file"
    if kind in _PLUG_INS and _PLUG_INS[kind] not in Image.OPEN:
        return f"{_a(kind)} file{named}, which this Pillow does not decode; {_EXTRA}"
    if kind in ("PDF", "ZIP", "Photoshop", "video", "web page"):
        return f"a {kind}{'' if kind in ('video', 'web page') else ' file'}{named}"
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} megapixels"
    if isinstance(error, Image.UnidentifiedImageError):
        start = f"{_a(kind)} file{named}, " if kind and named else ""
        return f"{start}damaged at its beginning" if kind else f"no image{named}"
    said = str(error).rstrip(".")
    if isinstance(error, EOFError) or "truncated" in said.lower() or "unexpected end" in said:
        file = f"{_a(kind)} file{named}," if kind and named else _a(kind or f"file{named}")
        return f"{file} cut short"
    return f"damaged ({said or type(error).__name__})"


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'AE' else 'a'} {kind}"


def names_an_image(name: str) -> bool:
    """Returns whether a file of this name should hold an image, whether or not it is read."""
    extension = os.path.splitext(name)[1].lower()
    Image.init()
    return extension in _OTHERS or Image.EXTENSION.get(extension) in Image.OPEN


def begins_as_image(content: bytes) -> bool:
    """Returns whether the first bytes of a file, at least BEGINNING, are those of an image."""
    return _kind(content)[0] in ("JPEG", "PNG", "GIF", "TIFF", "WebP", "HEIC", "AVIF")


def unread(name: str) -> str:
    """Returns why a file of this name is not tried, or ""."""
    if os.path.splitext(name)[1].lower() in _RAW:
        return "a camera's raw file: develop it to JPEG or TIFF"  # Pillow gives its preview
    return ""


def _kind(content: bytes) -> tuple[str, tuple[str, ...]]:
    """Returns the format that the first bytes tell, "" if none, and its extensions."""
    for start, kind, extensions in _KINDS:
        if content.startswith(start):
            return kind, extensions
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "WebP", (".webp",)
    if content[4:8] == b"ftyp":
        kind = _BRANDS.get(content[8:12], "video")
        return kind, {"HEIC": (".heic", ".heif"), "AVIF": (".avif",)}.get(
            kind, (".mov", ".mp4", ".m4v")
        )
    head = content[:512].lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        return "web page", (".html", ".htm")
    return "", ()
