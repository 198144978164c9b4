"""The encoder: published sizes, shapes, names, initialization, dtypes."""

import gin
import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import logging

from simclr_tf.distribute.batch_norm import SyncBatchNormalization
from simclr_tf.models.networks import count_parameters
from simclr_tf.models.resnet import DEPTHS, resnet

OUTPUTS = (
    "initial_conv",
    "block_group1",
    "block_group2",
    "block_group3",
    "block_group4",
    "final_avg_pool",
)


@pytest.fixture
def policy():
    """Sets the global dtype policy for one test."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def parameters(depth: int, width: int, stem: str) -> int:
    """Trainable parameters, added up from the description of the architecture."""
    kind, blocks = DEPTHS[depth]

    def conv_and_norm(size, fan_in, fan_out):
        return size * size * fan_in * fan_out + 2 * fan_out

    channels = 64 * width
    total = conv_and_norm({"imagenet": 7, "cifar": 3}[stem], 3, channels)
    for group, count in enumerate(blocks):
        filters = 64 * width * 2**group
        out = filters if kind == "basic" else 4 * filters
        total += conv_and_norm(1, channels, out)
        for _ in range(count):
            if kind == "basic":
                total += conv_and_norm(3, channels, filters) + conv_and_norm(3, filters, filters)
            else:
                total += conv_and_norm(1, channels, filters) + conv_and_norm(3, filters, filters)
                total += conv_and_norm(1, filters, out)
            channels = out
    return total


@pytest.mark.parametrize(("width", "millions"), [(1, 24), (2, 94), (4, 375)])
def test_formula_gives_the_published_sizes(width, millions):
    """SimCLR, table 6: 24M, 94M and 375M for ResNet-50 of width 1, 2 and 4."""
    assert round(parameters(50, width, "imagenet") / 1e6) == millions


def test_formula_gives_the_usual_resnet_50():
    """25,557,032 in torchvision, less its classifier of 2048 x 1000 + 1000."""
    assert parameters(50, 1, "imagenet") == 25_557_032 - 2_049_000


@pytest.mark.own_process
@pytest.mark.parametrize(
    ("depth", "width", "stem"),
    [(18, 1, "cifar"), (34, 1, "imagenet"), (50, 1, "imagenet")],
)
def test_number_of_parameters(depth, width, stem):
    model = resnet(depth, width, stem, image_size=32)
    assert count_parameters(model) == parameters(depth, width, stem)


@pytest.mark.slow
@pytest.mark.own_process
@pytest.mark.parametrize(("depth", "width"), [(101, 1), (152, 1), (200, 1), (50, 2)])
def test_number_of_parameters_of_large_networks(depth, width):
    model = resnet(depth, width, image_size=224)
    assert count_parameters(model) == parameters(depth, width, "imagenet")


@pytest.mark.parametrize(
    ("depth", "stem", "size", "sides", "channels"),
    [
        (18, "cifar", 32, (32, 32, 16, 8, 4), (8, 8, 16, 32, 64)),
        (18, "imagenet", 64, (32, 16, 8, 4, 2), (8, 8, 16, 32, 64)),
        (50, "cifar", 32, (32, 32, 16, 8, 4), (8, 32, 64, 128, 256)),
        (50, "imagenet", 50, (25, 13, 7, 4, 2), (8, 32, 64, 128, 256)),
    ],
)
def test_shapes(depth, stem, size, sides, channels):
    model = resnet(depth, 0.125, stem, image_size=size)
    outputs = model(np.zeros((2, size, size, 3), np.float32))
    assert tuple(outputs) == OUTPUTS
    shapes = [tuple(outputs[name].shape) for name in OUTPUTS]
    assert shapes[:-1] == [(2, s, s, c) for s, c in zip(sides, channels, strict=True)]
    assert shapes[-1] == (2, channels[-1])


def test_any_image_size_after_construction():
    model = resnet(18, 0.125, "imagenet", image_size=64)
    for size in (64, 97):
        assert model(np.zeros((1, size, size, 3)))["final_avg_pool"].shape == (1, 64)


def test_starts_as_its_shortcuts():
    """Gamma zero at the end of every branch and one in the shortcuts."""
    model = resnet(50, 0.125, "cifar", image_size=32)
    gammas = {v.path: v.numpy() for v in model.variables if v.name == "gamma"}
    zero = {path for path, gamma in gammas.items() if not gamma.any()}
    assert zero == {path for path in gammas if "_bn3/" in path}
    assert all((gamma == 1).all() for path, gamma in gammas.items() if path not in zero)


def test_convolutions_have_fan_in_variance_and_no_bias():
    model = resnet(18, 1, "cifar", image_size=32)
    kernel = model.get_layer("block_group4_block2_conv2").kernel.numpy()
    np.testing.assert_allclose(kernel.std(), np.sqrt(1 / (9 * 512)), rtol=0.01)
    assert np.abs(kernel).max() <= 2.01 * np.sqrt(1 / (9 * 512)) / 0.8796
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 21
    assert not any(layer.use_bias for layer in convolutions)


def test_all_normalizations_are_synchronized():
    norms = [
        layer
        for layer in resnet(18, 0.125, image_size=32).layers
        if "normalization" in type(layer).__name__.lower()
    ]
    assert len(norms) == 21
    assert all(isinstance(layer, SyncBatchNormalization) for layer in norms)
    assert {(layer.momentum, layer.epsilon) for layer in norms} == {(0.9, 1e-5)}


def test_names_do_not_depend_on_what_was_built_before():
    first, second = (resnet(18, 0.125, image_size=32) for _ in range(2))
    paths = [v.path for v in first.variables]
    assert paths == [v.path for v in second.variables]
    assert len(set(paths)) == len(paths)
    assert first.name == second.name == "encoder"
    assert {
        "stem_conv/kernel",
        "stem_bn/moving_mean",
        "block_group1_block1_conv1/kernel",
        "block_group2_block1_shortcut_conv/kernel",
        "block_group4_block2_bn2/gamma",
    } <= set(paths)


def test_bfloat16_policy(policy):
    expected = resnet(18, 0.125, image_size=32)
    policy("mixed_bfloat16")
    model = resnet(18, 0.125, image_size=32)
    model.set_weights(expected.get_weights())
    images = np.random.default_rng(0).uniform(size=(8, 32, 32, 3)).astype(np.float32)
    outputs = model(images, training=True)
    assert {name: out.dtype.name for name, out in outputs.items()} == {
        **dict.fromkeys(OUTPUTS, "bfloat16"),
        "final_avg_pool": "float32",
    }
    assert all(v.dtype == "float32" for v in model.variables)
    h, expected_h = outputs["final_avg_pool"], expected(images, training=True)["final_avg_pool"]
    np.testing.assert_allclose(h, expected_h, atol=0.03 * np.abs(expected_h).max())


def test_frozen_encoder_ignores_training():
    model = resnet(18, 0.125, image_size=32)
    before = [v.numpy() for v in model.variables]
    model.trainable = False
    images = np.random.default_rng(0).uniform(size=(4, 32, 32, 3)).astype(np.float32)
    outputs = model(images, training=True), model(images, training=False)
    np.testing.assert_array_equal(*[out["final_avg_pool"] for out in outputs])
    assert all(np.array_equal(v, b) for v, b in zip(model.variables, before, strict=True))
    assert not model.trainable_variables


@pytest.mark.slow
def test_compiles_with_xla():
    model = resnet(18, 0.125, image_size=16)
    images = tf.random.stateless_uniform([4, 16, 16, 3], [0, 0])

    def gradients():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(images, training=True)["final_avg_pool"]))
        return tape.gradient(loss, [v.value for v in model.trainable_variables])

    compiled = tf.function(gradients, jit_compile=True)()
    for actual, expected in zip(compiled, gradients(), strict=True):
        scale = max(np.abs(expected).max(), 1e-3)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-3 * scale)


@pytest.mark.parametrize(("size", "kernel"), [(32, 3), (64, 3), (65, 7), (224, 7)])
def test_auto_stem_says_what_it_chose(size, kernel, monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "info", lambda message, *args: lines.append(message % args))
    model = resnet(18, 0.125, image_size=size)
    assert model.get_layer("stem_conv").kernel.shape[0] == kernel
    stem = "cifar" if kernel == 3 else "imagenet"
    assert lines == [f"resnet: stem 'auto' is '{stem}' for images of {size} px."]


def test_width_is_rounded_to_eights():
    outputs = resnet(18, 0.3, image_size=32).output
    channels = [outputs[name].shape[-1] for name in OUTPUTS]
    assert channels == [16, 16, 40, 80, 152, 152]


def test_gin():
    gin.parse_config("resnet.depth = 34\nresnet.width_multiplier = 0.125")
    assert resnet(image_size=32).get_layer("block_group1_block3_conv1")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"depth": 19}, "Received: depth=19. Valid: 18, 34, 50, 101, 152, 200"),
        ({"width_multiplier": 0}, "must be positive. Received: width_multiplier=0"),
        ({"stem": "vit"}, "Received: stem='vit'. Valid: auto, cifar, imagenet"),
    ],
)
def test_rejects(kwargs, message):
    with pytest.raises(ValueError, match=message):
        resnet(**kwargs, image_size=32)
