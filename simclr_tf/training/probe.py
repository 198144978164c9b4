"""The online probe, a linear classifier that watches the representation while it is trained.

It reads plain images, as linear evaluation does, and not the step's views: on the views of a strong
augmentation a classifier is far less accurate, and does not fit plain images either. The encoder is
in inference mode, and nothing of it changes.

The encoder moves all the time, so a probe must follow within some dozens of steps, too few to fit a
classifier by one look at each image. So the probe keeps the representations of the last images, a
few thousand, and takes several steps on all of them each time. Representations are normalized by
the mean and standard deviation of those kept, so no rate depends on their scale; the probe's own
kernel and bias are those of the representation as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.methods.base import Tensors
from simclr_tf.metrics import Metric
from simclr_tf.models.heads import linear_probe
from simclr_tf.models.networks import Networks, count_parameters, representation_dim
from simclr_tf.objectives.cross_entropy import cross_entropies

PROBE_METRICS = (
    Metric("probe_loss"),
    Metric("probe_accuracy", "online probe, plain images"),
)
# In a replay of the quick start's representations these come within about 4 points of linear
# evaluation with 64 images a step, and within 2 with 128, which would double their cost.
KEPT, UPDATES, MOMENTUM = 4096, 8, 0.9
_FEWEST, _SHARE = 64, 8
# Steps of more work than this would show beside a step of the encoder: 1,000 classes of ResNet-50
# get one at a time, and have the many steps of ImageNet for it.
_MOST_FLOP = 2**34
_EPSILON = 1e-5


def images_a_step(global_batch_size: int) -> int:
    """Returns how many plain images a probe reads in each step, over all replicas.

    An eighth of the batch costs a fiftieth of a step. Of a small batch that would be too few.
    """
    return min(global_batch_size, max(_FEWEST, global_batch_size // _SHARE))


class OnlineProbe:
    """A linear classifier on the representation, its rule, and what the rule remembers.

    With W and b for normalized representations x of the images kept, it takes `updates` steps of
    gradient descent with momentum on their mean cross-entropy. The rate is 4 / (D + 1): the largest
    eigenvalue of the Hessian is at most half of the mean of |x|^2 + 1, so that this descent is
    stable up to 7.6 / (D + 1).

    Build it under the strategy's scope. Its variables are equal on all replicas.

    Args:
      num_classes: number of classes.
      encoder: images -> dict with "final_avg_pool" [N, D]; it is watched, and not changed.
      kept: M, how many images' representations are kept.
    """

    def __init__(self, num_classes: int, encoder: keras.Model, *, kept: int = KEPT):
        dim = representation_dim(encoder)
        model = linear_probe(num_classes, input_dim=dim)
        self.networks = Networks({"probe": model}, classifiers=("probe",))
        self._encoder = encoder
        self._kernel = _variable([dim, num_classes], "kernel")
        self._bias = _variable([num_classes], "bias")
        self._kernel_velocity = _variable([dim, num_classes], "kernel_velocity")
        self._bias_velocity = _variable([num_classes], "bias_velocity")
        self._representations = _variable([kept, dim], "representations")
        self._labels = _variable([kept], "labels", -1)
        self.rate = 4.0 / (dim + 1)
        self.updates = min(UPDATES, max(1, _MOST_FLOP // (4 * kept * dim * num_classes)))

    @property
    def state(self) -> Mapping[str, keras.Variable]:
        """The variables of the rule by name: the group "probe_optimizer" of a checkpoint."""
        variables = (
            self._kernel,
            self._bias,
            self._kernel_velocity,
            self._bias_velocity,
            self._representations,
            self._labels,
        )
        return {variable.name: variable for variable in variables}

    def words(self) -> str:
        """Describes the probe for the plan."""
        return (
            f"linear, {count_parameters(self.networks):,} parameters, on the last "
            f"{self._labels.shape[0]:,} plain training images, at a rate of its own"
        )

    def watch(self, images: tf.Tensor, labels: tf.Tensor) -> Tensors:
        """Classifies new images, and then learns from them; part of the replica function.

        Args:
          images: this replica's, float32 [p, S, S, 3] in [0, 1], without augmentation.
          labels: int32 [p], -1 where unknown.

        Returns:
          This replica's shares of the `PROBE_METRICS` before the probe saw these images.
        """
        found = self._encoder(images, training=False)["final_avg_pool"]
        representation = tf.stop_gradient(tf.cast(found, tf.float32))
        numbers = probe_numbers(self.networks["probe"](representation), labels)
        # Numbers of classes are exact in float32, so one collective takes both.
        rows = tf.concat([representation, tf.cast(labels, tf.float32)[:, tf.newaxis]], axis=1)
        rows = collectives.all_gather(rows)
        self._keep(rows[:, :-1], rows[:, -1])
        self._learn()
        return numbers

    def _keep(self, representations: tf.Tensor, labels: tf.Tensor) -> None:
        """Puts the newest rows before the others, of which the oldest are dropped."""
        for kept, new in ((self._representations, representations), (self._labels, labels)):
            kept.assign(tf.concat([new, tf.convert_to_tensor(kept)], axis=0)[: kept.shape[0]])

    def _learn(self) -> None:
        labels = tf.cast(tf.convert_to_tensor(self._labels), tf.int32)
        known = tf.cast(labels >= 0, tf.float32)
        weights = (known / tf.maximum(tf.reduce_sum(known), 1.0))[:, tf.newaxis]
        h = tf.convert_to_tensor(self._representations)
        mean = tf.reduce_sum(weights * h, axis=0)
        variance = tf.reduce_sum(weights * tf.square(h - mean), axis=0)
        deviation = tf.sqrt(variance + _EPSILON)
        self._descend((h - mean) / deviation, labels, weights)
        kernel = tf.convert_to_tensor(self._kernel) / deviation[:, tf.newaxis]
        model_kernel, model_bias = self.networks.trainable_variables
        model_kernel.assign(kernel)
        shift = tf.linalg.matvec(kernel, mean, transpose_a=True)
        model_bias.assign(tf.convert_to_tensor(self._bias) - shift)

    def _descend(self, x: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> None:
        """Takes the steps on normalized representations x [M, D], whose `weights` sum to 1."""
        wanted = tf.one_hot(labels, self._bias.shape[0])
        state = (self._kernel, self._bias, self._kernel_velocity, self._bias_velocity)
        kernel, bias, kernel_velocity, bias_velocity = map(tf.convert_to_tensor, state)
        for _ in range(self.updates):
            errors = weights * (tf.nn.softmax(x @ kernel + bias) - wanted)
            slope = tf.matmul(x, errors, transpose_a=True)
            kernel_velocity = MOMENTUM * kernel_velocity + slope
            bias_velocity = MOMENTUM * bias_velocity + tf.reduce_sum(errors, axis=0)
            kernel -= self.rate * kernel_velocity
            bias -= self.rate * bias_velocity
        for variable, value in zip(
            state, (kernel, bias, kernel_velocity, bias_velocity), strict=True
        ):
            variable.assign(value)


def online_probe(num_classes: int | None, encoder: keras.Model) -> OnlineProbe | None:
    """Builds the probe of an encoder; returns None without classes."""
    return None if num_classes is None else OnlineProbe(num_classes, encoder)


def probe_numbers(logits: tf.Tensor, labels: tf.Tensor) -> dict[str, tf.Tensor]:
    """Returns this replica's shares of the mean cross-entropy and of the accuracy.

    An image whose label is unknown (-1) counts as a loss of zero and as misclassified.

    Args:
      logits: [p, classes] float32.
      labels: [p] int32.

    Returns:
      The `PROBE_METRICS`, float32 scalars.
    """
    rows = tf.cast(tf.shape(labels)[0] * collectives.num_replicas(), tf.float32)
    losses = cross_entropies(logits, labels)
    found = tf.argmax(logits, axis=-1, output_type=tf.int32)
    accuracy = tf.reduce_sum(tf.cast(found == labels, tf.float32)) / rows
    return {"probe_loss": tf.reduce_sum(losses) / rows, "probe_accuracy": accuracy}


def _variable(shape: list[int], name: str, value: float = 0.0) -> keras.Variable:
    initial = keras.initializers.Constant(value)
    return keras.Variable(initial, shape=shape, dtype="float32", trainable=False, name=name)
