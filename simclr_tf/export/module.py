"""The content of a SavedModel of this project: networks that can be called, trained and served.

It is traced from networks that were built outside any strategy and keeps all activations, so its
graph holds no collective op and no custom gradient, and it loads without this package being
installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import tensorflow as tf

from simclr_tf.data.decode import decode_center
from simclr_tf.models.heads import last_projection
from simclr_tf.models.remat import without_remat

_IMAGES = tf.TensorSpec([None, None, None, 3], tf.float32, name="images")
_IMAGE_BYTES = tf.TensorSpec([None], tf.string, name="image_bytes")
_Trackable = tf.__internal__.tracking.AutoTrackable


class Network(_Trackable):
    """The variables of one network.

    Attributes:
      weights: all of them by their Keras path, such as "stem_conv/kernel".
      variables: the same, as a list.
      trainable_variables: those that fine-tuning changes.
    """

    def __init__(self, model: keras.Model):
        self._hold(model)
        self.weights = {v.path: v.value for v in model.variables}
        self.variables = [v.value for v in model.variables]
        self.trainable_variables = [v.value for v in model.trainable_variables]

    @tf.__internal__.tracking.no_automatic_dependency_tracking
    def _hold(self, model: keras.Model) -> None:
        """Keeps Keras' own tree of objects, which is not needed, out of the SavedModel."""
        self._model = model

    def outputs(self, inputs: tf.Tensor, training: bool):
        """Computes the output of the Keras model, with all activations kept."""
        with without_remat():
            return self._model(inputs, training=training)


class Head(Network):
    """A network on the representation: `head(representation, training=False)`."""

    def __init__(self, model: keras.Model):
        super().__init__(model)
        _trace(self, "representation", model.inputs[0].shape)

    @tf.function(autograph=False)
    def __call__(self, representation: tf.Tensor, training: bool = False):
        return self.outputs(representation, training)


class FeatureVector(_Trackable):
    """A TF-Hub image feature vector: `module(images, training=False)` -> representation [B, D].

    Images are float32 [B, H, W, 3] in [0, 1], at about the size of training. With `training=True`
    batch normalization uses the batch's statistics and updates its averages, as fine-tuning needs.

    Attributes:
      variables: all of the encoder's variables.
      trainable_variables: the encoder's variables that fine-tuning changes.
      regularization_losses: none, an empty list.
      networks: the variables by network: "encoder" and, if there are any, the heads
        "projection_head", which can be called and gives "projection_0" (the representation itself)
        to "projection_n" (z), and "classifier", which can be called and gives logits [B, K].
    """

    def __init__(self, models: Mapping[str, keras.Model]):
        self.networks = {
            name: Network(model) if name == "encoder" else Head(model)
            for name, model in models.items()
        }
        self.variables = self.networks["encoder"].variables
        self.trainable_variables = self.networks["encoder"].trainable_variables
        self.regularization_losses = []
        _trace(self, "images", models["encoder"].inputs[0].shape)

    @tf.function(autograph=False)
    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.networks["encoder"].outputs(images, training)["final_avg_pool"]


def _trace(function, name: str, shape: Sequence[int | None]) -> None:
    """Traces `__call__` for the two ways in which a SavedModel can be called."""
    for training in (False, True):
        inputs = tf.TensorSpec([None, *shape[1:]], tf.float32, name=name)
        function.__call__.get_concrete_function(inputs, training=training)


def make_signatures(
    module: FeatureVector, image_size: int, class_names: Sequence[str] | None = None
) -> dict[str, tf.types.experimental.ConcreteFunction]:
    """Returns the signatures of the networks in `module`, each from and to a dict of tensors.

    Images are float32 [B, H, W, 3] in [0, 1].

    Args:
      module: the module to export.
      image_size: size of the images in `encode_jpeg` after preprocessing, in pixels.
      class_names: names of the K classes, in the order of the logits.

    Returns:
      serving_default: "images" -> "representation" [B, D].
      encode_jpeg: "image_bytes" [B], each a JPEG, PNG, GIF, BMP or (from TensorFlow 2.20
        on) WebP file, turned upright and preprocessed as in evaluation -> "representation".
      endpoints: "images" -> every named layer of the encoder and of the projection head.
      project: "images" -> "projection" [B, P], with a projection head.
      classify: "images" -> "logits" and "probabilities" [B, K] and, with class names, "class_name"
        [B], the most likely one; with a classifier.
    """
    networks = module.networks

    @tf.function(autograph=False)
    def layers(images):
        return networks["encoder"].outputs(images, training=False)

    def representation(images):
        return {"representation": layers(images)["final_avg_pool"]}

    def encode_jpeg(image_bytes):
        return representation(_decoded(image_bytes, image_size))

    def projections(h):
        return networks["projection_head"](h) if "projection_head" in networks else {}

    def endpoints(images):
        named = layers(images)
        return {**named, **projections(named["final_avg_pool"])}

    def project(images):
        named = projections(layers(images)["final_avg_pool"])
        return {"projection": last_projection(named)}

    def classify(images):
        logits = networks["classifier"](layers(images)["final_avg_pool"])
        return _class_outputs(logits, class_names)

    traced = {
        "serving_default": (representation, _IMAGES),
        "encode_jpeg": (encode_jpeg, _IMAGE_BYTES),
        "endpoints": (endpoints, _IMAGES),
    }
    if "projection_head" in networks:
        traced["project"] = (project, _IMAGES)
    if "classifier" in networks:
        traced["classify"] = (classify, _IMAGES)
    return {
        name: tf.function(function, autograph=False).get_concrete_function(inputs)
        for name, (function, inputs) in traced.items()
    }


def _decoded(image_bytes: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes images [B] as in evaluation: float32 [B, size, size, 3] in [0, 1]."""
    pixels = tf.TensorSpec([size, size, 3], tf.float32)
    return tf.map_fn(lambda one: decode_center(one, size), image_bytes, fn_output_signature=pixels)


def _class_outputs(logits: tf.Tensor, class_names: Sequence[str] | None) -> dict[str, tf.Tensor]:
    outputs = {"logits": logits, "probabilities": tf.nn.softmax(logits)}
    if class_names is not None:
        outputs["class_name"] = tf.gather(list(class_names), tf.argmax(logits, axis=-1))
    return outputs


def input_of(signature: tf.types.experimental.ConcreteFunction) -> tf.TensorSpec:
    """Returns the only input of a signature from `make_signatures`."""
    [spec], _ = signature.structured_input_signature
    return spec
