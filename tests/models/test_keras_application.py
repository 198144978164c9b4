"""If this breaks, an encoder bears the name of a published network and computes something else."""

import importlib
import inspect
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.batch_norm import local_normalizations
from simclr_tf.distribute.lowering import LoweringStrategy, lower
from simclr_tf.errors import InvalidArgument
from simclr_tf.export.encoder_json import build_encoder
from simclr_tf.models.classifier import freeze_groups
from simclr_tf.models.keras_application import keras_application
from simclr_tf.models.networks import variable_roles


def images(size, count=3, seed=1):
    return np.random.default_rng(seed).random((count, size, size, 3)).astype(np.float32)


def with_random_values(network: keras.Model) -> keras.Model:
    """No value is an initial one, input statistics included."""
    rng = np.random.default_rng(0)
    for variable in network.variables:
        if variable.dtype == "float32":
            value = variable.numpy() + rng.normal(0, 0.05, variable.shape)
            variable.assign(np.abs(value) + 0.1 if "variance" in variable.name else value)
    return network


def by_keras(name: str, size: int, file: str, pixels: np.ndarray) -> np.ndarray:
    """What Keras' own network computes with the file's weights, pooled in NumPy."""
    build = getattr(keras.applications, name)
    network = build(include_top=False, weights=file, input_shape=(size, size, 3))
    preprocess = importlib.import_module(inspect.getmodule(build).__name__).preprocess_input
    return network(preprocess(255.0 * pixels), training=False).numpy().mean((1, 2))


def file_of(folder: pathlib.Path, name: str, size: int) -> str:
    """Writes random weights of a network as a person would on another machine."""
    path = str(folder / f"{name}.weights.h5")
    build = getattr(keras.applications, name)
    network = build(include_top=False, weights=None, input_shape=(size, size, 3))
    with_random_values(network).save_weights(path)
    return path


# Preprocessing outside the network to [-1, 1], inside it with statistics in variables and an odd
# size, inside it with constants and without batch normalization, and in BGR.
@pytest.mark.own_process
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("MobileNetV2", 32),
        ("EfficientNetB0", 33),
        pytest.param("ConvNeXtTiny", 32, marks=pytest.mark.slow),
        pytest.param("VGG16", 32, marks=pytest.mark.slow),
    ],
)
def test_keras_network_gives_the_same_numbers(tmp_path, name, size):
    file = file_of(tmp_path, name, size)
    encoder, pixels = keras_application(name, file, image_size=size), images(size)
    found = encoder(pixels, training=False)["final_avg_pool"]
    expected = by_keras(name, size, file, pixels)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    again = keras_application(name, image_size=size)  # values by path, as a checkpoint restores
    values = {v.path: v.numpy() for v in encoder.variables}
    assert values.keys() == {v.path for v in again.variables}
    for variable in again.variables:
        variable.assign(values[variable.path])
    np.testing.assert_array_equal(again(pixels, training=False)["final_avg_pool"], found)
    loaded = build_encoder(encoder.to_json())
    assert {v.path for v in loaded.variables} == values.keys()


@pytest.mark.slow
def test_layers_without_a_name_are_numbered_anew_in_every_network():
    first, second = (keras_application("InceptionV3", image_size=75) for _ in range(2))
    paths = [v.path for v in first.variables]
    assert paths == [v.path for v in second.variables] and len(set(paths)) == len(paths)
    assert paths[0] == "conv2d/kernel"


def test_nothing_in_training_is_drawn_or_left_to_one_replica():
    encoder, pixels = keras_application("EfficientNetB0", image_size=32), images(32)
    first, second = (encoder(pixels, training=True)["final_avg_pool"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert {v.dtype for v in encoder.variables} == {"float32"}
    assert local_normalizations(encoder) == []


@pytest.mark.slow
def test_two_replicas_normalize_as_one_with_both_batches():
    """At 64 pixels: normalizing few values amplifies what rounding differs."""
    pixels = images(64, count=8)
    one = keras_application("MobileNetV2", image_size=64)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(2)])
    with strategy.scope():
        two = keras_application("MobileNetV2", image_size=64)
        for mine, theirs in zip(two.variables, one.variables, strict=True):
            mine.assign(theirs.numpy())
    expected = one(pixels, training=True)["final_avg_pool"]

    @tf.function
    def run():
        def forward():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            part = tf.gather(tf.reshape(pixels, [2, 4, 64, 64, 3]), replica)
            return two(part, training=True)["final_avg_pool"]

        return strategy.experimental_local_results(strategy.run(forward))

    np.testing.assert_allclose(tf.concat(run(), 0), expected, atol=5e-4 * np.abs(expected).max())
    for mine, theirs in zip(two.variables, one.variables, strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.own_process
def test_vectors_of_no_normalization_are_not_kernels():
    roles = variable_roles(keras_application("ConvNeXtTiny", image_size=32))
    assert roles["convnext_tiny_stage_0_block_0_layer_scale/gamma"] == "bias"
    assert roles["convnext_tiny_stage_0_block_0_pointwise_conv_1/kernel"] == "kernel"
    assert roles["layer_normalization/gamma"] == "batch_norm"


@pytest.mark.slow
@pytest.mark.own_process
@pytest.mark.parametrize("name", ["MobileNetV2", "EfficientNetB0", "ConvNeXtTiny"])
def test_a_tpu_could_run_it(name):
    strategy = LoweringStrategy(2, values=False)
    with strategy.scope():
        encoder = keras_application(name, image_size=32)

    def step(pixels):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(encoder(pixels, training=True)["final_avg_pool"])
        return tape.gradient(loss, [v.value for v in encoder.trainable_variables])

    lower(strategy, step, tf.TensorSpec([2, 32, 32, 3]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "MobilNetV2"}, r"must be a network.*'MobilNetV2'\. Did you mean MobileNetV2"),
        ({"name": "mobilenet"}, "Did you mean MobileNet"),
        ({}, r"must be a network of keras.applications. Received: ''"),
        ({"image_size": 31}, r"31 x 31 pixels; Keras says: .*at least 32x32"),
        ({"weights": "imagenet"}, "'imagenet', which is none. It would be downloaded"),
        ({"weights": "https://host/file.h5"}, "which is none. It would be downloaded"),
        ({"weights": "missing.weights.h5"}, "which is none. Where Keras may download"),
    ],
)
def test_other_requests_are_refused(arguments, message):
    named = {"name": "MobileNetV2"} if arguments else {}
    with pytest.raises(InvalidArgument, match=message):
        keras_application(**{**named, "image_size": 32, **arguments})


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    (tmp_path / "text.weights.h5").write_text("nothing of the kind")
    for file in (file_of(tmp_path, "VGG16", 32), str(tmp_path / "text.weights.h5")):
        with pytest.raises(InvalidArgument, match="must hold MobileNetV2 without its classifier"):
            keras_application("MobileNetV2", file, image_size=32)


def test_block_groups_that_are_not_there_are_not_frozen():
    encoder = keras_application("MobileNetV2", image_size=32)
    freeze_groups(encoder, -1)
    with pytest.raises(InvalidArgument, match=r"Received: 2 for an encoder without\. Set -1"):
        freeze_groups(encoder, 2)
