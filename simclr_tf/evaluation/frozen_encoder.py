"""Inputs of every evaluation of frozen networks: the data, the weights, and the layer."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gin
import keras
import numpy as np
import tensorflow as tf

from simclr_tf.context import Context
from simclr_tf.data.dataset import Dataset, data
from simclr_tf.data.source import Source
from simclr_tf.distribute.strategy import create_strategy, refuse_workers
from simclr_tf.errors import RequestError
from simclr_tf.evaluation.features import REPRESENTATION, Features, FrozenEncoder
from simclr_tf.evaluation.splits import Splits
from simclr_tf.export.weights import UNTRAINED, PretrainedWeights, pretrained
from simclr_tf.models.heads import projection_head
from simclr_tf.models.networks import representation_dim
from simclr_tf.models.resnet import resnet
from simclr_tf.names import listed
from simclr_tf.training.failures import as_request_error
from simclr_tf.training.run import check_seed


class FeaturesOfSplits(NamedTuple):
    """Features of the splits to train and to test on, and what a result says of these splits."""

    train: Features
    test: Features
    told: Splits


class _AtHand:
    """Features of sources, each computed when it is first requested."""

    def __init__(self):
        self._known: list[tuple[Source, Features]] = []

    def of(self, source: Source, compute: Callable[[Source], Features]) -> Features:
        for known, features in self._known:
            if known is source:
                return features
        self._known.append((source, compute(source)))
        return self._known[-1][1]


@dataclasses.dataclass(frozen=True)
class Frozen:
    """Frozen networks and the data to evaluate them on.

    Attributes:
      encoder: computes features.
      networks: its networks, by their names in a checkpoint.
      data: the recipe's data.
      layer: the layer whose features are evaluated.
      weights: the weights that the networks were filled with.
      seed: seed of the initial weights, for networks that are not filled.
      strategy: distributes the images over its devices.
      untrained: builds the same networks with their initial weights, on the same devices.
      at_hand: features that were computed already, if several evaluations share them.
    """

    encoder: FrozenEncoder
    networks: Mapping[str, keras.Model]
    data: Dataset
    layer: str
    weights: PretrainedWeights
    seed: int
    strategy: tf.distribute.Strategy
    untrained: Callable[[], Frozen]
    at_hand: _AtHand | None = None

    def train(self) -> Features:
        """Returns features of the labelled split to train on."""
        return self.features(labelled(self.data.train()))

    def test(self) -> Features:
        """Returns features of the labelled split to test on."""
        return self.features(labelled(self.data.evaluation()))

    def sources(self) -> tuple[Source, Source]:
        """Returns the labelled splits to train and to test on, opened."""
        with as_request_error():
            return labelled(self.data.train()), labelled(self.data.evaluation())

    def splits(self) -> FeaturesOfSplits:
        """Returns features of the splits to train and to test on, whose classes fit.

        Raises:
          RequestError: an image has no label, or a test image a class that training lacks.
        """
        sources = self.sources()
        train, test = map(self.features, sources)
        check_classes(train, test, sources[0].class_names)
        told = Splits.of(self.data, *sources, train.labels, test.labels)
        return FeaturesOfSplits(train, test, told)

    def refilled(self, weights: PretrainedWeights) -> Frozen:
        """Returns the same networks after other weights were restored into them.

        Features of a source are computed once for all evaluations of these weights.

        Args:
          weights: the weights that `networks` hold now.
        """
        return dataclasses.replace(self, weights=weights, at_hand=_AtHand())

    def of_layer(self, layer: str) -> Frozen:
        """Returns the same networks with another layer to evaluate.

        Raises:
          RequestError: there is no such layer.
        """
        if layer == self.layer:
            return self
        if layer != REPRESENTATION and "projection_head" not in self.networks:
            raise RequestError(
                f"The projection head must be built to evaluate the layer {layer!r}. Received: "
                "the encoder alone. Bind frozen_encoder.layer = 'projection'."
            )
        return dataclasses.replace(self, layer=layer, at_hand=None)

    def features(self, source: Source) -> Features:
        """Returns features of any split."""
        if self.at_hand:
            return self.at_hand.of(source, self._computed)
        return self._computed(source)

    def _computed(self, source: Source) -> Features:
        return self.encoder.features(source, (self.layer,))[self.layer]

    def record(self) -> dict[str, Any]:
        """Returns the part of every result that says where its numbers come from."""
        return {
            "checkpoint": self.weights.record() | {"fingerprint": self.encoder.fingerprint()},
            "layer": self.layer,
            "data": self.data.name,
            "image_size": self.data.image_size,
            "seed": self.seed,
        }


@gin.configurable
def frozen_encoder(
    *,
    data: Callable[..., Dataset] = data,
    encoder: Callable[..., keras.Model] = resnet,
    projection_head: Callable[..., keras.Model] = projection_head,
    pretrained: Callable[..., PretrainedWeights] = pretrained,
    layer: str = REPRESENTATION,
    strategy: Callable[..., tf.distribute.Strategy] = create_strategy,
    seed: int = 0,
    keep_features: bool = True,
    context: Context,
) -> Frozen:
    """Builds the recipe's networks, and fills them with pretrained weights.

    Args:
      data: the images and their size.
      encoder: builds the network, as in pretraining.
      projection_head: builds the head, as in pretraining, if `layer` lies in it.
      pretrained: finds the weights.
      layer: "representation" (h), "projection" (z), or "projection_k", the head's k-th layer.
      strategy: picks the tf.distribute strategy, whose devices compute the features.
      seed: seed of the initial weights, which 'untrained' networks keep.
      keep_features: whether to keep features in the model_dir, for the next job that needs them.
      context: the command line's values.
    """
    with as_request_error():
        refuse_workers()
        check_seed("frozen_encoder", seed)
        devices = tf.distribute.get_strategy()
        if context.runtime == "tensorflow":  # the other takes steps of training alone
            devices = strategy(tpu=context.tpu)
        recipe = data(data_dir=context.data_dir)
        weights = pretrained(model_dir=context.model_dir)
    cache = os.path.join(context.model_dir, "features") if keep_features else None

    def build(weights: PretrainedWeights) -> Frozen:
        keras.utils.set_random_seed(seed)
        with as_request_error(), devices.scope():
            networks = {"encoder": encoder(image_size=recipe.image_size)}
            if layer != REPRESENTATION:
                dim = representation_dim(networks["encoder"])
                networks["projection_head"] = projection_head(input_dim=dim)
            weights.restore(networks)
        frozen = FrozenEncoder(
            **networks, image_size=recipe.image_size, strategy=devices, cache_dir=cache
        )
        return Frozen(frozen, networks, recipe, layer, weights, seed, devices, untrained)

    def untrained() -> Frozen:
        return build(PretrainedWeights(UNTRAINED, None, ()))

    return build(weights)


def check_classes(train: Features, other: Features, names: Sequence[str]) -> None:
    """Raises RequestError unless every image has a label, and each class occurs in train.

    Args:
      train: features to train on.
      other: features to evaluate.
      names: the names of the classes, by their numbers.
    """
    check_labels(train)
    check_labels(other)
    unknown = np.setdiff1d(other.labels, train.labels)
    if len(unknown):
        told = listed(names[n] if n < len(names) else f"number {n}" for n in unknown)
        raise RequestError(
            "Every class of the evaluated images must occur in the training split. Received: "
            f"classes that do not, {told}, beside {len(np.unique(train.labels))} that do. Check "
            "data.train_split and data.eval_split."
        )


def check_labels(features: Features) -> None:
    """Raises RequestError unless every image has a label."""
    unlabelled = int((features.labels < 0).sum())
    if unlabelled:
        raise RequestError(
            f"Every image must have a label. Received: {unlabelled} of {len(features.labels)} "
            "without one. Choose splits with labels (data.train_split, data.eval_split)."
        )


def labelled(source: Source) -> Source:
    """Returns the source, if it has the labels that an evaluation needs.

    Raises:
      RequestError: it has none.
    """
    if source.num_classes is None:
        raise RequestError(
            f"This evaluation needs labels. Received: {source.name}, which has none. For a "
            "folder, put each class into a subfolder of its own; or use the jobs label_free and "
            "embed, which need none."
        )
    return source
