"""Writes the outputs of a run's networks in this environment, for tools/compatibility.py.

    python tools/compatibility_outputs.py MODEL_DIR OUTPUTS.json

Four images go through the run's checkpoint, through its SavedModel in plain TensorFlow, as pixels
and as PNG files, and through the encoder that Keras makes of the SavedModel. The file holds, for
each way of reading, h (the representation) and z (the projection) if there is one.
"""

from __future__ import annotations

import json
import pathlib
import sys

import numpy as np
import tensorflow as tf

from simclr_tf import config, jobs
from simclr_tf.data.dataset import data
from simclr_tf.export.loading import load_encoder
from simclr_tf.export.weights import pretrained
from simclr_tf.methods.simclr import simclr
from simclr_tf.models.resnet import resnet


def of_checkpoint(model_dir: pathlib.Path, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """Runs the networks of the run's recipe, filled with its newest checkpoint."""
    jobs.load()
    config.load([str(model_dir / "config.gin")], [])
    networks = simclr(encoder=resnet, image_size=data(data_dir=None).image_size).networks
    pretrained(model_dir=str(model_dir)).restore(networks)
    h = networks["encoder"](images, training=False)["final_avg_pool"]
    projections = networks["projection_head"](h, training=False)
    return {"h": h, "z": projections[f"projection_{len(projections) - 1}"]}


def of_saved_model(folder: str, images: tf.Tensor) -> dict[str, tf.Tensor]:
    """Runs the SavedModel's signatures."""
    signatures = tf.saved_model.load(folder).signatures
    return {
        "h": signatures["serving_default"](images=images)["representation"],
        "z": signatures["project"](images=images)["projection"],
    }


def of_png_files(folder: str, pixels: np.ndarray) -> dict[str, tf.Tensor]:
    """Runs the signature for encoded images; images of the network's size are not cropped."""
    encode = tf.saved_model.load(folder).signatures["encode_jpeg"]
    files = tf.constant([tf.io.encode_png(image).numpy() for image in pixels])
    return {"h": encode(image_bytes=files)["representation"]}


def main(model_dir: pathlib.Path, path: pathlib.Path) -> None:
    """Reads the run in all ways."""
    [folder] = map(str, (model_dir / "saved_model").iterdir())
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    images = tf.constant(pixels / np.float32(255))
    found = {
        "checkpoint": of_checkpoint(model_dir, images),
        "saved_model": of_saved_model(folder, images),
        "png": of_png_files(folder, pixels),
        "keras": {"h": load_encoder(folder)(images, training=False)},
    }
    text = json.dumps(
        {
            way: {name: output.numpy().reshape(-1).tolist() for name, output in outputs.items()}
            for way, outputs in found.items()
        }
    )
    path.write_text(text)


if __name__ == "__main__":
    main(*map(pathlib.Path, sys.argv[1:]))
