"""If this breaks, saving memory changes what is trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.models.resnet import resnet


def step(remat, jit_compile):
    """Outputs, gradients by path and the weights after one training-mode pass."""
    keras.utils.set_random_seed(0)
    model = resnet(depth=18, width_multiplier=0.125, image_size=32, remat=remat)
    images = tf.random.stateless_uniform([4, 32, 32, 3], [1, 2])

    @tf.function(jit_compile=jit_compile)
    def run(images):
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            loss = tf.reduce_sum(tf.sin(7 * outputs["final_avg_pool"]))
        return outputs, tape.gradient(loss, [v.value for v in model.trainable_variables])

    outputs, gradients = run(images)
    by_path = {v.path: g for v, g in zip(model.trainable_variables, gradients, strict=True)}
    return outputs, by_path, {v.path: v.numpy() for v in model.variables}


@pytest.mark.parametrize("jit_compile", [False, True])
def test_rematerialization_changes_no_number(jit_compile):
    """Also the moving statistics, which a second pass must not move again."""
    for there, here in zip(step((), jit_compile), step((1, 3), jit_compile), strict=True):
        assert there.keys() == here.keys()
        for name, value in there.items():
            scale = np.abs(value).max() + 1e-6
            np.testing.assert_allclose(here[name], value, atol=1e-4 * scale, err_msg=name)


def test_inference():
    keras.utils.set_random_seed(0)
    plain = resnet(depth=18, width_multiplier=0.125, image_size=32)
    saving = resnet(depth=18, width_multiplier=0.125, image_size=32, remat=(2, 4))
    saving.set_weights(plain.get_weights())
    images = tf.random.stateless_uniform([2, 32, 32, 3], [1, 2])
    np.testing.assert_allclose(
        saving(images)["final_avg_pool"], plain(images)["final_avg_pool"], rtol=1e-5, atol=1e-6
    )


def test_unknown_group():
    with pytest.raises(ValueError, match=r"of 1 to 4.*remat=\(0,\)"):
        resnet(remat=(0,), image_size=32)
