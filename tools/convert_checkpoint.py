"""Makes checkpoints of other programs usable here, and encoders of ours usable in PyTorch.

    python tools/convert_checkpoint.py SOURCE --model_dir=DIR
    python tools/convert_checkpoint.py MODEL_DIR --to=torch --output=FILE.safetensors

SOURCE is a TensorFlow 2 checkpoint (its prefix, or its folder) or a SavedModel of
google-research/simclr, or a state dict with torchvision's names, in a .safetensors file. See
docs/checkpoints.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

import command_line  # beside this file


@command_line.refusing
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program on `argv` (default: the command line's) and returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source",
        type=command_line.address,
        help="what to convert; with --to=torch a model_dir of ours",
    )
    parser.add_argument(
        "--model_dir",
        type=command_line.address,
        help="new folder for a checkpoint and its config.gin",
    )
    parser.add_argument(
        "--encoder_only",
        action="store_true",
        help="leave projection head and classifier behind",
    )
    parser.add_argument("--to", choices=["torch"], help="write a file for another program")
    parser.add_argument(
        "--output", type=command_line.address, help="new .safetensors file, with --to=torch"
    )
    arguments = parser.parse_args(argv)
    to_torch = arguments.to is not None
    if to_torch != (arguments.output is not None) or to_torch == (arguments.model_dir is not None):
        parser.error("Give either --model_dir=DIR, or --to=torch and --output=FILE.safetensors.")
    if to_torch and arguments.encoder_only:
        parser.error("--encoder_only is for --model_dir.")

    from simclr_tf.tensorflow_start import import_tensorflow

    import_tensorflow()
    from simclr_tf.training.failures import as_request_error

    with as_request_error():
        if to_torch:
            return _to_torch(arguments.source, arguments.output)
        return _to_model_dir(arguments.source, arguments.model_dir, arguments.encoder_only)


def _to_model_dir(source: str, model_dir: str, encoder_only: bool) -> int:
    from simclr_tf.export.conversion import convert

    architecture = convert(source, model_dir, encoder_only=encoder_only)
    print(f"{architecture}\nwritten to {model_dir}; to evaluate it on labelled images:")
    print(
        f"  python -m simclr_tf.run --gin_file={os.path.join(model_dir, 'config.gin')} "
        f"--model_dir={model_dir} --job=linear_eval --gin_bindings='data.source = \"tfds:NAME\"'"
    )
    return 0


def _to_torch(model_dir: str, output: str) -> int:
    from simclr_tf.export.torchvision_format import export_torchvision

    keys = export_torchvision(model_dir, output)
    print(f"{len(keys)} tensors written to {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
