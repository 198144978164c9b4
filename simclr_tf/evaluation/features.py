"""Features of a whole split by frozen networks, computed once and kept on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.pipeline import plain_images
from simclr_tf.data.source import Source
from simclr_tf.errors import RequestError

REPRESENTATION = "representation"
# Raise it when what a network sees of an image changes: kept features are then computed again.
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Features:
    """What a layer makes of a split.

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
    """What is done to plain images before the encoder sees them.

    Attributes:
      name: tells kept features apart, so it must change with what `function` does.
      function: (images float32 [b, S, S, 3] in [0, 1], index int64 [b]) -> images.
    """

    name: str
    function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class FrozenEncoder:
    """An encoder, and perhaps its projection head, that evaluation only looks at.

    The networks run in inference mode: batch normalization uses its moving averages. All variables
    are compared before and after, so numbers of an encoder that moved cannot come about.

    Args:
      encoder: images -> dict with "final_avg_pool" [N, D].
      projection_head: h -> dict "projection_0" ... "projection_n", if its layers are asked for.
      classifier: the head's last layer (without a head, h) -> logits, which are the layer "logits".
      image_size: side in pixels at which images are taken.
      cache_dir: where features are kept; None keeps none.
    """

    def __init__(
        self,
        encoder: keras.Model,
        projection_head: keras.Model | None = None,
        classifier: keras.Model | None = None,
        *,
        image_size: int,
        cache_dir: str | None = None,
    ):
        self._networks = [n for n in (encoder, projection_head, classifier) if n is not None]
        self._image_size = image_size
        self._cache_dir = cache_dir
        last = encoder.output["final_avg_pool"]
        self._outputs = {REPRESENTATION: last}
        if projection_head is not None:
            projections = projection_head(last)
            last = projections[f"projection_{len(projections) - 1}"]
            self._outputs |= {**projections, "projection": last}
        if classifier is not None:
            self._outputs["logits"] = classifier(last)
        self._inputs = encoder.inputs
        # Traced once, whatever values the variables take later.
        self._functions: dict[tuple[tuple[str, ...], Transform | None], Callable] = {}

    def fingerprint(self) -> str:
        """SHA-256 of all variables."""
        digest = hashlib.sha256()
        for network in self._networks:
            for variable in network.variables:
                digest.update(variable.path.encode())
                digest.update(np.ascontiguousarray(variable.numpy()))
        return digest.hexdigest()

    def features(
        self,
        source: Source,
        layers: Sequence[str] = (REPRESENTATION,),
        *,
        transform: Transform | None = None,
        batch_size: int = 256,
    ) -> dict[str, Features]:
        """Features of every image that decodes, each once, in the source's order.

        Args:
          source: the split.
          layers: "representation" (h), "projection" (z) or "projection_k".
          transform: applied to the plain images.
          batch_size: images at a time.

        Returns:
          Layer -> features.

        Raises:
          RequestError: there is no such layer, or too many images do not decode.
        """
        unknown = [layer for layer in layers if layer not in self._outputs]
        if unknown:
            raise RequestError(
                f"The layer must be one of {', '.join(self._outputs)}. Received: {unknown[0]!r}."
            )
        before = self.fingerprint()
        folders = {
            layer: self._folder(source, layer, transform, before) if self._cache_dir else None
            for layer in layers
        }
        found = {layer: _load(folder) for layer, folder in folders.items()}
        missing = [layer for layer in layers if found[layer] is None]
        if missing:
            found |= self._compute(source, missing, transform, batch_size)
            if self.fingerprint() != before:
                raise RuntimeError("The encoder must not change while it is evaluated. It did.")
            for layer in missing:
                _save(folders[layer], found[layer])
        return found

    def _compute(
        self, source: Source, layers: Sequence[str], transform: Transform | None, batch_size: int
    ) -> dict[str, Features]:
        size = self._image_size
        embed = self._function(tuple(layers), transform)
        bad_images = BadImages(source)
        parts: list[Mapping[str, np.ndarray]] = []
        title = f"features of {source.name}" + (f", {transform.name}" if transform else "")
        with tqdm(total=source.num_examples, unit=" images", desc=title, mininterval=1) as bar:
            for images, labels, index in plain_images(source, size, batch_size, bad_images):
                values = {k: v.numpy() for k, v in embed(images, index).items()}
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

    def _function(self, layers: tuple[str, ...], transform: Transform | None) -> Callable:
        """(images float32 [b, S, S, 3], index int64 [b]) -> layer -> values [b, D]."""
        if (layers, transform) in self._functions:
            return self._functions[layers, transform]
        model = keras.Model(self._inputs, {layer: self._outputs[layer] for layer in layers})
        size = self._image_size

        @tf.function(
            input_signature=[tf.TensorSpec([None, size, size, 3]), tf.TensorSpec([None], tf.int64)]
        )
        def embed(images: tf.Tensor, index: tf.Tensor) -> dict[str, tf.Tensor]:
            if transform:
                images = transform.function(images, index)
            return model(images, training=False)

        return self._functions.setdefault((layers, transform), embed)

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


def _load(folder: str | None) -> Features | None:
    if folder is None or not tf.io.gfile.isdir(folder):
        return None
    arrays = {}
    for field in dataclasses.fields(Features):
        with tf.io.gfile.GFile(os.path.join(folder, f"{field.name}.npy"), "rb") as file:
            arrays[field.name] = np.load(file, allow_pickle=False)
    return Features(**arrays)


def _save(folder: str | None, features: Features) -> None:
    """Writes a folder that is there whole or not at all."""
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
