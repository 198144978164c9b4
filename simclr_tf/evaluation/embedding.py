"""Features of named images: vectors for search and clustering, neighbours, and maps."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import io
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf
import threadpoolctl

from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.plain_images import plain_images
from simclr_tf.data.source import Source
from simclr_tf.errors import RequestError
from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.knn import nearest

# The library that draws each kind of map.
MAPS = {"tsne": "sklearn", "umap": "umap"}
_MIN_MAPPED = 5


@dataclasses.dataclass(frozen=True)
class Embedding:
    """Features of a source's images.

    Attributes:
      source: the images.
      features: features of the images that decode.
    """

    source: Source
    features: Features

    def names(self) -> list[str]:
        """Returns the path or name of each image."""
        return [self.source.name_of(int(i)) for i in self.features.index]

    def classes(self) -> list[str]:
        """Returns the name of each image's class, empty if there is none."""
        names = self.source.class_names
        return [names[i] if names and i >= 0 else "" for i in self.features.labels]

    def rows(self, rows: np.ndarray) -> Embedding:
        """Returns the embedding of some of the images."""
        fields = (getattr(self.features, f.name)[rows] for f in dataclasses.fields(Features))
        return dataclasses.replace(self, features=Features(*fields))

    def thumbnails(self, side: int) -> np.ndarray:
        """Reads the images again, centre-cropped, uint8 [N, side, side, 3]."""
        positions = np.searchsorted(self.source.indices(), self.features.index)
        part = self.source.select(positions)
        found = [
            np.round(images * 255).astype(np.uint8)
            for images, _, _ in plain_images(part, side, 64, BadImages(part))
        ]
        return np.concatenate(found)

    def neighbours(self, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the k images most similar to each of `rows`, without the row itself.

        Args:
          rows: integer [M].
          k: from 1 to N - 1.

        Returns:
          Rows integer [M, k], the most similar first, and cosine similarities float32 [M, k].
        """
        values = self.features.values
        found = list(nearest(values[rows], values, k + 1))
        positions = np.concatenate([positions for _, positions, _ in found])
        similarities = np.concatenate([similarities for _, _, similarities in found])
        others = positions != rows[:, None]
        # If k + 1 copies of an image are equally near, it may be missing from its own list.
        others[others.all(1), -1] = False
        shape = (len(rows), k)
        return positions[others].reshape(shape), similarities[others].reshape(shape)


def write_vectors(embedding: Embedding, folder: str, parquet: bool) -> None:
    """Writes `vectors.npy` float32 [N, D], and `images.csv` with one line per row.

    Args:
      embedding: what to write.
      folder: where to write; created if missing.
      parquet: whether to write the same into `vectors.parquet` too.
    """
    features = embedding.features
    tf.io.gfile.makedirs(folder)
    with tf.io.gfile.GFile(os.path.join(folder, "vectors.npy"), "wb") as file:
        np.save(file, features.values, allow_pickle=False)
    columns = {
        "index": features.index.tolist(),
        "name": embedding.names(),
        "label": features.labels.tolist(),
        "class": embedding.classes(),
    }
    text = io.StringIO(newline="")
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(columns)
    lines.writerows(zip(*columns.values(), strict=True))
    with tf.io.gfile.GFile(os.path.join(folder, "images.csv"), "w") as file:
        file.write(text.getvalue())
    if parquet:
        with tf.io.gfile.GFile(os.path.join(folder, "vectors.parquet"), "wb") as file:
            file.write(_parquet(columns, features.values))


def planar_map(values: np.ndarray, method: str, seed: int) -> np.ndarray:
    """Places vectors in the plane such that those similar by cosine lie close together.

    Args:
      values: float32 [N, D].
      method: a key of MAPS.
      seed: seed of the search.

    Returns:
      float [N, 2].

    Raises:
      RequestError: there are too few images.
    """
    count = len(values)
    if count < _MIN_MAPPED:
        raise RequestError(
            f"A map needs at least {_MIN_MAPPED} images. Received: {count}. Embed more "
            "images, or set the map to 'none'."
        )
    # Between vectors of length one, Euclidean distance grows as cosine similarity falls.
    values = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    if method == "umap":
        import umap

        search = umap.UMAP(n_neighbors=min(15, count - 1), random_state=seed, n_jobs=1)
    else:
        from sklearn.manifold import TSNE

        search = TSNE(perplexity=min(30.0, (count - 1) / 3), init="pca", random_state=seed)
    # Sums depend on the number of OpenMP's threads, which also wait for each other on busy cores.
    with threadpoolctl.threadpool_limits(1, user_api="openmp"):
        return search.fit_transform(values)


def require(modules: Sequence[str]) -> None:
    """Raises RequestError if one of these modules cannot be imported."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise RequestError(
                f"embed needs {module} as configured. Received: {error}. Install it with: "
                'pip install "simclr_tf[embed]"'
            ) from error


def _parquet(columns: dict[str, list], values: np.ndarray) -> bytes:
    import pyarrow
    import pyarrow.parquet

    vectors = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(values.ravel()), values.shape[1])
    buffer = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns | {"vector": vectors}), buffer)
    return buffer.getvalue().to_pybytes()
