"""The coordinator of a TPU slice of two workers with two cores each, whose batches it looks at.

    python two_workers.py FOLDER HOST-OR-DEVICE PORT PORT

Prints as JSON which images each worker made, and which one host alone makes. The log names the
images that do not decode.
"""

import json
import os
import sys

import tensorflow as tf

from simclr_tf.augment.policy import augmentation
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.folder_source import open_folder
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.distribute.strategy import HostSlice, host_slice
from tests.support.tpu_slice import connect
from tests.support.views import pairs

CORES, GLOBAL_BATCH, STEPS = 2, 8, 3


def main(folder: str, augment_on: str, *ports: str) -> None:
    strategy = connect(ports, CORES)
    source = open_folder(folder, "train")
    pipeline = ViewsPipeline(
        source=source,
        groups=pairs(augmentation(policy=(("flip", 0.5),)), 16),
        seed=1,
        bad_images=BadImages(source, limit=1.0),
        augment_on=augment_on,
    )
    # The cores are not there to be fed, so that batches stay on the CPUs of the workers.
    options = tf.distribute.InputOptions(experimental_fetch_to_device=False)
    batches = iter(
        strategy.distribute_datasets_from_function(
            lambda context: pipeline.dataset(host_slice(context, GLOBAL_BATCH)), options
        )
    )
    found = {}
    for _ in range(STEPS):
        indices = strategy.experimental_local_results(next(batches)["index"])
        for index in indices:
            worker = tf.DeviceSpec.from_string(index.device).task
            found.setdefault(worker, []).extend(index.numpy().tolist())
    count = len(ports) * CORES
    with tf.device("/job:localhost/device:CPU:0"):
        alone = pipeline.dataset(HostSlice(0, 1, count, GLOBAL_BATCH // count))
        expected = [
            i for b in alone.take(STEPS * count).as_numpy_iterator() for i in b["index"].tolist()
        ]
    print(json.dumps({"workers": found, "alone": expected}))
    sys.stdout.flush()
    os._exit(0)  # TensorFlow would wait for the servers


if __name__ == "__main__":
    main(*sys.argv[1:])
