"""Damaged image files for tools/fuzz_images.py: real files, mutated by numbers from a seed."""

from __future__ import annotations

import io
import pathlib
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence

_VERSIONS_OF = 12
_PNG = b"\x89PNG"


def seeds_of(folder: pathlib.Path) -> list[bytes]:
    """Returns the image files below a folder, and the first of them in other formats."""
    from PIL import Image

    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise ValueError(f"--data_dir must hold JPEG or PNG files. Received: {folder}.")
    seeds = [file.read_bytes() for file in files]
    for content in seeds[:_VERSIONS_OF]:
        image = Image.open(io.BytesIO(content)).convert("RGB")
        image.thumbnail((160, 160))
        turned = [image.rotate(90), image.rotate(180)]
        for version, form, settings in [
            (image, "PNG", {}),
            (image.convert("P"), "PNG", {}),
            (image.convert("LA"), "PNG", {}),
            (image.convert("L").convert("I;16"), "PNG", {}),
            (image, "GIF", {"save_all": True, "append_images": turned}),
            (image, "BMP", {}),
            (image.convert("P"), "BMP", {}),
            (image.convert("CMYK"), "JPEG", {}),
            (image, "JPEG", {"progressive": True}),
            *((image, form, {"exif": _exif(image)}) for form in ("JPEG", "PNG", "WEBP")),
            (image, "WEBP", {"lossless": True}),
            (image, "WEBP", {"save_all": True, "append_images": turned}),
        ]:
            buffer = io.BytesIO()
            version.save(buffer, form, **settings)
            seeds.append(buffer.getvalue())
    return seeds


def _exif(image) -> bytes:
    """Returns EXIF data that turn an image, by a value that depends on its size."""
    exif = image.getexif()
    exif[0x0112] = 1 + (image.width + image.height) % 8
    return exif.tobytes()


def mutant(seeds: Sequence[bytes], seed: int, number: int) -> tuple[str, bytes]:
    """Returns the file with this number: the names of its mutations, and its bytes."""
    rng = random.Random(f"{seed} {number}")
    content = bytearray(rng.choice(seeds))
    names = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        name = rng.choice(sorted(_MUTATIONS))
        _MUTATIONS[name](content, rng, seeds)
        names.append(name)
    if content.startswith(_PNG) and rng.random() < 0.7:
        content = _with_checksums(content)
    return "+".join(names), bytes(content)


def _flip_bits(content: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    for _ in range(2 ** rng.randrange(8) if content else 0):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)


def _truncate(content: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    del content[rng.randrange(len(content) + 1) :]


def _edit_header(content: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    for _ in range(rng.randrange(1, 5) if content else 0):
        content[rng.randrange(min(len(content), 64))] = rng.choice(
            [0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)]
        )


def _splice(content: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    """Inserts or overwrites with a piece of this or another file, or deletes a piece."""
    other = rng.choice([bytes(content), rng.choice(seeds), b""])
    begin = rng.randrange(len(other) + 1)
    piece = other[begin : begin + 2 ** rng.randrange(16)]
    place = rng.randrange(len(content) + 1)
    content[place : place + rng.choice([0, len(piece), 2 ** rng.randrange(14)])] = piece


def _edit_length(content: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    """Changes a length or size field of the format, if one is found."""
    fields = list(_fields(content))
    if fields:
        place, form = rng.choice(fields)
        bits = 8 * struct.calcsize(form)
        value = rng.choice(
            [0, 1, 2**bits - 1, 2 ** (bits - 1), rng.getrandbits(bits), rng.randrange(20_000)]
        )
        struct.pack_into(form, content, place, value % 2**bits)


_MUTATIONS: dict[str, Callable[[bytearray, random.Random, Sequence[bytes]], None]] = {
    "bits": _flip_bits,
    "truncation": _truncate,
    "header": _edit_header,
    "splice": _splice,
    "length": _edit_length,
}


def _fields(content: bytes) -> Iterator[tuple[int, str]]:
    """Yields the places of lengths and sizes, and their storage formats."""
    if content.startswith(b"\xff\xd8"):
        places = [m for m in range(2, min(len(content), 4096) - 9) if content[m] == 0xFF]
        for place in places:
            yield place + 2, ">H"
            if content[place + 1] in (0xC0, 0xC1, 0xC2):
                yield from [(place + 5, ">H"), (place + 7, ">H")] * 4
    elif content.startswith(_PNG):
        yield from [(16, ">I"), (20, ">I")] if len(content) >= 24 else []
        yield from [(place, ">I") for place, _ in _chunks(content)]
    elif content.startswith(b"GIF") and len(content) > 900:
        yield from [(6, "<H"), (8, "<H"), (10, "B")]
        frame = content.find(b"\x2c\0\0\0\0", 13, 900)
        yield from [(frame + 5, "<H"), (frame + 7, "<H"), (frame + 11, "B")] if frame > 0 else []
    elif content.startswith(b"BM") and len(content) > 64:
        yield from [(10, "<I"), (14, "<I"), (18, "<I"), (22, "<I"), (28, "<H"), (46, "<I")]
    elif content.startswith(b"RIFF") and len(content) > 40:
        yield from [(4, "<I"), (16, "<I"), (20, "B"), (21, "<I"), (26, "<H"), (28, "<H")]


def _chunks(content: bytes) -> Iterator[tuple[int, int]]:
    """Yields place and length of the chunks of a PNG."""
    place = 8
    while place + 12 <= len(content):
        length = struct.unpack_from(">I", content, place)[0]
        yield place, length
        place += 12 + length


def _with_checksums(content: bytearray) -> bytearray:
    """Repairs a PNG's checksums, so that the decoder reads past the first changed chunk."""
    for place, length in _chunks(content):
        end = place + 8 + length
        if end + 4 <= len(content):
            struct.pack_into(">I", content, end, zlib.crc32(content[place + 4 : end]))
    return content
