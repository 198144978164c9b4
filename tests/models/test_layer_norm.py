"""If this breaks, patches share statistics, or a ResNet with layer normalization is another one."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.batch_norm import SyncBatchNormalization
from simclr_tf.errors import RequestError
from simclr_tf.export.architecture import infer
from simclr_tf.export.encoder_json import build_encoder
from simclr_tf.models.layer_norm import LayerNorm
from simclr_tf.models.networks import variable_roles
from simclr_tf.models.resnet import resnet
from tests.models.test_packing import convolution
from tests.support.small_resnet import SMALL_DEPTH


def build(**kwargs) -> keras.Model:
    keras.utils.set_random_seed(0)
    kwargs = {"depth": SMALL_DEPTH, "image_size": 32, **kwargs}
    return resnet(width_multiplier=0.125, normalization="layer_norm", **kwargs)


def moved(model: keras.Model) -> keras.Model:
    """The model with factors and offsets that are not those of the start."""
    rng = np.random.default_rng(0)
    for v in model.trainable_variables:
        if v.name in ("gamma", "beta"):
            v.assign(rng.uniform(0.5, 1.5, v.shape))
    return model


def images(count: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(1).random((count, size, size, 3), np.float32)


def oracle(model: keras.Model, x: np.ndarray) -> np.ndarray:
    """A ResNet of one basic block in the first group and one in the last, image by image."""
    values = {v.path: v.numpy().astype(np.float64) for v in model.variables}

    def norm(x, name):
        centred = [image - image.mean() for image in x]
        x = np.stack([c / np.sqrt((c**2).mean() + 1e-5) for c in centred])
        return x * values[f"{name}/gamma"] + values[f"{name}/beta"]

    def conv(x, name, stride=1):
        return convolution(x, values[f"{name}/kernel"], stride)

    x = np.maximum(norm(conv(x, "stem_conv"), "stem_ln"), 0)
    for group, stride in ((1, 1), (4, 2)):
        name = f"block_group{group}_block1"
        shortcut = norm(conv(x, f"{name}_shortcut_conv", stride), f"{name}_shortcut_ln")
        x = np.maximum(norm(conv(x, f"{name}_conv1", stride), f"{name}_ln1"), 0)
        x = np.maximum(norm(conv(x, f"{name}_conv2"), f"{name}_ln2") + shortcut, 0)
    return x.mean((1, 2))


def test_the_network_is_its_formula():
    model, x = moved(build()), images(3)
    expected = oracle(model, x.astype(np.float64))
    for training in (False, True):
        found = model(x, training=training)["final_avg_pool"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_no_image_depends_on_another_one():
    model, x = moved(build()), images(4)
    together = model(x, training=True)["final_avg_pool"]
    alone = model(x[:1], training=True)["final_avg_pool"]
    np.testing.assert_allclose(together[:1], alone, rtol=1e-5, atol=1e-6)
    assert len(model.trainable_variables) == len(model.variables)
    assert not any(isinstance(layer, SyncBatchNormalization) for layer in model.layers)


@pytest.mark.parametrize(("depth", "size"), [(18, 32), (SMALL_DEPTH, 96)])
def test_packed_maps_and_bfloat16(depth, size):
    """Under XLA maps of 8 channels are packed, in another order after ImageNet's stem."""
    model, x = moved(build(depth=depth, image_size=size)), images(2, size)
    outputs = tf.function(lambda x: model(x, training=True), jit_compile=True)(x)
    for name, expected in model(x).items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(outputs[name], expected, atol=1e-5 * scale, err_msg=name)
    half = LayerNorm(dtype="mixed_bfloat16")
    assert half(x).dtype == "bfloat16" and half.gamma.dtype == "float32"


def test_computing_activations_again_changes_no_gradient():
    def gradients(remat):
        model = moved(build(remat=remat))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.sin(7 * model(images(2), training=True)["final_avg_pool"]))
        variables = model.trainable_variables
        found = tape.gradient(loss, [v.value for v in variables])
        return {v.path: g for v, g in zip(variables, found, strict=True)}

    kept, again = gradients(()), gradients((1, 4))
    assert kept.keys() == again.keys()
    for path, gradient in kept.items():
        scale = np.abs(gradient).max()
        np.testing.assert_allclose(again[path], gradient, atol=1e-4 * scale, err_msg=path)


def test_names_roles_and_start():
    """As with batch normalization, but for the end of the names."""
    model = build()
    plain = resnet(depth=SMALL_DEPTH, width_multiplier=0.125, image_size=32)
    renamed = [v.path.replace("_bn", "_ln") for v in plain.trainable_variables]
    assert [v.path for v in model.variables] == renamed
    roles = variable_roles(model)
    assert {roles[v.path] for v in model.variables if v.name in ("gamma", "beta")} == {"batch_norm"}
    zero = {v.path for v in model.variables if v.name == "gamma" and not v.numpy().any()}
    assert zero == {f"block_group{group}_block1_ln2/gamma" for group in (1, 4)}


def test_it_is_rebuilt_from_its_description():
    model, x = moved(build()), images(2)
    again = build_encoder(model.to_json())
    again.set_weights(model.get_weights())
    np.testing.assert_array_equal(again(x), model(x)["final_avg_pool"])


def test_other_programs_have_none():
    shapes = {"encoder": {v.path: tuple(v.shape) for v in build().variables}}
    with pytest.raises(RequestError, match=r"must have batch normalization.*layer_norm"):
        infer(shapes)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"normalization": "group_norm"}, r"one of batch_norm, layer_norm.*'group_norm'"),
        ({"normalization": "layer_norm", "sk_ratio": 0.1, "depth": 50}, "Selective kernels need"),
    ],
)
def test_what_there_is_not_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        resnet(**arguments, image_size=32)
