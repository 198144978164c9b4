"""`embed`: features of all images for search and clustering, with pictures of neighbours."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Literal

import gin
import numpy as np

from simclr_tf.context import Context
from simclr_tf.errors import RequestError
from simclr_tf.evaluation import embedding_figures, projector
from simclr_tf.evaluation.embedding import MAPS, Embedding, planar_map, require, write_vectors
from simclr_tf.evaluation.frozen_encoder import Frozen, frozen_encoder
from simclr_tf.evaluation.result import Result
from simclr_tf.evaluation.splits import Split, Splits
from simclr_tf.training.failures import as_request_error

_SHEET_PIXELS = 128


@gin.configurable
def embed(
    context: Context,
    *,
    encoder: Callable[..., Frozen] = frozen_encoder,
    splits: Sequence[str] = ("train",),
    parquet: bool = False,
    map: Literal["tsne", "umap", "none"] = "tsne",
    queries: int = 8,
    neighbours: int = 8,
    max_points: int = 2000,
) -> Result:
    """Writes `embeddings/<split>/`: vectors with names, neighbours, a map, and a projector.

    Args:
      context: the command line's values.
      encoder: gives the frozen encoder and the data, which needs no labels.
      splits: 'train', 'evaluation' or both.
      parquet: whether to write the vectors into a Parquet file too; needs pyarrow.
      map: how the plane's coordinates are computed; 'umap' needs umap-learn.
      queries: images whose neighbours are shown.
      neighbours: number of neighbours of each query.
      max_points: images on the map and in the projector, drawn by the encoder's seed.

    Returns:
      A summary of the files, which the command line also writes into `results/embed.json`.
    """
    _check(splits, {"queries": queries, "neighbours": neighbours, "max_points": max_points})
    require([*(["pyarrow"] if parquet else []), *([MAPS[map]] if map != "none" else [])])
    frozen = encoder(context=context)
    with as_request_error():
        opened = {"train": frozen.data.train, "evaluation": frozen.data.evaluation}
        sources = {split: opened[split]() for split in splits}
    names = {"train": frozen.data.train_split, "evaluation": frozen.data.eval_split}
    written, parts, lines = {}, {}, []
    for split, source in sources.items():
        embedding = Embedding(source, frozen.features(source))
        folder = os.path.join(context.model_dir, "embeddings", split)
        write_vectors(embedding, folder, parquet)
        count, dim = embedding.features.values.shape
        rng = np.random.default_rng(frozen.seed)
        if count > 1:
            rows = rng.choice(count, min(queries, count), replace=False)
            side = min(frozen.data.image_size, _SHEET_PIXELS)
            embedding_figures.neighbours(embedding, rows, min(neighbours, count - 1), side, folder)
        part = embedding.rows(np.sort(rng.choice(count, min(max_points, count), replace=False)))
        projector.write(part, frozen.layer, os.path.join(folder, "projector"))
        if map != "none":
            places = planar_map(part.features.values, map, frozen.seed)
            title = f"{frozen.layer} of {len(places)} images, {source.name} ({map})"
            embedding_figures.plane(part, places, title, folder)
        lines.append(f"{count} images, {dim} numbers each: {folder}")
        written[split] = {"folder": folder, "images": count, "dimensions": dim}
        parts[split] = Split.of(source, names[split], embedding.features.labels)
    splits = Splits(parts)
    record = {"written": written, "map": map, **splits.record(), **frozen.record()}
    return Result(job="embed", text="\n".join([*lines, splits.lines()]), record=record)


def _check(splits: Sequence[str], counts: dict[str, int]) -> None:
    if not splits or set(splits) - {"train", "evaluation"}:
        raise RequestError(
            "embed.splits must hold 'train', 'evaluation' or both. Received: "
            f"embed.splits={tuple(splits)!r}."
        )
    for name, count in counts.items():
        if count < 1:
            raise RequestError(f"embed.{name} must be at least 1. Received: embed.{name}={count}.")
