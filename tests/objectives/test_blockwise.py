"""If this breaks, large batches train on another loss than small ones, or do not fit."""

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as some

from simclr_tf.distribute.lowering import LoweringStrategy, lower
from simclr_tf.objectives.nt_xent import NTXent


def plain(z: tf.Tensor, temperature: float) -> tuple[tf.Tensor, tf.Tensor]:
    """The textbook loss in float64, all similarities at once, and its gradient by autodiff."""
    count = z.shape[0]
    with tf.GradientTape() as tape:
        tape.watch(z)
        unit = z / tf.norm(z, axis=1, keepdims=True)
        logits = tf.matmul(unit, unit, transpose_b=True) / temperature
        logits = tf.linalg.set_diag(logits, tf.fill([count], tf.constant(-np.inf, z.dtype)))
        positives = tf.gather(logits, tf.roll(tf.range(count), count // 2, 0), batch_dims=1)
        loss = tf.reduce_mean(tf.reduce_logsumexp(logits, axis=1) - positives)
    return loss, tape.gradient(loss, z)


def loss_and_gradient(z: tf.Tensor, temperature: float = 0.1, block_size: int | None = None):
    with tf.GradientTape() as tape:
        tape.watch(z)
        loss, metrics = NTXent(temperature, block_size=block_size)(z)
    return loss, tape.gradient(loss, z), metrics


def bounds_of_top(z: np.ndarray, k: int) -> tuple[float, float]:
    """How often the positive is among the k most similar, ties against it and for it.

    In float64. They are equal where nothing is as similar as the positive but for float32's
    rounding, which breaks ties as it comes.
    """
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    anchors = np.arange(len(z))
    positives = (anchors + len(z) // 2) % len(z)
    similarities = unit @ unit.T
    ahead = similarities - similarities[anchors, positives][:, None]
    ahead[anchors, anchors] = ahead[anchors, positives] = -np.inf
    return tuple(((ahead > limit).sum(1) < k).mean() for limit in (-1e-6, 1e-6))


@hypothesis.given(
    global_batch=some.integers(2, 20),
    block_size=some.integers(1, 45),
    temperature=some.sampled_from([0.05, 0.1, 1.0]),
    seed=some.integers(0, 2**16),
)
@hypothesis.settings(max_examples=30, deadline=None)
def test_any_block_size_gives_the_plain_numbers(global_batch, block_size, temperature, seed):
    """Some embeddings are the same, so that some ranks are ties, which either form may break."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(2 * global_batch, 6)) * rng.uniform(0.1, 10, (2 * global_batch, 1))
    z[rng.integers(0, 2 * global_batch, 2)] = z[0]
    loss, gradient, metrics = loss_and_gradient(tf.constant(z, tf.float32), temperature, block_size)
    expected_loss, expected_gradient = plain(tf.constant(z), temperature)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5, atol=1e-6)
    # Where the positive's probability is all but 1, float32 knows what is missing to 6e-8 only.
    atol = 1e-5 * np.abs(expected_gradient).max() + 1e-7
    np.testing.assert_allclose(gradient, expected_gradient, rtol=0, atol=atol)
    _, at_once = NTXent(temperature)(tf.constant(z, tf.float32))
    for name, value in metrics.items():
        if name in ("contrastive_top1", "contrastive_top5"):
            lowest, highest = bounds_of_top(z, k=int(name[-1]))
            assert lowest - 1e-6 <= value <= highest + 1e-6, name
        else:
            np.testing.assert_allclose(value, at_once[name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("images", [1024, 16384])
def test_no_tensor_is_larger_than_a_block_of_16_mib(images):
    """In the program as traced, with the loop's own."""
    spec = tf.TensorSpec([2 * images, 128])
    graph = tf.function(loss_and_gradient).get_concrete_function(spec).graph
    loops = [op for op in graph.get_operations() if "While" in op.type]
    assert bool(loops) == (images == 16384)  # only where one is needed
    body = [graph._functions[op.get_attr("body").name].graph for op in loops]
    sizes = [
        output.shape.num_elements() * output.dtype.size
        for function in (graph, *body)
        for op in function.get_operations()
        for output in op.outputs
    ]
    assert max(sizes) <= 2**24


def test_blocks_are_for_tpus():
    program = lower(
        LoweringStrategy(8), lambda z: loss_and_gradient(z, block_size=3), tf.TensorSpec([8, 16])
    )
    assert "stablehlo.while" in program.stablehlo
    for unwanted in ("f64", "?x", "dynamic_reshape", "custom_call"):
        assert unwanted not in program.stablehlo, unwanted
