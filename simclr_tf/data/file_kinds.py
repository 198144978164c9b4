"""Recognizes kinds of files by their first bytes, also those that are no images."""

from __future__ import annotations

import os

# First bytes, where a full stop is any byte; the name; and the usual endings.
_KINDS: tuple[tuple[bytes, str, tuple[str, ...]], ...] = (
    (b"\xff\xd8\xff", "a JPEG file", (".jpg", ".jpeg", ".jpe", ".jfif")),
    (b"\x89PNG\r\n", "a PNG file", (".png",)),
    (b"GIF8", "a GIF file", (".gif",)),
    (b"RIFF....WEBP", "a WebP file", (".webp",)),
    (b"II*\0", "a TIFF file", (".tif", ".tiff")),
    (b"MM\0*", "a TIFF file", (".tif", ".tiff")),
    (b"II+\0", "a BigTIFF file", (".tif", ".tiff")),
    (b"MM\0+", "a BigTIFF file", (".tif", ".tiff")),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 file", (".jp2", ".jpx")),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 file", (".j2k", ".j2c")),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL file", (".jxl",)),
    (b"\xff\x0a", "a JPEG XL file", (".jxl",)),
    (b"8BPS", "a Photoshop file", (".psd", ".psb")),
    (b"\0\0\1\0", "an icon (ICO)", (".ico",)),
    (b"FUJIFILMCCD-RAW", "a camera's raw file", (".raf",)),
    (b"IIRO", "a camera's raw file", (".orf",)),
    (b"IIU\0", "a camera's raw file", (".rw2",)),
    (b"v/1\1", "an OpenEXR file", (".exr",)),
    (b"#?RADIANCE", "a Radiance HDR file", (".hdr",)),
    (b"DDS ", "a DirectDraw surface", (".dds",)),
    (b"gimp xcf", "a GIMP file", (".xcf",)),
    (b"\x8aMNG", "an MNG animation", (".mng",)),
    (b"%PDF", "a PDF file", (".pdf",)),
    (b"%!PS", "a PostScript file", (".ps", ".eps")),
    (b"PK\3\4", "a ZIP archive", (".zip",)),
    (b"\x1f\x8b", "a gzip file", (".gz", ".tgz")),
    (b"Rar!", "a RAR archive", (".rar",)),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", (".7z",)),
    (b"RIFF....AVI ", "a video (AVI)", (".avi",)),
    (b"\x1aE\xdf\xa3", "a video (Matroska or WebM)", (".mkv", ".webm")),
    (b"\x93NUMPY", "a NumPy file", (".npy",)),
    (b"\x89HDF\r\n", "an HDF5 file", (".h5", ".hdf5")),
    (b"\0\5\x16\7", "a file of macOS about another file, without an image", ()),
    (b"version https://git-lfs", "a Git LFS pointer in place of the image", ()),
)
_IN_FTYP = {
    b"avif": ("an AVIF file", (".avif",)),
    b"avis": ("an AVIF file", (".avif",)),
    b"crx ": ("a camera's raw file", (".cr3",)),
} | dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
    ("a HEIC file", (".heic", ".heif", ".hif")),
)
_VIDEO = ("a video (MP4 or QuickTime)", (".mp4", ".mov", ".m4v", ".3gp"))


def name_of(content: bytes) -> str | None:
    """Returns the kind of a file in words, such as "a HEIC file"; None if it is unknown."""
    if not content:
        return "an empty file"
    if not content.strip(b"\0"):
        return "a file of zeros"
    if content[4:8] == b"ftyp":
        return _of_ftyp(content)[0]
    for magic, name, _ in _KINDS:
        if all(m in (b, 0x2E) for m, b in zip(magic, content[: len(magic)], strict=False)) and len(
            content
        ) >= len(magic):
            return name
    if content[128:132] == b"DICM":
        return "a DICOM file"
    return _text(content)


def misnamed(kind: str | None, name: str) -> str:
    """Returns " named .jpg" and the like where a file's ending is not usual for its kind, or ""."""
    ending = os.path.splitext(name)[1].lower()
    known = [(other, ends) for _, other, ends in _KINDS] + [*_IN_FTYP.values(), _VIDEO]
    usual = any(ending in ends for other, ends in known if other == kind)
    return f" named {ending}" if ending and not usual else ""


def _of_ftyp(content: bytes) -> tuple[str, tuple[str, ...]]:
    """Looks at the major brand, and at the compatible ones if that is a general one."""
    major = content[8:12]
    others = [content[i : i + 4] for i in range(16, min(64, len(content)), 4)]
    if major in (b"mif1", b"msf1"):
        major = b"avif" if b"avif" in others else b"heic"
    return _IN_FTYP.get(major, _VIDEO)


def _text(content: bytes) -> str | None:
    start = content[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head")):
        return "an HTML page"
    if start.startswith(b"<svg") or (start.startswith(b"<?xml") and b"<svg" in start):
        return "an SVG drawing"
    if start.startswith(b"<?xml"):
        return "an XML file"
    try:
        text = content[:512].decode("ascii")
    except UnicodeDecodeError:
        return None
    return "a text file" if all(c.isprintable() or c.isspace() for c in text) else None
