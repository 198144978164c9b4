"""Tests whether a host decodes photos and takes training steps, for `tools/doctor.py --step`."""

from __future__ import annotations

import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from simclr_tf import config
from simclr_tf.context import Context
from simclr_tf.distribute.strategy import create_strategy, host_slice
from simclr_tf.errors import RequestError
from simclr_tf.jobs.pretrain import pretraining
from simclr_tf.training.loop import make_loop
from simclr_tf.training.run import Run

PLACES = ("host", "device")
_IMAGES_PER_REPLICA = 8
_BATCHES, _STEPS = 16, 5
_BINDINGS = (
    "data.source = 'folder:'",
    "data.image_size = 32",
    "resnet.depth = 18",
    "resnet.width_multiplier = 0.125",
    "learning_rate.warmup_epochs = 0.0",
)


def measure(tpu: str) -> dict[str, tuple[str, str]]:
    """Trains a tiny ResNet-18 on generated JPEGs, as `pretrain` would.

    Args:
      tpu: `local` for this host's TPU, or `none` for its GPUs, or its CPU if it has none.

    Returns:
      'host' and 'device', where views are made -> 'ok' and rates, or 'ERROR' and the first error.
    """
    try:
        strategy = create_strategy(tpu=tpu)
    except RequestError as error:
        return dict.fromkeys(PLACES, ("ERROR", str(error)))
    batch = _IMAGES_PER_REPLICA * strategy.num_replicas_in_sync
    with tempfile.TemporaryDirectory() as folder:
        _write_photos(pathlib.Path(folder), 2 * batch)
        config.load(["gin/base.gin"], _BINDINGS)

        def tried(place: str) -> str:
            run = pretraining(
                Context(model_dir="", data_dir=folder, tpu=tpu),
                strategy=lambda **_: strategy,
                global_batch_size=batch,
                augment_on=place,
            )
            return _rates(run)

        return {place: _in_words(tried, place) for place in PLACES}


def _in_words(tried: Callable[[str], str], place: str) -> tuple[str, str]:
    try:
        return "ok", tried(place)
    except Exception as error:  # any error that would end a run is a finding
        # gin adds where in the recipe's tree the error was raised.
        message = str(error).partition("\n  In call to configurable")[0]
        said = " ".join(message.split()) or "no message"
        kind = "" if isinstance(error, RequestError) else f"{type(error).__name__}: "
        return "ERROR", f"{kind}{said[:500]}"


def _rates(run: Run) -> str:
    batch, replicas = run.plan.global_batch_size, run.strategy.num_replicas_in_sync
    whole = host_slice(tf.distribute.InputContext(num_replicas_in_sync=replicas), batch)
    images = iter(run.pipeline.dataset(whole))
    pipeline = _per_second(lambda: [next(images) for _ in range(_BATCHES * replicas)])
    if len(run.pipeline.bad_images):
        raise RequestError(
            f"Every photo must decode. Received: {len(run.pipeline.bad_images)} of "
            f"{run.plan.source.num_examples} that do not."
        )
    batches = iter(
        run.strategy.distribute_datasets_from_function(
            lambda context: run.pipeline.dataset(host_slice(context, batch))
        )
    )
    run_steps = make_loop(run.strategy, run.train_step(), [m.name for m in run.metrics])
    steps = _per_second(lambda: _check_finite(run_steps(batches, _STEPS).first_bad))
    return (
        f"the host makes {pipeline * _BATCHES * batch:.0f} images/s; {steps * _STEPS:.1f} steps/s "
        f"of {batch} images on {replicas} replica{'s' * (replicas > 1)}"
    )


def _per_second(work: Callable[[], object]) -> float:
    """Returns how often per second `work` runs, after one run that does not count."""
    work()
    start = time.perf_counter()
    work()
    return 1 / (time.perf_counter() - start)


def _check_finite(first_bad: int | None) -> None:
    if first_bad is not None:
        raise RequestError(f"Every number of a step must be finite. Step {first_bad} has others.")


def _write_photos(folder: pathlib.Path, count: int) -> None:
    """Writes smooth pictures of 320 x 240 pixels, which compress as photos do."""
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = rng.uniform(0, 255, (12, 16, 3))
        pixels = tf.cast(tf.image.resize(coarse, (240, 320)), tf.uint8)
        (folder / f"{i}.jpg").write_bytes(tf.io.encode_jpeg(pixels).numpy())


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
