"""Measures the cost of a recipe on this machine, with baselines measured in the same run.

    python tools/benchmark.py input --gin_file=gin/folder.gin --data_dir=PHOTOS
    python tools/benchmark.py step --gin_file=gin/cifar10_cpu.gin --data_dir=DIR
    python tools/benchmark.py step --runtime=pjrt --gin_file=gin/quickstart.gin
    python tools/benchmark.py methods --data_dir=DIR --gin_file=gin/cifar10_cpu.gin \
        --gin_file=gin/methods/cifar10_cpu_byol.gin
    python tools/benchmark.py loss --images=4096
    python tools/benchmark.py export --gin_file=gin/quickstart.gin
    python tools/benchmark.py checkpoint --gin_file=gin/r50_4x.gin
    python tools/benchmark.py resume --images=3072

input       images/s of the pipeline that makes views, against the recipe in plain tf.image
step        views/s of a training step, against a plain float32 Keras step; with --runtime=pjrt
            steps/s as a run takes them, against the program on a batch that stays
methods     images/s of a training step of each recipe, against the first one's
loss        steps/s of NT-Xent and its gradient, against four plain matrix products
export      seconds to save, restore and export what the recipe trains
checkpoint  seconds that a save keeps the loop waiting, against writing it at once
resume      seconds and bytes to the first batch inside an epoch of record files, against all

All take turns, and ratios are medians over the rounds: compare ratios, not numbers of two runs.
"""

from __future__ import annotations

import argparse
import sys

import command_line  # beside this file


@command_line.refusing
def main(argv: list[str] | None = None) -> int:
    """Runs one measurement, prints its tables, and returns the program's exit code."""
    options = _options(argv)
    from simclr_tf.tensorflow_start import import_tensorflow

    import_tensorflow()
    from simclr_tf.benchmark import timing

    print(timing.machine(), flush=True)
    if options.what == "loss":
        from simclr_tf.benchmark import loss

        print(timing.table(loss.measure(options.images, options.dim, options.rounds), "steps"))
    elif options.what == "resume":
        from simclr_tf.benchmark import resume

        print(resume.measure(options.images, options.rounds))
    else:
        _measure_recipe(options)
    return 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = ["input", "step", "methods", "loss", "export", "checkpoint", "resume"]
    parser.add_argument("what", choices=kinds)
    command_line.add_recipe_flags(parser)
    parser.add_argument(
        "--runtime", choices=["tensorflow", "pjrt"], default="tensorflow", help="of step"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed")
    parser.add_argument(
        "--images", type=int, default=4096, help="of loss: in the batch; of resume: in all"
    )
    parser.add_argument("--dim", type=int, default=128, help="of loss: width of a projection")
    options = parser.parse_args(argv)
    for name, least in (("rounds", 1), ("images", 2), ("dim", 1)):
        value = getattr(options, name)
        if value < least:
            parser.error(f"--{name} must be at least {least}. Received: {value}.")
    if options.runtime != "tensorflow" and options.what != "step":
        parser.error(f"--runtime is of step. Received: --runtime={options.runtime}.")
    return options


def _measure_recipe(options: argparse.Namespace) -> None:
    import importlib

    name = "pjrt_step" if (options.what, options.runtime) == ("step", "pjrt") else options.what
    measurement = importlib.import_module(f"simclr_tf.benchmark.{name}")
    recipes = command_line.given_recipes(options)
    if options.what == "methods":
        measured = {file: _assembled(options, [file]) for file in recipes}
    else:
        measured = _assembled(options, recipes)
    print(measurement.measure(measured, options.rounds))


def _assembled(options: argparse.Namespace, recipes: list[str]):
    """Assembles a recipe's run as `pretrain` does, to measure it instead of running it."""
    command_line.load_recipes(recipes, options.gin_bindings)
    from simclr_tf.context import Context
    from simclr_tf.jobs.pretrain import pretraining

    return pretraining(
        Context(model_dir="", data_dir=options.data_dir, tpu="auto", runtime=options.runtime)
    )


if __name__ == "__main__":
    sys.exit(main())
