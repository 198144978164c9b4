"""If this breaks, the TPU compiler takes other programs than ours, or writes other text than read.

Each test compiles a program of a few lines with the real compiler.
"""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute import collectives
from simclr_tf.distribute.lowering import LoweringStrategy, lower
from simclr_tf.preflight.analysis import Analysis
from simclr_tf.preflight.chips import parse_topology
from simclr_tf.preflight.tpu_compiler import TpuCompiler

pytest.importorskip("libtpu", reason="needs the extra [preflight]")


def compiled(replica_fn, topology: str, *specs: tf.TensorSpec) -> Analysis:
    parsed = parse_topology(topology)
    program = lower(LoweringStrategy(parsed.num_devices), replica_fn, *specs)
    return TpuCompiler(sys.executable)(program.stablehlo, parsed)[1]


def loop(count, body, x):
    return tf.while_loop(
        lambda i, x: i < count, lambda i, x: (i + 1, body(x)), (tf.constant(0), x)
    )[1]


@pytest.mark.slow
def test_loops_of_a_compiled_program():
    """Five times: thrice a product, and a sum over replicas. Then products until all is large."""

    def replica_fn(x, w):
        x = loop(5, lambda x: collectives.all_reduce_sum(loop(3, lambda x: x @ w, x)), x)
        return tf.while_loop(lambda x: tf.reduce_sum(x) < 1e6, lambda x: [x @ w], [x])

    specs = tf.TensorSpec([64, 256]), tf.TensorSpec([256, 256])
    analysis = compiled(replica_fn, "v5e:2x2", *specs)
    products = [f.times for f in analysis.fusions if "matmul" in f.op.lower()]
    assert products == [5 * 3]  # and one that runs nobody knows how often
    assert [(c.kind, c.count, c.bytes) for c in analysis.collectives] == [
        ("all-reduce", 5, 5 * 64 * 256 * 4)
    ]
    assert analysis.loops == 3
    assert analysis.cycles is None and len(analysis.unknown_loops) == 1


MASK = np.random.default_rng(0).random([23, 27]) < 0.5


def masked(x):
    return tf.where(tf.constant(MASK), x, 0.0)


@pytest.mark.slow
def test_one_device_takes_a_constant_of_booleans():
    assert compiled(masked, "v5e:1x1", tf.TensorSpec(MASK.shape)).loops == 0


def test_constant_of_booleans_keeps_its_values(tmp_path):
    """As jax, which compiles for TPUs too, reads and runs the lowered program."""
    files = [tmp_path / name for name in ("masked.mlir", "inputs.npz", "outputs.npz")]
    program = lower(LoweringStrategy(1), masked, tf.TensorSpec(MASK.shape))
    files[0].write_text(program.stablehlo)
    x = np.random.default_rng(1).random(MASK.shape, np.float32)
    np.savez(files[1], num_replicas=1, steps=1, updated=[], batch_0_0_0=x)
    script = pathlib.Path(__file__).with_name("virtual_replicas.py")
    subprocess.run([sys.executable, script, *files], check=True)
    np.testing.assert_array_equal(np.load(files[2])["result_0_0"], np.where(MASK, x, 0.0))
