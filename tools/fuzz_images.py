"""Sends damaged image files through the decoding of training, and counts the outcomes.

    python tools/fuzz_images.py --data_dir=PHOTOS [--minutes=60] [--seed=0] [--keep=DIR]

Real files, and PNG, GIF, BMP, WebP and other JPEG versions of them made here, some with EXIF data,
are mutated: bits, length fields, headers, ends, pieces of one file in another. A second process
decodes them, so that a crash
is counted too. Each file must decode within the bounds or be refused as a bad image; any other
outcome is a failure, whose file is kept. The same seed gives the same files. Exits with 1 if there
was a failure.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import multiprocessing
import pathlib
import resource
import sys
import time
from collections.abc import Callable, Sequence

import command_line  # beside this file
from image_mutations import mutant, seeds_of

_SIZE = 64  # of a view; decoded images keep the sides of their files


@dataclasses.dataclass
class Counts:
    """Outcomes of the files, and the largest time and memory of one file."""

    outcomes: collections.Counter
    mutations: collections.Counter
    slowest: float = 0.0
    peak_mib: float = 0.0

    @property
    def failures(self) -> int:
        return sum(self.outcomes.values()) - self.outcomes["decoded"] - self.outcomes["refused"]


def decode_all(connection) -> None:
    """Runs in the second process: answers each file with its outcome, until there are no more."""
    from simclr_tf.tensorflow_start import import_tensorflow

    import_tensorflow()
    path = _decoding_path()
    while content := connection.recv_bytes():
        start = time.perf_counter()
        try:
            result = _outcome(path, content[1:])
        except Exception as error:
            result = f"{type(error).__name__}: {str(error)[-200:]}"
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        connection.send_bytes(json.dumps([result, seconds, peak]).encode())


def _decoding_path() -> Callable:
    """Builds: encoded image -> crops for training, centre crop, declared size, and actual size."""
    import tensorflow as tf

    from simclr_tf.augment.policy import augmentation
    from simclr_tf.augment.views import ViewGroup
    from simclr_tf.data import decode, header
    from simclr_tf.data.image_views import ImageViews

    tf.get_logger().setLevel("ERROR")
    views = ImageViews(
        groups=[ViewGroup("images", [augmentation()] * 2, _SIZE)],
        seed=0,
        on_host=True,
        rounded=False,
        decoded=False,
    )

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def path(encoded: tf.Tensor):
        zero = tf.constant(0, tf.int64)
        crops = views.crops(encoded, zero, zero)
        shape = header.image_shape(encoded)
        small = tf.reduce_prod(shape) <= 2**20
        whole = tf.cond(small, lambda: tf.shape(decode.decode_any(encoded))[:2], lambda: shape)
        return crops, decode.decode_center(encoded, _SIZE), shape, whole

    return path


def _outcome(path: Callable, encoded: bytes) -> str:
    import tensorflow as tf

    from simclr_tf.data import header

    try:
        crops, center, shape, whole = path(encoded)
    except tf.errors.InvalidArgumentError:
        return "refused"
    height, width = shape.numpy().tolist()
    if height * width > header.MAX_PIXELS or whole.numpy().tolist() != [height, width]:
        return f"says {height} x {width} and is {whole.numpy().tolist()}"
    fine = all(bool(tf.reduce_all(tf.math.is_finite(x))) for x in (*crops, center))
    return "decoded" if fine else "not finite"


class Decoder:
    """The second process, restarted after each crash.

    Args:
      max_seconds: time limit per file; beyond it the file counts as hanging.
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
        # An empty file makes it load TensorFlow and trace.
        result, _, peak = self._answer(b"", 300)
        if not peak:
            raise RuntimeError(f"The decoding process must start. Received: it {result}.")

    def outcome(self, content: bytes) -> tuple[str, float, float]:
        """Returns the outcome of one file, the seconds, and the peak memory so far in MiB."""
        result, seconds, peak = self._answer(content, self._max_seconds)
        if not peak:
            self._process.kill()
            self._start()
        return result, seconds, peak

    def _answer(self, content: bytes, limit: float) -> tuple[str, float, float]:
        """Does the same; reports no memory if the process is no longer usable."""
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
    """Formats the counts as text."""
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


@command_line.refusing
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program on `argv` (default: the command line's) and returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=command_line.path, required=True, help="real images")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long")
    parser.add_argument("--files", type=int, help="how many files at most")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument(
        "--keep", type=command_line.path, default=pathlib.Path("fuzz_failures"), help="for failures"
    )
    parser.add_argument("--max_seconds", type=float, default=60.0, help="that a file may take")
    parser.add_argument("--max_mib", type=float, default=6144.0, help="that decoding may take")
    arguments = parser.parse_args(argv)
    try:
        counts = fuzz(arguments)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return command_line.WRONG_REQUEST
    print(report(counts))
    return 1 if counts.failures else 0


if __name__ == "__main__":
    sys.exit(main())
