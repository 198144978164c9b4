"""If this breaks, the loss is compared with a baseline that computes something else."""

import numpy as np
import tensorflow as tf

from simclr_tf.benchmark.loss import measure, plain_nt_xent
from simclr_tf.objectives.nt_xent import NTXent


def test_baseline_is_nt_xent():
    z = tf.random.stateless_normal([12, 5], seed=(3, 4))
    np.testing.assert_allclose(plain_nt_xent(z), NTXent()(z)[0], rtol=1e-5)


def test_both_forms_take_turns():
    assert [t.name for t in measure(8, 4, rounds=1)] == ["four plain products", "nt_xent"]
