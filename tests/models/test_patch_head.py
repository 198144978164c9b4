"""PIRL's head for patches."""

import keras
import numpy as np
import pytest

from simclr_tf.models.patch_head import patch_projection_head


@pytest.mark.parametrize("settings", [(1, None), (2, None), (3, 7)])
def test_equals_numpy(settings):
    """Dense layers with biases that all patches share, ReLU between, and one layer of all."""
    layers, hidden = settings
    head = patch_projection_head(layers, hidden, 4, 5, input_dim=12, patches=9)
    rng = np.random.default_rng(0)
    x = inputs = rng.normal(size=(6, 9, 12)).astype(np.float32)
    *own, joint = (layer for layer in head.layers if isinstance(layer, keras.layers.Dense))
    assert len(own) == layers and len(head.variables) == 2 * (layers + 1)
    for layer in (*own, joint):
        limit = 1 / np.sqrt(layer.kernel.shape[0])
        assert 0.7 * limit < np.abs(layer.kernel).max() <= limit
        layer.bias.assign(rng.normal(size=layer.bias.shape))
    for number, layer in enumerate(own, 1):
        x = x @ np.asarray(layer.kernel) + np.asarray(layer.bias)
        x = x if number == layers else np.maximum(x, 0)
    expected = x.reshape(6, 36) @ np.asarray(joint.kernel) + np.asarray(joint.bias)
    np.testing.assert_allclose(head(inputs), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", ["num_layers", "hidden_dim", "patch_dim", "output_dim"])
def test_sizes_are_positive(size):
    with pytest.raises(ValueError, match=r"num_layers must be from 1 .* Received: num_layers="):
        patch_projection_head(**{size: 0}, input_dim=4, patches=9)
