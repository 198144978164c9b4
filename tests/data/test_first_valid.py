"""If this breaks, one bad image moves, hides or changes others that were loaded beside it."""

import pytest
import tensorflow as tf

from simclr_tf.data import first_valid


def stops(condition, number):
    with tf.control_dependencies([tf.debugging.Assert(tf.logical_not(condition), ["bad"])]):
        return tf.identity(number)


def block_of(failures, *, read_fails=False, finish_fails=False, seen=lambda numbers: numbers):
    """A block of 4 of which the n-th decodes at attempt `failures[n]`, and then is 10 n + that."""

    def other(n, attempt):
        return (stops(tf.constant(read_fails), 10 * n + attempt),)

    def decode(n, number):
        return (stops(number - 10 * n < tf.constant(failures, tf.int64)[n], number),)

    def finish(number):
        number = stops(tf.constant(finish_fails), number)
        return tf.cast([number, number], tf.float32), number

    def blank(n):
        return tf.zeros([2]), tf.constant(-1, tf.int64)

    return tf.data.Dataset.range(2).map(
        lambda _: first_valid.first_that_decode(
            (tf.range(0, 40, 10, tf.int64),),
            other,
            decode,
            blank,
            attempts=3,
            failed=lambda numbers: tf.numpy_function(seen, [numbers], tf.int64),
            finish=finish,
        ),
        2,
    )


@pytest.mark.parametrize(
    "failures",
    [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 2], [0, 1, 2, 0], [3, 0, 3, 1], [3, 3, 3, 3]],
    ids=["none", "first", "last", "two", "for good", "all"],
)
def test_each_example_has_its_first_attempt_that_decodes(failures):
    told = []
    blocks = block_of(failures, seen=lambda numbers: told.append(list(numbers)) or numbers)
    assert [spec.shape.as_list() for spec in blocks.element_spec] == [[4, 2], [4]]
    expected = [10 * n + k if k < 3 else -1 for n, k in enumerate(failures)]
    for pairs, numbers in blocks.as_numpy_iterator():
        assert list(numbers) == expected
        assert pairs.tolist() == [[max(i, 0)] * 2 for i in expected]
    assert told == ([expected] * 2 if any(failures) else [])


@pytest.mark.parametrize("fault", ["read_fails", "finish_fails"])
@pytest.mark.parametrize("failures", [[0, 1, 0, 0], [1, 1, 1, 1]], ids=["one", "all"])
def test_only_what_does_not_decode_is_passed_over(failures, fault):
    with pytest.raises(tf.errors.InvalidArgumentError, match="bad"):
        list(block_of(failures, **{fault: True}))


@pytest.mark.parametrize(("batch", "block"), [(1, 1), (7, 7), (12, 6), (22, 2), (64, 8), (257, 1)])
def test_blocks_divide_the_batch(batch, block):
    assert first_valid.block_size(batch) == block
