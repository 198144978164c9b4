"""The cost of a recipe's input pipeline on this host, compared with decoding and a plain recipe.

An image counts once, with its two views. The first table compares wall-clock time, in rounds; the
second gives processor time, which other programs disturb less. The last ones compare a folder of
large photographs with the same ones as tools/prepare_dataset.py prepares them.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator

import tensorflow as tf

from simclr_tf.augment.host import box_sampler, view_augmenter
from simclr_tf.augment.policy import Augmentation
from simclr_tf.benchmark import plain_recipe, prepared
from simclr_tf.benchmark.timing import table, take_turns
from simclr_tf.data import decode, header
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.errors import RequestError
from simclr_tf.training.run import Run

PLAIN, OURS = "plain recipe", "this pipeline"
READ, DECODED, CROPPED, AUGMENTED = "reading", "decoding alone", "crops", "crops and policy"
_LARGEST_BATCH = 64
# Enough images for some seconds per contestant and round, whatever their size.
_PIXELS_IN_A_ROUND = 1024 * 224 * 224


def measure(run: Run, rounds: int) -> str:
    """Times the pipeline of a recipe, its baselines and its stages in turns.

    Args:
      run: its pipeline is measured, with at most 64 images a batch; encoded images are JPEGs.
      rounds: how often each contestant is timed.

    Returns:
      The tables, as text.

    Raises:
      RequestError: the policy has an op that the plain recipe lacks.
    """
    pipeline = dataclasses.replace(run.pipeline, plain_images=0)
    replicas = run.strategy.num_replicas_in_sync
    batch = min(_LARGEST_BATCH, run.plan.global_batch_size // replicas)
    augmentation, size = _pair(pipeline)
    batches = max(1, _PIXELS_IN_A_ROUND // (size**2 * batch))
    contestants = {
        name: Reader(dataset, batch, batches) for name, dataset in datasets(pipeline, batch).items()
    }
    timings = take_turns(contestants, rounds=rounds, baseline=PLAIN)
    policy = ", ".join(entry.name for entry in augmentation.policy)
    return "\n".join(
        [
            f"{pipeline.source.name}: pairs of views of {size} px (crop, {policy}), "
            f"{batches} batches of {batch} images a round, {rounds} rounds",
            "",
            table(timings, "images"),
            "",
            _processor_table({name: reader.milliseconds for name, reader in contestants.items()}),
            "",
            prepared.measure(pipeline, rounds, Reader),
        ]
    )


class Reader:
    """Reads images of a running data set, and records the processor time of each turn."""

    def __init__(self, dataset: tf.data.Dataset, batch: int, batches: int):
        self._dataset = dataset.take(batches + 1)
        self._images = batch * batches
        self._batches: Iterator = iter(())
        self.milliseconds: list[float] = []

    def prepare(self) -> None:
        """Reads up to the first batch, which includes all one-time waits."""
        self._batches = iter(self._dataset)
        next(self._batches)

    def __call__(self) -> int:
        start = time.process_time()
        for _ in self._batches:
            pass
        self.milliseconds.append((time.process_time() - start) / self._images * 1e3)
        self._batches = iter(())  # otherwise it would prefetch while the next contestant runs
        return self._images


def _pair(pipeline: ViewsPipeline) -> tuple[Augmentation, int]:
    """Returns the augmentation of both views of an image, and their size."""
    groups = [(group.parts(), group.size) for group in pipeline.groups]
    if len(groups) != 1 or [count for _, count in groups[0][0]] != [2]:
        raise RequestError(
            "The pipeline is compared with a plain one of two views an image by one policy. "
            "Received: a method with other views. Measure with pretrain.method = @simclr, "
            "without simclr.other_augmentation and small views."
        )
    [([(augmentation, _)], size)] = groups
    return augmentation, size


def datasets(pipeline: ViewsPipeline, batch: int) -> dict[str, tf.data.Dataset]:
    """Returns endless batches: the baselines, the stages before the whole, and the whole.

    The policy is a stage where it runs on the host.
    """
    augmentation, size = _pair(pipeline)
    host = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=batch)

    def plain(of: Callable) -> Callable:
        return lambda _, image: of(image, augmentation, size)

    with tf.device("/CPU:0"):
        if pipeline.source.in_memory:
            pixels = tf.data.Dataset.from_tensor_slices(pipeline.source.images).repeat()
            plain_views = _batches(pixels.enumerate(), plain(plain_recipe.views_of_pixels), batch)
            return {PLAIN: plain_views, OURS: pipeline.dataset(host)}
        encoded = _encoded(pipeline).enumerate()
        zero = tf.constant(0, tf.int64)
        sample, augment = box_sampler(augmentation, 2), view_augmenter(augmentation)

        def decoded(_: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
            # Images differ in size: batch a number instead, which depends on all pixels.
            return tf.size(tf.io.decode_jpeg(image, channels=3))

        def cropped(number: tf.Tensor, image: tf.Tensor) -> list[tf.Tensor]:
            boxes = sample(zero, zero, number, *tf.unstack(header.image_shape(image)))
            return decode.decode_crops(image, boxes, [size] * 2)

        def augmented(number: tf.Tensor, image: tf.Tensor) -> tuple:
            crops = cropped(number, image)
            return tuple(augment(crop, zero, zero, number, view) for view, crop in enumerate(crops))

        found = {
            PLAIN: _batches(encoded, plain(plain_recipe.views_of_decoded), batch),
            f"{PLAIN}, a decoding for each view": _batches(
                encoded, plain(plain_recipe.views_of_encoded), batch
            ),
            READ: _batches(encoded, lambda _, image: image, batch),
            DECODED: _batches(encoded, decoded, batch),
            CROPPED: _batches(encoded, lambda *image: tuple(cropped(*image)), batch),
        }
        if pipeline.augment_on == "host":
            found[AUGMENTED] = _batches(encoded, augmented, batch)
        return found | {OURS: pipeline.dataset(host)}


def _encoded(pipeline: ViewsPipeline) -> tf.data.Dataset:
    source = pipeline.source
    return source.stored().repeat().map(lambda stored, label, _: source.unpack(stored, label)[0])


def _batches(images: tf.data.Dataset, views: Callable, batch: int) -> tf.data.Dataset:
    """Batches like the reference: in parallel, in any order."""
    mapped = images.map(views, tf.data.AUTOTUNE, deterministic=False)
    return mapped.batch(batch, drop_remainder=True).prefetch(tf.data.AUTOTUNE)


def _processor_table(milliseconds: dict[str, list[float]]) -> str:
    """Shows medians without the uncounted turn and, for stages, the increase by each."""
    spent = {name: statistics.median(times[1:]) for name, times in milliseconds.items()}
    lines = ["| | processor ms an image | ratio |", "| --- | ---: | ---: |"]
    for name, time_of_image in spent.items():
        lines.append(f"| {name} | {time_of_image:.2f} | {spent[PLAIN] / time_of_image:.2f} |")
    if AUGMENTED in spent:
        ends = [0.0, spent[READ], spent[CROPPED], spent[AUGMENTED], spent[OURS]]
        names = ["reading", "decoding, cropping and resizing", "policy", "order, batches"]
        shares = (
            f"{name} {(end - start) / ends[-1]:.0%}"
            for name, start, end in zip(names, ends[:-1], ends[1:], strict=True)
        )
        lines += ["", f"Shares of {OURS}'s processor time: {', '.join(shares)}."]
    return "\n".join(lines)
