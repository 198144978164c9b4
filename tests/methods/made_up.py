"""A method that uses all that the interface offers, and that nobody should train by.

The encoder predicts what a slow copy of it sees, less the centre of what that has seen; is kept
from a queue of what it has seen; and gives a teacher's opinion of the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras
import tensorflow as tf

from simclr_tf.augment.policy import Augmentation
from simclr_tf.augment.views import ViewGroup
from simclr_tf.distribute import collectives
from simclr_tf.methods.base import Method, Tensors
from simclr_tf.metrics import Metric
from simclr_tf.models.networks import Networks, copy_values, representation_dim

QUEUE, FOLLOWED, TAUGHT = 12, 0.8, 2


@dataclasses.dataclass(frozen=True, eq=False)
class Follow(Method):
    """See the module.

    Attributes:
        networks: "encoder", and "predictor" from representations to the follower's.
        followers: "slow_encoder".
        fixed: "teacher", from representations to opinions.
        state: "queue" [K, D], the last keys; "queued", how many there have been; "centre" [D].
    """

    name = "made up"
    metrics = (
        Metric("following_loss", "following loss"),
        Metric("agreement"),
        Metric("queue_length", whole=True),
    )

    @property
    def embedded_specs(self) -> Mapping[str, tf.TensorSpec]:
        return {"prediction": tf.TensorSpec([2, self.dim])}

    @property
    def target_specs(self) -> Mapping[str, tf.TensorSpec]:
        return {"keys": tf.TensorSpec([2, self.dim]), "opinions": tf.TensorSpec([2, TAUGHT])}

    @property
    def dim(self) -> int:
        return self.state["centre"].shape[0]

    def targets(self, batch: Tensors) -> Tensors:
        keys = self.followers["slow_encoder"](batch["images"], training=False)["final_avg_pool"]
        opinions = self.fixed["teacher"](keys, training=False)
        return {"keys": keys, "opinions": tf.cast(opinions, tf.float32)}

    def embed(self, batch: Tensors, training: bool) -> Tensors:
        h = self.networks["encoder"](batch["images"], training=training)["final_avg_pool"]
        prediction = self.networks["predictor"](h, training=training)
        return {"representation": h, "prediction": tf.cast(prediction, tf.float32)}

    def loss(self, embedded: Tensors, targets: Tensors) -> tuple[tf.Tensor, Tensors]:
        prediction, keys = embedded["prediction"], targets["keys"]
        rows = prediction.shape[0] * collectives.num_replicas()
        missed = tf.reduce_sum(tf.square(prediction - keys + self.state["centre"]), axis=1)
        near = tf.reduce_sum(
            tf.square(tf.matmul(prediction, self.state["queue"], transpose_b=True)), axis=1
        )
        opinion = tf.cast(self.fixed["teacher"](prediction, training=False), tf.float32)
        apart = tf.reduce_sum(tf.square(opinion - targets["opinions"]), axis=1)
        agreement = tf.reduce_sum(tf.cast(missed < 0.1, tf.float32)) / rows
        length = tf.cast(tf.minimum(self.state["queued"], QUEUE), tf.float32)
        return tf.reduce_sum(missed + 0.1 * near + apart) / rows, {
            "agreement": agreement,
            "queue_length": length,
        }

    def transform_gradients(
        self, step: keras.Variable, gradients: list[tf.Tensor]
    ) -> list[tf.Tensor]:
        """In the first step half, so that the number of the step counts; and never too long."""
        factor = tf.where(step.value < 1, 0.5, 1.0)
        clipped, _ = tf.clip_by_global_norm(gradients, 1.0)
        return [factor * gradient for gradient in clipped]

    def after_update(self, step: keras.Variable, inputs: Tensors) -> None:
        slow, fast = self.followers["slow_encoder"], self.networks["encoder"]
        for follower, followed in zip(slow.variables, fast.variables, strict=True):
            follower.assign(FOLLOWED * follower + (1 - FOLLOWED) * followed)
        by_view = tf.reshape(inputs["keys"], [2, -1, self.dim])
        keys = collectives.all_gather(by_view, axis=1)
        centre, queue = self.state["centre"], self.state["queue"]
        centre.assign(FOLLOWED * centre + (1 - FOLLOWED) * tf.reduce_mean(keys, axis=[0, 1]))
        queue.assign(tf.concat([queue, keys[0]], axis=0)[-QUEUE:])
        self.state["queued"].assign(tf.cast(step.value, tf.int32) * keys.shape[1])


def follow(
    *,
    augmentation: Callable[[], Augmentation],
    encoder: Callable[..., keras.Model],
    image_size: int,
    method: type[Follow] = Follow,
) -> Follow:
    """Builds all networks of the method, and its state, in the caller's scope and precision."""
    fast, slow = encoder(image_size=image_size), encoder(image_size=image_size)
    dim = representation_dim(fast)
    networks = Networks({"encoder": fast, "predictor": _dense(dim, dim, seed=None)})
    followers = Networks({"slow_encoder": slow})
    copy_values(Networks({"encoder": fast}), followers)
    return method(
        networks=networks,
        followers=followers,
        fixed=Networks({"teacher": _dense(dim, TAUGHT, seed=5)}),
        state={
            "queue": _state([QUEUE, dim], "float32", "queue"),
            "queued": _state([], "int32", "queued"),
            "centre": _state([dim], "float32", "centre"),
        },
        views=[ViewGroup("images", [augmentation()] * 2, image_size)],
    )


class FollowAtOnce(Follow):
    """The same, but that it does not say that a batch can be embedded in parts."""

    embedded_specs = None


def _dense(inputs: int, outputs: int, seed: int | None) -> keras.Model:
    x = keras.Input((inputs,))
    initializer = keras.initializers.GlorotUniform(seed=seed)
    name = "predictor_dense" if seed is None else "teacher_dense"
    return keras.Model(x, keras.layers.Dense(outputs, kernel_initializer=initializer, name=name)(x))


def _state(shape: Sequence[int], dtype: str, name: str) -> keras.Variable:
    return keras.Variable("zeros", shape=shape, dtype=dtype, trainable=False, name=name)
