"""Prepares a data set, once: a folder of images, or one of tensorflow_datasets.

    python tools/prepare_dataset.py folder:PHOTOS --data_dir=DIR
    python tools/prepare_dataset.py folder:PHOTOS --check
    python tools/prepare_dataset.py cifar10 --data_dir=DIR

folder:PHOTOS makes of a folder a set that trains at full speed: all formats of Pillow, upright, in
sRGB, small, without copies, in splits, as records in DIR. PHOTOS is only read. A manifest in DIR
says what became of every file. The same command resumes after an interruption.

--check decodes every image of PHOTOS as training does, and writes a table of those that it would
skip, with reasons (unreadable.csv, or --csv=FILE). It exits with 1 if there are any.

A name downloads a data set of tensorflow_datasets, which training never does. For one that must be
fetched by hand, such as imagenet2012, this prints which files to put where. shapes is the embedded
data set.
"""

from __future__ import annotations

import argparse
import sys

import command_line  # beside this file


@command_line.refusing
def main(argv: list[str] | None = None) -> int:
    """Prepares or checks a data set, and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="folder:PHOTOS; NAME or NAME/CONFIG; or shapes")
    parser.add_argument(
        "--data_dir",
        type=command_line.address,
        help="where the set is written (a NAME's default: ~/tensorflow_datasets)",
    )
    folder = parser.add_argument_group("options of folder:PHOTOS")
    folder.add_argument("--size", type=int, default=512, help="at most, of the shorter side")
    folder.add_argument(
        "--test_percent", type=float, default=10, help="of images, where there are no splits"
    )
    folder.add_argument("--seed", type=int, default=0, help="of the test split and the order")
    folder.add_argument(
        "--bit_depth", type=int, default=16, help="bits in use of 16-bit gray images, such as 12"
    )
    folder.add_argument("--follow_links", action="store_true", help="those that lead outside too")
    folder.add_argument("--processes", type=int, help="(one for each processor)")
    folder.add_argument("--check", action="store_true", help="only write the table of --csv")
    folder.add_argument(
        "--csv",
        type=command_line.address,
        default="unreadable.csv",
        help="the table of --check (unreadable.csv)",
    )
    options = parser.parse_args(argv)
    if not options.name.startswith("folder:"):
        return _prepare_named(options)
    return _check(options) if options.check else _prepare_folder(options)


def _prepare_folder(options: argparse.Namespace) -> int:
    from simclr_tf.errors import RequestError
    from simclr_tf.prepare import job, summary

    if not options.data_dir:
        raise RequestError("A folder for the set must be given. Received: no --data_dir.")
    request = job.Request(
        root=_root(options),
        data_dir=options.data_dir,
        size=options.size,
        test_percent=options.test_percent,
        seed=options.seed,
        bit_depth=options.bit_depth,
        follow_links=options.follow_links,
        processes=_processes(options),
    )
    print(summary.of(job.prepare(request), request.data_dir))
    return 0


def _check(options: argparse.Namespace) -> int:
    from simclr_tf.tensorflow_start import import_tensorflow

    import_tensorflow()
    from simclr_tf.prepare import check

    bad = check.check(_root(options), options.csv, _processes(options), options.follow_links)
    if bad:
        print(f"{bad:,} do not; {options.csv} names them, with reasons")
    return int(bad > 0)


def _root(options: argparse.Namespace) -> str:
    from simclr_tf.errors import RequestError

    root = command_line.address(options.name.removeprefix("folder:"))
    if not root:
        raise RequestError("A folder of images must be given. Received: folder: without a path.")
    return root


def _processes(options: argparse.Namespace) -> int:
    from simclr_tf.errors import RequestError
    from simclr_tf.prepare import processes

    if options.processes is None:
        return processes.available()
    if options.processes < 1:
        raise RequestError(f"--processes must be at least 1. Received: {options.processes}.")
    return options.processes


def _prepare_named(options: argparse.Namespace) -> int:
    from simclr_tf.tensorflow_start import import_tensorflow

    import_tensorflow()
    import tensorflow_datasets as tfds

    from simclr_tf.data import shapes
    from simclr_tf.errors import RequestError

    if options.check:
        raise RequestError(f"--check reads a folder. Received: {options.name}, not folder:PHOTOS.")
    if options.name == "shapes":
        builder = shapes.prepare(options.data_dir)
    else:
        try:
            builder = tfds.builder(options.name, data_dir=options.data_dir)
        except (tfds.core.DatasetNotFoundError, ValueError) as error:
            raise RequestError(
                "A data set must be folder:PHOTOS, shapes, or a name of tensorflow_datasets. "
                f"Received: {options.name}."
            ) from error
        try:
            builder.download_and_prepare()
        except AssertionError as error:  # the files that must be fetched by hand
            raise RequestError(str(error)) from error
    for name, split in builder.info.splits.items():
        print(f"{name}: {split.num_examples:,} examples")
    print(f"prepared in {builder.data_dir}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
