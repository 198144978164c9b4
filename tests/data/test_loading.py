"""If this breaks, one bad image moves, hides or changes others that were loaded beside it."""

import pytest
import tensorflow as tf

from simclr_tf.data import loading


@pytest.mark.parametrize(
    "failures",
    [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 2], [0, 1, 3, 0], [3, 3, 3, 3]],
    ids=["none", "first", "last", "two", "all"],
)
def test_each_example_has_its_first_attempt_that_loads(failures):
    def load(n, attempt):
        bad = attempt < tf.constant(failures, tf.int64)[n]
        with tf.control_dependencies([tf.debugging.Assert(tf.logical_not(bad), ["bad"])]):
            number = tf.identity(10 * n + attempt)
        return tf.cast([number, number], tf.float32), number

    def nothing(n):
        return tf.zeros([2]), tf.constant(-1, tf.int64)

    blocks = tf.data.Dataset.range(3).map(
        lambda _: loading.first_that_load(load, nothing, size=4, attempts=3), 2
    )
    assert [spec.shape.as_list() for spec in blocks.element_spec] == [[4, 2], [4]]
    expected = [10 * n + k if k < 3 else -1 for n, k in enumerate(failures)]
    for pairs, numbers in blocks.as_numpy_iterator():
        assert list(numbers) == expected
        assert pairs.tolist() == [[max(i, 0)] * 2 for i in expected]


@pytest.mark.parametrize(("batch", "block"), [(1, 1), (7, 7), (12, 6), (22, 2), (64, 8), (257, 1)])
def test_blocks_divide_the_batch(batch, block):
    assert loading.block_size(batch) == block
