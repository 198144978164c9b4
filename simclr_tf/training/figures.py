"""Pictures of a run: the augmented views it learns from, and its curves."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from absl import logging

from simclr_tf import plotting
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.errors import RequestError
from simclr_tf.metrics import Metric
from simclr_tf.training.reporting import read_metrics

# Numbers of every run besides those of its step.
_OF_THE_LOOP = (
    Metric("learning_rate", "learning rate"),
    Metric("examples_per_second", "images a second"),
)


def first_views(pipeline: ViewsPipeline, count: int = 16) -> list[np.ndarray]:
    """Returns the views of the first images of a run, by group: float32 [count, v, S, S, 3].

    Raises:
      RequestError: a run could not learn from the views, or too many images are bad.
    """
    count = min(count, pipeline.source.num_examples)
    host = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=count)
    batch = pipeline.with_views(next(iter(pipeline.dataset(host))))
    pipeline.bad_images.check()
    found = [
        np.stack(np.split(batch[group.name].numpy(), group.count), axis=1)
        for group in pipeline.groups
    ]
    for group in found:
        _check_views(group)
        _warn_of_empty(group)
    return found


def views(model_dir: str, found: Sequence[np.ndarray]) -> str:
    """Writes `figures/views.png`: the views of each image side by side."""
    images = [view for groups in zip(*found, strict=True) for group in groups for view in group]
    figure, axes = plotting.subplots(rows=(len(images) + 7) // 8, columns=8, cell=1.2)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image in zip(axes.flat, images, strict=False):
        axis.imshow(image)
    if [group.shape[1] for group in found] == [2]:
        figure.suptitle("Pairs of views: columns 1-2, 3-4, 5-6, 7-8")
    return plotting.save(figure, os.path.join(model_dir, "figures", "views.png"))


def curves(model_dir: str, metrics: Sequence[Metric], loss: str) -> str:
    """Writes `figures/curves.png` from the run's `metrics.jsonl`.

    Args:
      model_dir: the run's folder.
      metrics: metrics of its step; those with a title are drawn.
      loss: the metric whose chance level is drawn too.
    """
    reports = read_metrics(model_dir)
    titled = {m.name: m.title for m in (*metrics, *_OF_THE_LOOP) if m.title}
    shown = [(name, title) for name, title in titled.items() if any(name in r for r in reports)]
    columns = max(3, (len(shown) + 1) // 2)
    figure, axes = plotting.subplots(rows=2, columns=columns, cell=3.5)
    for axis in axes.flat[len(shown) :]:
        axis.axis("off")
    for axis, (name, title) in zip(axes.flat, shown, strict=False):
        points = [(r["step"], r[name]) for r in reports if name in r]
        axis.plot(*zip(*points, strict=True), color="tab:blue")
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
        chance = reports[-1].get("loss_chance") if name == loss else None
        if chance is not None:
            axis.axhline(chance, color="tab:gray", linestyle="--")
            axis.text(points[0][0], chance, "chance", va="bottom", fontsize=8, color="tab:gray")
    for axis in axes[-1]:
        axis.set_xlabel("step")
    return plotting.save(figure, os.path.join(model_dir, "figures", "curves.png"))


def _warn_of_empty(found: np.ndarray) -> None:
    """Warns of views that show next to nothing, [count, v, S, S, 3]; a few are usual."""
    views = found.reshape(-1, *found.shape[2:])
    means = views.mean(axis=(1, 2, 3))
    empty = {
        "nearly black": means < 0.02,
        "nearly white": means > 0.98,
        "of one colour": views.std(axis=(1, 2)).max(axis=1) < 0.01,
    }
    said = [f"{int(n.sum())} {name}" for name, n in empty.items() if n.sum() > len(views) / 4]
    if said:
        logging.warning(
            "views that show next to nothing, of the first %d: %s. Look at figures/views.png; "
            "for pictures of 16 bits that use fewer, bind data.bit_depth.",
            len(views),
            ", ".join(said),
        )


def _check_views(found: np.ndarray) -> None:
    low, high = found.min(), found.max()
    if not (np.isfinite(found).all() and low >= 0 and high <= 1):
        raise RequestError(f"Views must lie in [0, 1]. Received: from {low} to {high}.")
    if found.shape[1] == 2 and np.array_equal(found[:, 0], found[:, 1]):
        raise RequestError(
            "The two views of an image must differ. Received: identical pairs, so there is nothing "
            "to learn. Turn augmentation.random_crop on, or give augmentation.policy some ops."
        )
