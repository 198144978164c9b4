"""Writes the outputs of a run's networks in this environment, for tools/compatibility.py.

    python tools/compatibility_outputs.py MODEL_DIR OUTPUTS.json

Four images go through the run's checkpoint, through its SavedModel in plain TensorFlow, as pixels
and as PNG files, and through the encoder that Keras makes of the SavedModel. The file holds, for
each way of reading, h (the representation) and z (the projection) if there is one.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import command_line  # beside this file
import numpy as np

from simclr_tf.errors import RequestError
from simclr_tf.tensorflow_start import import_tensorflow


def of_checkpoint(model_dir: pathlib.Path, images: Any) -> dict[str, Any]:
    """Runs the networks of the run's recipe, filled with its newest checkpoint."""
    from simclr_tf import config, jobs
    from simclr_tf.data.dataset import data
    from simclr_tf.export.weights import pretrained
    from simclr_tf.methods.simclr import simclr
    from simclr_tf.models.resnet import resnet

    jobs.load()
    config.load([str(model_dir / "config.gin")], [])
    networks = simclr(encoder=resnet, image_size=data(data_dir=None).image_size).networks
    pretrained(model_dir=str(model_dir)).restore(networks)
    h = networks["encoder"](images, training=False)["final_avg_pool"]
    projections = networks["projection_head"](h, training=False)
    return {"h": h, "z": projections[f"projection_{len(projections) - 1}"]}


def of_saved_model(folder: str, images: Any) -> dict[str, Any]:
    """Runs the SavedModel's signatures."""
    import tensorflow as tf

    signatures = tf.saved_model.load(folder).signatures
    return {
        "h": signatures["serving_default"](images=images)["representation"],
        "z": signatures["project"](images=images)["projection"],
    }


def of_png_files(folder: str, pixels: np.ndarray) -> dict[str, Any]:
    """Runs the signature for encoded images; images of the network's size are not cropped."""
    import tensorflow as tf

    encode = tf.saved_model.load(folder).signatures["encode_jpeg"]
    files = tf.constant([tf.io.encode_png(image).numpy() for image in pixels])
    return {"h": encode(image_bytes=files)["representation"]}


def outputs(model_dir: pathlib.Path) -> dict[str, dict[str, list[float]]]:
    """Reads the run in all ways: way of reading -> output -> numbers."""
    folders = [str(folder) for folder in (model_dir / "saved_model").glob("*")]
    if len(folders) != 1:
        raise RequestError(
            f"MODEL_DIR must be a run's folder with one SavedModel. Received: {model_dir}, which "
            f"has {len(folders)}."
        )
    [folder] = folders
    import_tensorflow()
    import tensorflow as tf

    from simclr_tf.export.loading import load_encoder

    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    images = tf.constant(pixels / np.float32(255))
    found = {
        "checkpoint": of_checkpoint(model_dir, images),
        "saved_model": of_saved_model(folder, images),
        "png": of_png_files(folder, pixels),
        "keras": {"h": load_encoder(folder)(images, training=False)},
    }
    return {
        way: {name: output.numpy().reshape(-1).tolist() for name, output in read.items()}
        for way, read in found.items()
    }


@command_line.refusing
def main(argv: Sequence[str] | None = None) -> int:
    """Writes the file, and returns the program's exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model_dir", type=command_line.path, metavar="MODEL_DIR")
    parser.add_argument("output", type=command_line.path, metavar="OUTPUTS.json")
    arguments = parser.parse_args(argv)
    arguments.output.write_text(json.dumps(outputs(arguments.model_dir)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
