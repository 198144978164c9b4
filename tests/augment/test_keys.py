"""If this code were wrong, two examples, views, epochs or ops would share their random numbers,
a resumed run would see other augmentations, or draws would leave their range."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr_tf.augment import keys as keys_lib

ONES = 0xFFFFFFFF


# Random123's kat_vectors, lines "threefry2x32 20".
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((ONES, ONES), (ONES, ONES), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_published_answers(counter, key, expected):
    words = keys_lib.threefry2x32(key, counter)
    assert all(word.dtype == tf.uint32 for word in words)
    assert tuple(int(word) for word in words) == expected


def test_threefry_broadcasts_elementwise():
    keys, counters = np.array([[1], [2]]), np.array([3, 4, 5])
    words = tf.stack(keys_lib.threefry2x32((keys, 9), (counters, 8))).numpy()
    assert words.shape == (2, 2, 3)
    one = keys_lib.threefry2x32((2, 9), (4, 8))
    np.testing.assert_array_equal(words[:, 1, 1], [int(word) for word in one])


def test_keys_of_all_examples_and_views_differ():
    index = np.arange(5000, dtype=np.int64)
    keys = [keys_lib.example_keys(0, 0, index, view).numpy() for view in (0, 1)]
    assert keys[0].dtype == np.uint32
    assert len(np.unique(np.concatenate(keys), axis=0)) == 10000


@pytest.mark.parametrize("other", [(1, 0, 5, 0), (0, 1, 5, 0), (0, 0, 6, 0), (0, 0, 5, 1)])
def test_every_part_of_the_identity_changes_the_key(other):
    def key(seed, epoch, index, view):
        return keys_lib.example_keys(seed, epoch, tf.constant([index], tf.int64), view).numpy()

    assert (key(0, 0, 5, 0) != key(*other)).any()


def test_index_counts_beyond_31_bits():
    index = tf.constant([1, 2**31 + 1, 2**32 - 1], tf.int64)
    keys = keys_lib.example_keys(0, 0, index, 0).numpy()
    assert len(np.unique(keys, axis=0)) == 3
    expected = keys_lib.threefry2x32((0, 0), (2**32 - 1, 0))
    np.testing.assert_array_equal(keys[2], [int(word) for word in expected])


def test_uniform_and_normal_have_their_distributions(many_keys):
    unit = keys_lib.uniform(many_keys, 0, 5).numpy()
    assert unit.min() >= 0.0 and unit.max() < 1.0
    assert scipy.stats.kstest(unit.ravel(), "uniform").pvalue > 1e-3
    normal = keys_lib.normal(many_keys, 0, 5).numpy()
    assert scipy.stats.kstest(normal.ravel(), "norm").pvalue > 1e-3


def test_draws_of_ops_views_and_places_are_uncorrelated(many_keys):
    columns = [
        keys_lib.uniform(many_keys, 0, 4),
        keys_lib.uniform(many_keys, 1, 4),
        keys_lib.normal(many_keys, 0, 4),
        keys_lib.uniform(keys_lib.example_keys(11, 0, np.arange(4096), 0), 0, 4),
        keys_lib.uniform(keys_lib.example_keys(11, 1, np.arange(4096), 1), 0, 4),
    ]
    columns = np.concatenate([column.numpy() for column in columns], axis=1)
    correlations = np.corrcoef(columns, rowvar=False) - np.eye(columns.shape[1])
    assert np.abs(correlations).max() < 5 / np.sqrt(len(columns))


def test_first_draws_do_not_depend_on_how_many_follow(keys):
    np.testing.assert_array_equal(
        keys_lib.uniform(keys, 2, 3).numpy(), keys_lib.uniform(keys, 2, 8).numpy()[:, :3]
    )


@settings(deadline=None, max_examples=50)
@given(
    low=st.floats(-1e3, 1e3, width=32, allow_subnormal=False),
    width=st.floats(2**-6, 1e3, width=32),
    word=st.sampled_from([0, 255, 256, 2**31, ONES - 256, ONES]),
)
def test_uniform_stays_below_its_upper_end(low, width, word):
    high = float(np.float32(low + width))
    words = tf.fill([1, 1], tf.constant(word, tf.uint32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys_lib, "_draw", lambda *_: (words, words))
        drawn = keys_lib.uniform(tf.zeros([1, 2], tf.uint32), 0, 1, low, high).numpy()
    assert np.float32(low) <= drawn[0, 0] < np.float32(high)


@settings(deadline=None, max_examples=50)
@given(limit=st.integers(0, 2**20), draw=st.floats(0, 1, exclude_max=True, width=32))
def test_integers_stay_below_their_limit(limit, draw):
    drawn = int(keys_lib.integers(tf.constant(draw, tf.float32), limit))
    assert 0 <= drawn < max(limit, 1)


def test_integers_are_equally_likely(many_keys):
    drawn = keys_lib.integers(keys_lib.uniform(many_keys, 0, 4), 6).numpy()
    assert scipy.stats.chisquare(np.bincount(drawn.ravel(), minlength=6)).pvalue > 1e-3


@pytest.mark.parametrize("draw", [keys_lib.uniform, keys_lib.normal])
def test_draws_are_the_same_wherever_they_run(draw, keys):
    def drawn(keys):
        return draw(keys, 5, 7)

    eager = drawn(keys).numpy()
    traced = tf.function(drawn)(keys).numpy()
    compiled = tf.function(drawn, jit_compile=True)(keys).numpy()
    in_data = next(iter(tf.data.Dataset.from_tensors(keys).map(drawn))).numpy()
    for other in (traced, compiled, in_data):
        np.testing.assert_allclose(other, eager, rtol=0, atol=1e-6)
