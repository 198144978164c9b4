"""Stores a tiny run of this version; later versions test that they can resume it.

    python tools/make_old_run.py --output=tests/old_runs/NAME

The run trains on the embedded shapes for 6 steps, with the code of this checkout. OUTPUT is a new
folder, of about 200 KiB, with

    run.tar.xz     the model_dir `run` as a kill after the checkpoint of step 3 leaves it, without
                   figures and TensorBoard's events, and with the SavedModel that the job `export`
                   makes from that checkpoint
    expected.json  the last line of metrics.jsonl, of step 6
    expected.npz   the weights at step 6 under their names in the checkpoint, and `images` with the
                   `representation` that the SavedModel gives for them
    README.md      which commit wrote it

tests/end_to_end/test_old_runs.py resumes every folder of tests/old_runs with the current code.
Make one before a change to parameters of recipes, or to the files of a run's folder.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence

import command_line  # beside this file

ROOT = pathlib.Path(__file__).resolve().parents[1]
TOTAL, STOPPED = 6, 3
# Every layer has 8 channels, the minimum of an encoder.
BINDINGS = (
    "data.image_size = 16",
    "resnet.depth = 18",
    "resnet.width_multiplier = 0.015625",
    "projection_head.output_dim = 8",
    "nt_xent.temperature = 0.5",
    "learning_rate.warmup_epochs = 0.0",
    "pretrain.global_batch_size = 32",
    f"pretrain.epochs = {TOTAL * 32 / 10_000}",
    "pretrain.precision = 'float32'",
    "pretrain.augment_on = 'host'",
    "pretrain.steps_per_loop = 1",
    f"pretrain.checkpoint_every_steps = {STOPPED}",
)
README = """\
A run of commit {commit}, written by `python tools/make_old_run.py --output=tests/old_runs/{name}`.
The docstring of that tool says what the files hold.
"""


@command_line.refusing
def main(argv: Sequence[str] | None = None) -> int:
    """Makes the folder and prints its size; returns the exit code of the first run that fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=command_line.path, required=True, help="a folder to be made"
    )
    output = parser.parse_args(argv).output
    if output.exists():
        parser.error(f"--output must not exist yet. Received: {output}.")
    output.parent.mkdir(parents=True, exist_ok=True)  # before the run: it may not be a folder
    with tempfile.TemporaryDirectory() as temporary:
        model_dir = pathlib.Path(temporary) / "run"
        if code := run_job(model_dir, "pretrain"):
            return code
        expected = weights(model_dir)
        *_, last = (model_dir / "metrics.jsonl").read_text().splitlines()
        cut_back(model_dir)
        if code := run_job(model_dir, "export"):
            return code
        output.mkdir()
        write(output, model_dir, json.loads(last), expected | outputs(model_dir))
    size = sum(file.stat().st_size for file in output.iterdir())
    print(f"{output}: {size / 1024:.0f} KiB")
    return 0


def run_job(model_dir: pathlib.Path, job: str) -> int:
    """Runs a job like a user; names the folder without its path, which run.json would keep."""
    command = [sys.executable, "-m", "simclr_tf.run", "--gin_file=gin/base.gin", f"--job={job}"]
    command += [f"--gin_bindings={binding}" for binding in BINDINGS]
    command += ["--tpu=none", f"--model_dir={model_dir.name}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=model_dir.parent, env=environment).returncode


def weights(model_dir: pathlib.Path) -> dict:
    """Returns the networks' variables in the last checkpoint, by their names there."""
    from simclr_tf.tensorflow_start import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    prefix = model_dir / "checkpoints" / f"step_{TOTAL:08d}" / "variables"
    reader = tf.train.load_checkpoint(str(prefix))
    names = [n for n in reader.get_variable_to_shape_map() if ".ATTRIBUTES" in n]
    return {n: reader.get_tensor(n) for n in names if not n.startswith("optimizer/")}


def outputs(model_dir: pathlib.Path) -> dict:
    """Returns images, and the SavedModel's outputs for them."""
    import numpy as np
    import tensorflow as tf

    images = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)
    encoder = tf.saved_model.load(str(model_dir / "saved_model" / str(STOPPED)))
    return {"images": images, "representation": encoder(tf.constant(images)).numpy()}


def cut_back(model_dir: pathlib.Path) -> None:
    """Cuts a finished run back to its state after a kill following its checkpoint of STOPPED."""
    for folder in ("saved_model", "figures", "tensorboard"):
        shutil.rmtree(model_dir / folder)
    for file in (model_dir / "checkpoints").iterdir():
        if file.name == "lock":
            file.unlink()
        elif file.name != f"step_{STOPPED:08d}":
            shutil.rmtree(file)
    metrics = model_dir / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:STOPPED]))


def write(output: pathlib.Path, model_dir: pathlib.Path, metrics: dict, arrays: dict) -> None:
    """Writes the files of `output`."""
    import numpy as np

    commit = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=ROOT, text=True).strip()
    with tarfile.open(output / "run.tar.xz", "w:xz") as archive:
        archive.add(model_dir, "run")
    (output / "expected.json").write_text(json.dumps(metrics, indent=1) + "\n")
    np.savez_compressed(output / "expected.npz", **arrays)
    (output / "README.md").write_text(README.format(commit=commit, name=output.name))


if __name__ == "__main__":
    sys.exit(main())
