"""Runs one recipe's training step on a PJRT device, and compares it with TensorFlow's.

    python tools/pjrt_smoke.py export DIR --gin_file=gin/quickstart.gin --devices=8
    python tools/pjrt_smoke.py run DIR

`export` needs TensorFlow (`.[cpu]`): it writes the lowered step, the initial variables, some
batches, and the losses that TensorFlow computes. Copy DIR to the machine with the accelerator.
`run` needs jax and its plug-in, and no TensorFlow: it takes the same steps there, prints the losses
side by side, images/s, utilization and memory, and exits with 1 if they are not equal.
"""

from __future__ import annotations

import argparse
import sys

import command_line  # beside this file


@command_line.refusing
def main(argv: list[str] | None = None) -> int:
    """Exports or runs, and returns the program's exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["export", "run"])
    parser.add_argument("folder", type=command_line.path)
    command_line.add_recipe_flags(parser)
    parser.add_argument("--devices", type=int, default=1, help="of export: how many will run it")
    parser.add_argument("--batches", type=int, default=4, help="of export: how many")
    parser.add_argument("--cpu", action="store_true", help="of run: on virtual devices of the CPU")
    parser.add_argument("--steps", type=int, default=20, help="of run: how many are timed")
    parser.add_argument("--peak_tflops", type=float, help="of run: a device's peak, for MFU")
    options = parser.parse_args(argv)
    for name in ("devices", "batches", "steps"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1. Received: {getattr(options, name)}.")
    return _export(options) if options.what == "export" else _run(options)


def _export(options: argparse.Namespace) -> int:
    from simclr_tf.tensorflow_start import import_tensorflow

    recipes = command_line.given_recipes(options)
    import_tensorflow()
    command_line.load_recipes(recipes, options.gin_bindings)
    from simclr_tf.benchmark.smoke_export import export

    export(
        options.folder,
        data_dir=options.data_dir,
        devices=options.devices,
        batches=options.batches,
    )
    print(f"exported: {options.folder}")
    return 0


def _run(options: argparse.Namespace) -> int:
    from simclr_tf.benchmark.smoke_run import run

    good = run(
        options.folder, cpu=options.cpu, steps=options.steps, peak_tflops=options.peak_tflops
    )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
