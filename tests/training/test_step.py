"""If this breaks, training on several replicas is not training on their global batch."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.training.loop import make_loop

GLOBAL_BATCH, SIZE, STEPS = 8, 16, 2


def train(strategy, build_tiny, steps=STEPS):
    """Numbers of each step and the weights after the first, from the same start and batches.

    Later weights are not compared: at this rate rounding grows a thousandfold in two steps.
    """
    rng = np.random.default_rng(1)
    views = rng.random((steps, 2, GLOBAL_BATCH, SIZE, SIZE, 3), np.float32)
    labels = rng.integers(0, 3, (steps, GLOBAL_BATCH)).astype(np.int32)
    # One image twice, on two replicas.
    index = np.arange(GLOBAL_BATCH, dtype=np.int32) % (GLOBAL_BATCH - 1)
    with strategy.scope():
        # Large enough a rate that an error in one step would show in the next.
        tiny = build_tiny(rate=1.0, watched=True)
    run_steps = make_loop(strategy, tiny.step(), tiny.names)

    def batches(context):
        replicas = context.num_replicas_in_sync
        size = GLOBAL_BATCH // replicas

        def generate():
            for s in range(steps):
                for r in range(replicas):
                    part = slice(r * size, (r + 1) * size)
                    yield {
                        "images": np.concatenate([views[s, 0, part], views[s, 1, part]]),
                        "labels": labels[s, part],
                        "index": index[part],
                        "plain_images": views[s, 0, part],
                        "plain_labels": labels[s, part],
                    }

        return tf.data.Dataset.from_generator(
            generate,
            output_signature={
                "images": tf.TensorSpec([2 * size, SIZE, SIZE, 3]),
                "labels": tf.TensorSpec([size], tf.int32),
                "index": tf.TensorSpec([size], tf.int32),
                "plain_images": tf.TensorSpec([size, SIZE, SIZE, 3]),
                "plain_labels": tf.TensorSpec([size], tf.int32),
            },
        )

    iterator = iter(strategy.distribute_datasets_from_function(batches))
    metrics = [run_steps(iterator, 1).metrics]
    learnt = (*tiny.networks.variables, *tiny.probe.networks.variables)
    weights = {v.path: v.numpy() for v in learnt}
    return metrics + [run_steps(iterator, 1).metrics for _ in range(steps - 1)], weights


@pytest.fixture(scope="module")
def single(build_tiny):
    return train(tf.distribute.get_strategy(), build_tiny)


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_replicas_train_as_one_device_does(single, build_tiny, replicas):
    strategy = simulated_replicas(replicas)
    metrics, weights = train(strategy, build_tiny)
    for there, here in zip(single[0], metrics, strict=True):
        for name in there:  # shares and cosines are near zero on a scale of 1
            atol = 0 if "loss" in name else 1e-5
            # After so large a step the probe extrapolates, and its loss of 15 magnifies rounding.
            rtol = 1e-4 if name in ("loss", "probe_loss") else 1e-5
            np.testing.assert_allclose(here[name], there[name], rtol=rtol, atol=atol, err_msg=name)
    for path, value in single[1].items():
        error = np.linalg.norm(weights[path] - value) / (np.linalg.norm(value) + 1e-6)
        assert error < 3e-5, f"{path}: relative error {error:.1e}"
