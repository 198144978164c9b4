"""If this breaks, saving memory changes what is trained."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.models.remat import Remat, without_remat
from simclr_tf.models.resnet import resnet
from tests.support.threads import entered_elsewhere


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


def test_an_export_in_another_thread_leaves_a_training_step_as_it_is():
    inputs = keras.Input([3])
    model = Remat(keras.Model(inputs, keras.layers.Dense(3)(inputs)))
    model(tf.zeros([2, 3]))

    def products() -> int:
        """Matrix products in a training step as it is traced here: forward, again, two back."""

        @tf.function(autograph=False)
        def step(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = model(x, training=True)
            return tape.gradient(y, [x, *(v.value for v in model.trainable_variables)])

        graph = step.get_concrete_function(tf.TensorSpec([2, 3])).graph
        return sum(op.type == "MatMul" for op in graph.get_operations())

    with entered_elsewhere(without_remat()):
        assert products() == 4
    with without_remat():
        assert products() == 3
