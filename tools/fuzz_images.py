"""Sends damaged image files through the decoding of training, and counts what becomes of them.

    python tools/fuzz_images.py --data_dir=PHOTOS [--minutes=60] [--seed=0] [--keep=DIR]

Real files, and PNG, GIF, BMP and other JPEG versions of them made here, are mutated: bits, length
fields, headers, ends, pieces of one file in another. A second process decodes them, so that a crash
is counted too. Each must decode within the bounds or be refused as a bad image; whatever else
happens is a failure, whose file is kept. The same seed gives the same files. Exits with 1 if there
was a failure.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import io
import json
import multiprocessing
import os
import pathlib
import random
import resource
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence

_MIB = 2**20
_SIZE = 64  # of a view; the sides of the images that are decoded are those of the files
_VERSIONS_OF = 12
_PNG = b"\x89PNG"


@dataclasses.dataclass
class Counts:
    """What became of the files, and the most that one of them took."""

    outcomes: collections.Counter
    mutations: collections.Counter
    slowest: float = 0.0
    peak_mib: float = 0.0

    @property
    def failures(self) -> int:
        return sum(self.outcomes.values()) - self.outcomes["decoded"] - self.outcomes["refused"]


def seeds_of(folder: pathlib.Path) -> list[bytes]:
    """The image files below a folder, and versions of the first of them in other formats."""
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
        ]:
            buffer = io.BytesIO()
            version.save(buffer, form, **settings)
            seeds.append(buffer.getvalue())
    return seeds


def mutant(seeds: Sequence[bytes], seed: int, number: int) -> tuple[str, bytes]:
    """The file with this number: the names of its mutations, and its bytes."""
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
    """A piece of a file, this or another one, over or between what is here, or nothing there."""
    other = rng.choice([bytes(content), rng.choice(seeds), b""])
    begin = rng.randrange(len(other) + 1)
    piece = other[begin : begin + 2 ** rng.randrange(16)]
    place = rng.randrange(len(content) + 1)
    content[place : place + rng.choice([0, len(piece), 2 ** rng.randrange(14)])] = piece


def _edit_length(content: bytearray, rng: random.Random, seeds: Sequence[bytes]) -> None:
    """A length or size of the format, where one is found."""
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
    """Where lengths and sizes are, and how they are stored."""
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


def _chunks(content: bytes) -> Iterator[tuple[int, int]]:
    """Place and length of the chunks of a PNG."""
    place = 8
    while place + 12 <= len(content):
        length = struct.unpack_from(">I", content, place)[0]
        yield place, length
        place += 12 + length


def _with_checksums(content: bytearray) -> bytearray:
    """A PNG in which the decoder does not stop at the first chunk that was changed."""
    for place, length in _chunks(content):
        end = place + 8 + length
        if end + 4 <= len(content):
            struct.pack_into(">I", content, end, zlib.crc32(content[place + 4 : end]))
    return content


def decode_all(connection) -> None:
    """The second process: answers each file with its outcome, until there are no more."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import tensorflow as tf

    from simclr_tf.augment.policy import augmentation
    from simclr_tf.data import decode, header
    from simclr_tf.data.bad_images import BadImages
    from simclr_tf.data.pipeline import ViewsPipeline
    from simclr_tf.data.source import FileSource

    tf.get_logger().setLevel("ERROR")
    source = FileSource(name="fuzz", num_examples=1, class_names=None, paths=["fuzz"], labels=None)
    views = ViewsPipeline(
        source=source,
        augmentation=augmentation(),
        image_size=_SIZE,
        seed=0,
        bad_images=BadImages(source),
    )

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def path(encoded: tf.Tensor):
        zero = tf.constant(0, tf.int64)
        crops = views.crops(encoded, zero, zero)
        shape = header.image_shape(encoded)
        small = tf.reduce_prod(shape) <= 2**20
        whole = tf.cond(small, lambda: tf.shape(decode.decode_any(encoded))[:2], lambda: shape)
        return crops, decode.decode_center(encoded, _SIZE), shape, whole

    def outcome(encoded: bytes) -> str:
        try:
            crops, center, shape, whole = path(encoded)
        except tf.errors.InvalidArgumentError:
            return "refused"
        height, width = shape.numpy().tolist()
        if height * width > header.MAX_PIXELS or whole.numpy().tolist() != [height, width]:
            return f"says {height} x {width} and is {whole.numpy().tolist()}"
        fine = all(bool(tf.reduce_all(tf.math.is_finite(x))) for x in (*crops, center))
        return "decoded" if fine else "not finite"

    while content := connection.recv_bytes():
        start = time.perf_counter()
        try:
            result = outcome(content[1:])
        except Exception as error:
            result = f"{type(error).__name__}: {str(error)[-200:]}"
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        connection.send_bytes(json.dumps([result, seconds, peak]).encode())


class Decoder:
    """The second process, started again after each crash.

    Args:
      max_seconds: that a file may take, after which it counts as hanging.
    """

    def __init__(self, max_seconds: float):
        self._max_seconds = max_seconds
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=decode_all, args=(other,), daemon=True)
        self._process.start()
        other.close()
        # Of no file, which loads TensorFlow and traces.
        result, _, peak = self._answer(b"", 300)
        if not peak:
            raise RuntimeError(f"The decoding process must start. Received: it {result}.")

    def outcome(self, content: bytes) -> tuple[str, float, float]:
        """Of one file: what became of it, the seconds, and the peak memory so far in MiB."""
        result, seconds, peak = self._answer(content, self._max_seconds)
        if not peak:
            self._process.kill()
            self._start()
        return result, seconds, peak

    def _answer(self, content: bytes, limit: float) -> tuple[str, float, float]:
        """The same; no memory where the process is of no more use."""
        try:
            self._connection.send_bytes(b"+" + content)
            if self._connection.poll(limit):
                return tuple(json.loads(self._connection.recv_bytes()))
            return f"takes more than {limit:g} s", limit, 0.0
        except (EOFError, OSError):
            self._process.join(10)
            return f"ends the process ({self._process.exitcode})", limit, 0.0

    def close(self) -> None:
        self._connection.send_bytes(b"")
        self._process.join(10)


def fuzz(arguments: argparse.Namespace) -> Counts:
    """Sends mutants until the time is over, or `--files` of them."""
    seeds = seeds_of(arguments.data_dir)
    print(f"{len(seeds)} files to mutate", flush=True)
    decoder = Decoder(arguments.max_seconds)
    counts = Counts(collections.Counter(), collections.Counter())
    end = time.monotonic() + 60 * arguments.minutes
    number = 0
    while time.monotonic() < end and number < (arguments.files or number + 1):
        names, content = mutant(seeds, arguments.seed, number)
        result, seconds, peak = decoder.outcome(content)
        if peak > arguments.max_mib and result in ("decoded", "refused"):
            result = f"takes more than {arguments.max_mib} MiB"
        counts.outcomes[result] += 1
        counts.mutations.update(names.split("+"))
        counts.slowest, counts.peak_mib = max(counts.slowest, seconds), max(counts.peak_mib, peak)
        if result not in ("decoded", "refused"):
            arguments.keep.mkdir(parents=True, exist_ok=True)
            (arguments.keep / f"{arguments.seed}_{number}").write_bytes(content)
            print(f"file {number} ({names}): {result}", flush=True)
        number += 1
        if number % 10_000 == 0:
            print(f"{number:,} so far: {dict(counts.outcomes.most_common(3))}", flush=True)
    decoder.close()
    return counts


def report(counts: Counts) -> str:
    """The counts as text."""
    total = sum(counts.outcomes.values())
    lines = [
        f"mutated files  {total:,}",
        *(f"  with {name:<10} {n:,}" for name, n in counts.mutations.most_common()),
        f"decoded        {counts.outcomes['decoded']:,}",
        f"refused        {counts.outcomes['refused']:,}",
        f"failures       {counts.failures:,}",
        f"slowest        {counts.slowest:.2f} s",
        f"peak memory    {counts.peak_mib:,.0f} MiB of the process that decodes",
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program on `argv` (default: the command line's) and returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=pathlib.Path, required=True, help="real images")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long")
    parser.add_argument("--files", type=int, help="how many files at most")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument(
        "--keep", type=pathlib.Path, default=pathlib.Path("fuzz_failures"), help="for failures"
    )
    parser.add_argument("--max_seconds", type=float, default=60.0, help="that a file may take")
    parser.add_argument("--max_mib", type=float, default=6144.0, help="that decoding may take")
    arguments = parser.parse_args(argv)
    try:
        counts = fuzz(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report(counts))
    return 1 if counts.failures else 0


if __name__ == "__main__":
    sys.exit(main())
