"""Features of a whole split by frozen networks, computed once and kept on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from simclr_tf import names
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.plain_images import plain_images
from simclr_tf.data.source import Source
from simclr_tf.errors import RequestError
from simclr_tf.models.heads import last_projection
from simclr_tf.models.networks import fingerprint

REPRESENTATION = "representation"
# Raise it when preprocessing before a network changes: kept features are then computed again.
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Features:
    """Output of a layer for a split.

    Attributes:
      values: float32 [N, D].
      labels: int64 [N], -1 where unknown.
      index: int64 [N], the numbers by which the source knows the images.
    """

    values: np.ndarray
    labels: np.ndarray
    index: np.ndarray


@dataclasses.dataclass(frozen=True)
class Transform:
    """A transformation of plain images before the encoder.

    Attributes:
      name: identifies kept features, so it must change when `function` does.
      function: (images float32 [b, S, S, 3] in [0, 1], index int64 [b]) -> images. It runs on
        the host, whichever device the encoder runs on.
    """

    name: str
    function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class FrozenEncoder:
    """An encoder, and perhaps its projection head, that evaluation does not change.

    The networks run in inference mode: batch normalization uses its moving averages. All variables
    are compared before and after, so an encoder that changed cannot give results.

    Each replica of the strategy takes its part of every batch, in full float32 precision, which
    GPUs and TPUs do not use by default. All batches have one static shape, as TPUs need it.

    Args:
      encoder: images -> dict with "final_avg_pool" [N, D].
      projection_head: h -> dict "projection_0" ... "projection_n", if its layers are requested.
      classifier: the head's last layer (without a head, h) -> logits, which are the layer "logits".
      image_size: side in pixels of the images.
      strategy: the networks were built in its scope; of one process; None is one device.
      cache_dir: where features are kept; None keeps none.
    """

    def __init__(
        self,
        encoder: keras.Model,
        projection_head: keras.Model | None = None,
        classifier: keras.Model | None = None,
        *,
        image_size: int,
        strategy: tf.distribute.Strategy | None = None,
        cache_dir: str | None = None,
    ):
        self._networks = [n for n in (encoder, projection_head, classifier) if n is not None]
        self._image_size = image_size
        self._strategy = strategy or tf.distribute.get_strategy()
        self._cache_dir = cache_dir
        last = encoder.output["final_avg_pool"]
        self._outputs = {REPRESENTATION: last}
        if projection_head is not None:
            projections = projection_head(last)
            last = last_projection(projections)
            self._outputs |= {**projections, "projection": last}
        if classifier is not None:
            self._outputs["logits"] = classifier(last)
        self._inputs = encoder.inputs
        # Traced once; later values of the variables do not matter.
        self._functions: dict[tuple[str, ...], Callable] = {}

    def fingerprint(self) -> str:
        """Computes the SHA-256 of all variables."""
        return fingerprint(self._networks)

    def features(
        self,
        source: Source,
        layers: Sequence[str] = (REPRESENTATION,),
        *,
        transform: Transform | None = None,
        batch_size: int = 256,
    ) -> dict[str, Features]:
        """Returns features of every image that decodes, each once, in the source's order.

        Args:
          source: the split.
          layers: "representation" (h), "projection" (z) or "projection_k".
          transform: applied to the plain images.
          batch_size: images at a time over all replicas; rounded up to a multiple of their number.

        Returns:
          Layer -> features.

        Raises:
          RequestError: there is no such layer, or too many images do not decode.
        """
        self._check(layers)
        before = self.fingerprint()
        folders = {
            layer: self._folder(source, layer, transform, before) if self._cache_dir else None
            for layer in layers
        }
        found = {layer: _load(folder) for layer, folder in folders.items()}
        missing = [layer for layer in layers if found[layer] is None]
        if missing:
            found |= self._compute(source, missing, transform, batch_size)
            self._check_unchanged(before)
            for layer in missing:
                _save(folders[layer], found[layer])
        return found

    def of_batches(self, batches: Iterable[np.ndarray], layer: str) -> Iterator[np.ndarray]:
        """Yields features of images at hand, such as augmented views; none are kept.

        Args:
          batches: float32 [b, S, S, 3] each, all of one size b.
          layer: as in `features`.

        Yields:
          The features of each batch, float32 [b, D].

        Raises:
          RequestError: there is no such layer.
        """
        self._check([layer])
        before, embed = self.fingerprint(), self._function((layer,))
        replicas = self._strategy.num_replicas_in_sync
        with _whole_precision():
            for images in batches:
                size = -(-len(images) // replicas) * replicas
                yield self._over_replicas(embed, images, size)[layer].astype(np.float32)
        self._check_unchanged(before)

    def _check(self, layers: Sequence[str]) -> None:
        unknown = [layer for layer in layers if layer not in self._outputs]
        if unknown:
            raise RequestError(
                f"The layer must be one of {', '.join(self._outputs)}. Received: {unknown[0]!r}."
            )

    def _check_unchanged(self, fingerprint: str) -> None:
        if self.fingerprint() != fingerprint:
            raise RuntimeError("The encoder must not change while it is evaluated. It did.")

    def _compute(
        self, source: Source, layers: Sequence[str], transform: Transform | None, batch_size: int
    ) -> dict[str, Features]:
        size = self._image_size
        replicas = self._strategy.num_replicas_in_sync
        batch = -(-min(batch_size, source.num_examples) // replicas) * replicas
        embed = self._function(tuple(layers))
        shown = _on_host(transform, size) if transform else None
        bad_images = BadImages(source)
        parts: list[Mapping[str, np.ndarray]] = []
        title = f"features of {names.shown(source.name)}"
        title += f", {transform.name}" if transform else ""
        progress = tqdm(total=source.num_examples, unit=" images", desc=title, mininterval=1)
        with progress as bar, _whole_precision():
            for images, labels, index in plain_images(source, size, batch, bad_images):
                images = shown(images, index).numpy() if shown else images
                values = self._over_replicas(embed, images, batch)
                parts.append(values | {"labels": labels, "index": index})
                bar.update(len(labels))
        bad_images.check()
        rows = sum(len(part["labels"]) for part in parts)
        if rows + len(bad_images) != source.num_examples:
            raise RuntimeError(
                f"Every image must be seen once. {source.name} has {source.num_examples}; seen "
                f"{rows}, skipped {len(bad_images)}."
            )
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return {
            layer: Features(whole[layer].astype(np.float32), whole["labels"], whole["index"])
            for layer in layers
        }

    def _over_replicas(
        self, embed: Callable, images: np.ndarray, batch: int
    ) -> dict[str, np.ndarray]:
        """Applies `embed` to images [b, S, S, 3], padded to `batch`: layer -> [b, D]."""
        padding = np.zeros([batch - len(images), *images.shape[1:]], images.dtype)
        shares = np.split(np.concatenate([images, padding]), self._strategy.num_replicas_in_sync)

        def share(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            with tf.device("/CPU:0"):  # otherwise all would pass through the first GPU
                return tf.constant(shares[context.replica_id_in_sync_group])

        values = embed(self._strategy.experimental_distribute_values_from_function(share))
        local = self._strategy.experimental_local_results
        return {
            layer: np.concatenate([part.numpy() for part in local(parts)])[: len(images)]
            for layer, parts in values.items()
        }

    def _function(self, layers: tuple[str, ...]) -> Callable:
        """Builds: each replica's images float32 [b, S, S, 3] -> layer -> its values [b, D]."""
        if layers in self._functions:
            return self._functions[layers]
        model = keras.Model(self._inputs, {layer: self._outputs[layer] for layer in layers})

        def of_replica(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return model(images, training=False)

        @tf.function(autograph=False)
        def embed(images: tf.Tensor) -> dict[str, tf.Tensor]:
            return self._strategy.run(of_replica, args=(images,))

        return self._functions.setdefault(layers, embed)

    def _folder(
        self, source: Source, layer: str, transform: Transform | None, fingerprint: str
    ) -> str:
        seen = transform.name if transform else "plain"
        key = (_FORMAT, fingerprint, source.fingerprint(), self._image_size, layer, seen)
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]
        name = re.sub(r"\W+", "-", os.path.basename(source.name.rstrip("/")))[-40:]
        return os.path.join(
            self._cache_dir, f"{name}-{layer}-{re.sub('[^a-z0-9]+', '-', seen)}-{digest}"
        )


def _on_host(transform: Transform, size: int) -> Callable:
    @tf.function(
        input_signature=[tf.TensorSpec([None, size, size, 3]), tf.TensorSpec([None], tf.int64)]
    )
    def shown(images: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        with tf.device("/CPU:0"):
            return transform.function(images, index)

    return shown


@contextlib.contextmanager
def _whole_precision() -> Iterator[None]:
    """While open, float32 matrix products keep all 24 bits: not 11 on GPUs, or 8 on TPUs."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _load(folder: str | None) -> Features | None:
    if folder is None or not tf.io.gfile.isdir(folder):
        return None
    arrays = {}
    for field in dataclasses.fields(Features):
        with tf.io.gfile.GFile(os.path.join(folder, f"{field.name}.npy"), "rb") as file:
            arrays[field.name] = np.load(file, allow_pickle=False)
    return Features(**arrays)


def _save(folder: str | None, features: Features) -> None:
    """Writes a folder that exists completely or not at all."""
    if folder is None:
        return
    partial = f"{folder}.partial"
    if tf.io.gfile.exists(partial):
        tf.io.gfile.rmtree(partial)
    tf.io.gfile.makedirs(partial)
    for field in dataclasses.fields(Features):
        with tf.io.gfile.GFile(os.path.join(partial, f"{field.name}.npy"), "wb") as file:
            np.save(file, getattr(features, field.name), allow_pickle=False)
    tf.io.gfile.rename(partial, folder)
