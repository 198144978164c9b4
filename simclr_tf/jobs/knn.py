"""`knn`: the share of images whose nearest neighbours have the same class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gin

from simclr_tf.context import Context
from simclr_tf.errors import RequestError
from simclr_tf.evaluation.frozen_encoder import Frozen, frozen_encoder
from simclr_tf.evaluation.knn import PROTOCOL, KnnAccuracy, knn_accuracies
from simclr_tf.evaluation.result import Result
from simclr_tf.training.failures import as_request_error


@gin.configurable(denylist=["context"])
def knn(
    context: Context,
    *,
    encoder: Callable[..., Frozen] = frozen_encoder,
    k: int = 200,
    temperature: float = 0.1,
    table_ks: Sequence[int] = (1, 10, 20, 50, 200),
    table_temperatures: Sequence[float] = (0.02, 0.07, 0.1, 0.5),
    block_megabytes: int = 256,
) -> Result:
    """Classifies by weighted k-nearest neighbours on frozen features; nothing is trained.

    Args:
      context: the command line's values.
      encoder: gives the frozen encoder and the data.
      k: neighbours that vote, for the reported number.
      temperature: temperature of their weights.
      table_ks: values of k in the table; those above the number of training images are left out.
      table_temperatures: temperatures in the table.
      block_megabytes: memory for similarities, besides the features.

    Returns:
      The accuracies, which the command line writes into `results/knn.json`.
    """
    frozen = encoder(context=context)
    _check_k(k, frozen.sources()[0].num_examples)
    train, test, splits = frozen.splits()
    count = len(train.labels)
    _check_k(k, count)  # images that do not decode are gone
    choices = [(k, temperature)]
    choices += [(n, t) for n in table_ks if n <= count for t in table_temperatures]
    with as_request_error():
        accuracies, classes = knn_accuracies(
            train, test, choices, block_bytes=block_megabytes * 2**20
        )
    (chosen, *table), per_class = accuracies, classes[0]
    names = frozen.sources()[0].class_names
    said = (
        f"{chosen.k} nearest neighbours (temperature {chosen.temperature:g}) on "
        f"{frozen.layer} of {frozen.weights.path}: top-1 {chosen.top1:.2%}, top-5 "
        f"{chosen.top5:.2%} of {len(test.labels)} test images"
    )
    return Result(
        job="knn",
        text="\n".join([_table(table), said, *per_class.lines(names), splits.lines()]),
        record={
            "protocol": PROTOCOL,
            "numbers": chosen,
            "n": {"train": count, "test": len(test.labels)},
            "table": table,
            **per_class.record(names),
            **splits.record(),
            **frozen.record(),
        },
        curves={name: getattr(chosen, name) for name in ("top1", "top5", "mean_per_class")},
    )


def _check_k(k: int, num_train: int) -> None:
    if k > num_train:
        raise RequestError(
            f"knn.k must be at most the number of training images. Received: knn.k={k}, "
            f"{num_train} images. Add --gin_bindings='knn.k = {num_train}', or fewer."
        )


def _table(rows: Sequence[KnnAccuracy]) -> str:
    """Returns top-1 by k (rows) and temperature (columns)."""
    temperatures = list(dict.fromkeys(row.temperature for row in rows))
    lines = ["top-1      k" + "".join(f"   T={t:<5g}" for t in temperatures)]
    for k in dict.fromkeys(row.k for row in rows):
        cells = "".join(f"{row.top1:>10.2%}" for row in rows if row.k == k)
        lines.append(f"{k:>12}{cells}")
    return "\n".join(lines)
