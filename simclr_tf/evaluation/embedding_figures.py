"""Pictures of an embedding: images beside their neighbours, and all images in the plane."""

from __future__ import annotations

import os

import numpy as np

from simclr_tf import plotting
from simclr_tf.evaluation.embedding import Embedding

_SAME, _OTHER = "tab:green", "tab:red"


def neighbours(embedding: Embedding, rows: np.ndarray, k: int, side: int, folder: str) -> str:
    """Writes `neighbours.png`: each image of `rows`, and the k most similar ones beside it.

    Where classes are known, a frame is green around a neighbour of the same class, otherwise red.

    Args:
      embedding: the images.
      rows: rows of the requested images, integer [M].
      k: neighbours of each, at most N - 1.
      side: displayed side of the images, in pixels.
      folder: where to write.
    """
    found, similarities = embedding.neighbours(rows, k)
    shown = np.concatenate([rows[:, None], found], axis=1)
    part = embedding.rows(shown.ravel())
    images = part.thumbnails(side).reshape(*shown.shape, side, side, 3)
    classes = np.array(part.classes(), object).reshape(shown.shape)
    figure, axes = plotting.subplots(*shown.shape, cell=1.3)
    for (row, column), axis in np.ndenumerate(axes):
        axis.imshow(images[row, column])
        axis.set(xticks=[], yticks=[])
        own, name = classes[row, 0], classes[row, column]
        title = "query" if column == 0 else f"{similarities[row, column - 1]:.2f}"
        axis.set_title(plotting.plain(f"{title}  {name}".rstrip()[:22]), fontsize=7)
        if column and own and name:
            for spine in axis.spines.values():
                spine.set(edgecolor=_SAME if name == own else _OTHER, linewidth=2)
    figure.suptitle("Most similar images, with cosine similarity", fontsize=10)
    return plotting.save(figure, os.path.join(folder, "neighbours.png"))


def plane(embedding: Embedding, places: np.ndarray, title: str, folder: str) -> str:
    """Writes `map.png`: the images as points, coloured by class where classes are known.

    Args:
      embedding: the images.
      places: float [N, 2].
      title: title of the picture.
      folder: where to write.
    """
    figure, axes = plotting.subplots(1, 1, cell=8)
    axis = axes[0, 0]
    names = np.array(embedding.classes(), object)
    kinds = list(dict.fromkeys(sorted(names)))
    for number, kind in enumerate(kinds):
        axis.scatter(
            *places[names == kind].T,
            s=6,
            color=_colour(number, len(kinds)),
            label=plotting.plain(kind) or "none",
        )
    if 1 < len(kinds) <= 20:
        axis.legend(markerscale=3, fontsize=8)
    axis.set(xticks=[], yticks=[], title=plotting.plain(title))
    return plotting.save(figure, os.path.join(folder, "map.png"))


def _colour(number: int, count: int):
    from matplotlib import colormaps

    if count <= 20:
        return colormaps["tab10" if count <= 10 else "tab20"](number)
    return colormaps["turbo"](number / (count - 1))
