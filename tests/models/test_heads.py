"""The projection head and the linear probe."""

import itertools

import keras
import numpy as np
import pytest

from simclr_tf.models.heads import (
    linear_probe,
    mlp_projection_head,
    plain_projection_head,
    predictor,
    projection_head,
)
from simclr_tf.models.networks import count_parameters


@pytest.fixture
def policy():
    """Sets the global dtype policy for one test."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def representations(dim: int = 12) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(16, dim)).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "num_layers", "widths"),
    [
        ("none", 2, [12]),
        ("linear", 2, [12, 5]),
        ("nonlinear", 1, [12, 5]),
        ("nonlinear", 2, [12, 12, 5]),
        ("nonlinear", 3, [12, 12, 12, 5]),
    ],
)
def test_layers(kind, num_layers, widths):
    head = projection_head(kind, num_layers, 5, input_dim=12)
    h = representations()
    outputs = head(h, training=True)
    assert head.name == "projection_head"
    assert list(outputs) == [f"projection_{i}" for i in range(len(widths))]
    assert [out.shape[-1] for out in outputs.values()] == widths
    np.testing.assert_array_equal(outputs["projection_0"], h)
    dense = sum(a * b for a, b in itertools.pairwise(widths))
    norms = 2 * sum(widths[1:-1]) + (widths[-1] if len(widths) > 1 else 0)
    assert count_parameters(head) == dense + norms


def test_a_projection_as_wide_as_the_representation():
    outputs = projection_head(output_dim=None, input_dim=12)(representations())
    assert [out.shape[-1] for out in outputs.values()] == [12, 12, 12]


def test_equals_numpy():
    """Dense, normalization, ReLU, Dense, normalization without offset."""
    head = projection_head(output_dim=5, input_dim=12)
    h = representations()
    z = head(h, training=True)["projection_2"]

    def normalize(x):
        return (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)

    w1, w2 = (head.get_layer(f"projection_{i}_dense").kernel.numpy() for i in (1, 2))
    expected = normalize(np.maximum(normalize(h.astype(np.float64) @ w1), 0) @ w2)
    np.testing.assert_allclose(z, expected, rtol=1e-4, atol=1e-4)


def test_paths_and_initialization():
    head = projection_head(input_dim=512)
    assert [v.path for v in head.trainable_variables] == [
        "projection_1_dense/kernel",
        "projection_1_bn/gamma",
        "projection_1_bn/beta",
        "projection_2_dense/kernel",
        "projection_2_bn/gamma",
    ]
    np.testing.assert_allclose(head.variables[0].numpy().std(), 0.01, rtol=0.02)


def test_projection_is_float32_under_bfloat16(policy):
    policy("mixed_bfloat16")
    h = representations()
    outputs = projection_head(num_layers=3, input_dim=12)(h, training=True)
    np.testing.assert_array_equal(outputs["projection_0"], h)
    assert [out.dtype.name for out in outputs.values()] == [
        "float32",
        "bfloat16",
        "bfloat16",
        "float32",
    ]
    assert linear_probe(3, input_dim=12)(representations()).dtype == "float32"


def test_probe():
    probe = linear_probe(3, input_dim=12)
    h = representations()
    assert probe.name == "probe"
    assert [v.path for v in probe.variables] == ["probe_dense/kernel", "probe_dense/bias"]
    np.testing.assert_array_equal(probe.variables[1], np.zeros(3))
    np.testing.assert_allclose(probe(h), h @ probe.variables[0].numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"kind": "mlp"}, "Received: kind='mlp'. Valid: none, linear, nonlinear"),
        ({"num_layers": 0}, "Received: num_layers=0"),
        ({"output_dim": 0}, "output_dim=0"),
    ],
)
def test_head_rejects(kwargs, message):
    with pytest.raises(ValueError, match=message):
        projection_head(**kwargs, input_dim=12)


def test_probe_rejects_one_class():
    with pytest.raises(ValueError, match="Received: num_classes=1"):
        linear_probe(1, input_dim=12)


@pytest.mark.parametrize(
    ("settings", "widths"), [((1, None), [12, 5]), ((2, None), [12, 12, 5]), ((2, 7), [12, 7, 5])]
)
def test_plain_head_equals_numpy(settings, widths):
    """Dense layers with biases, and ReLU between them: MoCo v1 has one and v2 two."""
    head = plain_projection_head(*settings, 5, input_dim=12)
    x = h = representations()
    layers = [layer for layer in head.layers if isinstance(layer, keras.layers.Dense)]
    for layer in layers:
        limit = 1 / np.sqrt(layer.kernel.shape[0])
        assert 0.8 * limit < np.abs(layer.kernel).max() <= limit
        layer.bias.assign(np.random.default_rng(1).normal(size=layer.bias.shape))
    expected = [h]
    outputs = list(head(h, training=True).values())
    for number, layer in enumerate(layers, 1):
        x = x @ np.asarray(layer.kernel) + np.asarray(layer.bias)
        x = x if number == len(layers) else np.maximum(x, 0)
        expected.append(x)
    assert [out.shape[-1] for out in outputs] == widths
    for found, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    assert len(head.variables) == 2 * len(layers)


@pytest.mark.parametrize("settings", [{"num_layers": 0}, {"hidden_dim": 0}, {"output_dim": 0}])
def test_plain_head_rejects(settings):
    with pytest.raises(ValueError, match=r"num_layers must be from 1 .* Received: num_layers="):
        plain_projection_head(**settings, input_dim=4)


def test_mlp_head_and_predictor_equal_numpy(policy):
    """Hidden layers are Dense, normalization and ReLU; the last one is Dense alone, in float32."""

    def through(model, x):
        kernels = [np.asarray(layer.kernel) for layer in model.layers if "dense" in layer.name]
        for kernel in kernels:
            limit = 1 / np.sqrt(kernel.shape[0])
            assert 0.8 * limit < np.abs(kernel).max() <= limit
        found = [x]
        for kernel in kernels[:-1]:
            x = x @ kernel
            x = np.maximum((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5), 0)
            found.append(x)
        return [*found, x @ kernels[-1]]

    h = representations()
    head, guess = mlp_projection_head(3, 7, 5, input_dim=12), predictor(2, 8, input_dim=5)
    outputs = head(h, training=True)
    assert list(outputs) == [f"projection_{i}" for i in range(4)]
    expected = through(head, h)
    for found, wanted in zip(outputs.values(), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    *_, wanted = through(guess, expected[-1])
    found = guess(outputs["projection_3"], training=True)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    # Dense, and scale and offset of the hidden layers: variables of both have names of their own.
    sizes = [count_parameters(model) for model in (head, guess)]
    assert sizes == [12 * 7 + 7 * 7 + 7 * 5 + 4 * 7, 5 * 8 + 8 * 5 + 2 * 8]
    assert not {v.path for v in head.variables} & {v.path for v in guess.variables}
    policy("mixed_bfloat16")
    outputs = mlp_projection_head(2, 7, 5, input_dim=12)(h)
    assert [out.dtype for out in outputs.values()] == ["float32", "bfloat16", "float32"]


@pytest.mark.parametrize("build", [mlp_projection_head, predictor])
@pytest.mark.parametrize("settings", [{"num_layers": 0}, {"hidden_dim": 0}])
def test_mlp_head_and_predictor_reject(build, settings):
    with pytest.raises(ValueError, match=r"num_layers must be from 1 .* Received: num_layers="):
        build(**settings, input_dim=4)
