"""If this breaks, a pod does not compute what one device would.

The real training step, lowered for 8 replicas, is executed on 8 virtual devices of XLA:CPU and
compared with TensorFlow's own execution of the same step on one device.
"""

import functools
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.lowering import LoweringStrategy, lower

pytest.importorskip("jax", reason="needs the extra [preflight]")

REPLICAS, PER_REPLICA, SIZE, STEPS = 8, 4, 16, 3
SPEC = {
    "images": tf.TensorSpec([2 * PER_REPLICA, SIZE, SIZE, 3]),
    "labels": tf.TensorSpec([PER_REPLICA], tf.int32),
    "index": tf.TensorSpec([PER_REPLICA], tf.int32),
}


@pytest.fixture
def build_tiny(build_tiny):
    """With a ResNet-18: in two blocks, rounding grows faster."""
    return functools.partial(build_tiny, depth=18)


def build(build_tiny, strategy, precision):
    with strategy.scope():
        tiny = build_tiny(rate=0.05, precision=precision)
    return tiny.step(), [*tiny.networks.variables, *tiny.optimizer.variables]


def global_batch(step: int) -> dict[str, np.ndarray]:
    """Views [2, G, H, W, 3], labels [G] and numbers [G]."""
    rng = np.random.default_rng(step)
    count = REPLICAS * PER_REPLICA
    return {
        "images": rng.random((2, count, SIZE, SIZE, 3), np.float32),
        "labels": rng.integers(0, 3, count).astype(np.int32),
        "index": np.arange(count, dtype=np.int32) % (count - 1),  # the first and the last are one
    }


def on_one_device(build_tiny, precision: str):
    """Numbers of each step [steps, numbers], and all variables before the first and after each."""
    step, variables = build(build_tiny, tf.distribute.get_strategy(), precision)
    run = tf.function(step)
    numbers, values = [], [{v.path: v.numpy() for v in variables}]
    for s in range(STEPS):
        batch = global_batch(s)
        images = batch["images"].reshape(-1, SIZE, SIZE, 3)
        numbers.append(run({**batch, "images": images}).numpy())
        values.append({v.path: v.numpy() for v in variables})
    return np.stack(numbers), values


def on_replicas(build_tiny, precision: str, order, folder: pathlib.Path):
    """The same from every replica: [R, steps, numbers], and {path: [R, ...]}.

    Replica r takes part `order[r]` of the global batch.
    """
    strategy = LoweringStrategy(REPLICAS)
    step, variables = build(build_tiny, strategy, precision)
    program = lower(strategy, step, SPEC)
    (folder / "step.mlir").write_text(program.stablehlo)
    number = {id(v): i for i, v in enumerate(program.variables)}
    inputs = {
        "num_replicas": REPLICAS,
        "steps": STEPS,
        "updated": [number[id(v)] for v in program.updated],
        **{f"variable_{i}": v.numpy() for i, v in enumerate(program.variables)},
    }
    for s in range(STEPS):
        batch = global_batch(s)
        for replica, part in enumerate(order):
            rows = slice(part * PER_REPLICA, (part + 1) * PER_REPLICA)
            images = batch["images"][:, rows].reshape(-1, SIZE, SIZE, 3)
            inputs[f"batch_{s}_0_{replica}"] = images
            inputs[f"batch_{s}_1_{replica}"] = batch["index"][rows]
            inputs[f"batch_{s}_2_{replica}"] = batch["labels"][rows]
    np.savez(folder / "inputs.npz", **inputs)
    script = pathlib.Path(__file__).with_name("virtual_replicas.py")
    files = [folder / name for name in ("step.mlir", "inputs.npz", "outputs.npz")]
    subprocess.run([sys.executable, script, *files], check=True)
    outputs = np.load(files[-1])
    numbers = np.stack(
        [[outputs[f"result_{s}_{r}"] for s in range(STEPS)] for r in range(REPLICAS)]
    )
    number_of = {v.path: number[id(v.value)] for v in variables if id(v.value) in number}
    values = [
        {
            path: np.stack([outputs[f"variable_{s}_{i}_{r}"] for r in range(REPLICAS)])
            for path, i in number_of.items()
        }
        for s in range(STEPS)
    ]
    return numbers, values


def check_losses(numbers, expected, tolerance):
    """Every replica says the same, and the loss and the metrics, on a scale of 1, are right."""
    assert (numbers == numbers[0]).all()
    np.testing.assert_allclose(numbers[0], expected, rtol=tolerance, atol=tolerance)


def check_copies(values):
    assert len(values) > 100
    for path, copies in values.items():
        assert all(np.array_equal(copies[0], copy) for copy in copies), f"{path} has come apart"


@pytest.mark.slow
@pytest.mark.parametrize("order", [range(REPLICAS), [5, 2, 7, 0, 3, 6, 1, 4]])
def test_eight_replicas_are_one_device(build_tiny, order, tmp_path):
    """In float32. Rounding grows from step to step, in the weights sooner than in the loss."""
    expected_numbers, (_, *expected) = on_one_device(build_tiny, "float32")
    numbers, values = on_replicas(build_tiny, "float32", order, tmp_path)
    check_losses(numbers, expected_numbers, 1e-5)
    for after, tolerance in ((0, 1e-5), (STEPS - 1, 1e-3)):
        check_copies(values[after])
        for path, copies in values[after].items():
            value = expected[after][path]
            error = np.linalg.norm(copies[0] - value)
            scale = max(np.linalg.norm(value), 0.1 * np.sqrt(value.size))
            assert error < tolerance * scale, f"{path}: {error / scale:.1e} after {after + 1} steps"


@pytest.mark.slow
def test_eight_replicas_are_one_device_in_bfloat16(build_tiny, tmp_path):
    """Where both round differently: losses, and what the first step changes as a whole."""
    expected_numbers, (start, first, *_) = on_one_device(build_tiny, "mixed_bfloat16")
    numbers, values = on_replicas(build_tiny, "mixed_bfloat16", range(REPLICAS), tmp_path)
    check_losses(numbers, expected_numbers, 2 / 64)  # rounding moves the rank of two anchors
    check_copies(values[-1])
    paths = [path for path in values[0] if start[path].dtype == np.float32]
    change = np.concatenate([np.ravel(values[0][p][0] - start[p]) for p in paths])
    expected = np.concatenate([np.ravel(first[p] - start[p]) for p in paths])
    assert np.linalg.norm(change - expected) < 0.1 * np.linalg.norm(expected)
