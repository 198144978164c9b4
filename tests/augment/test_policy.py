"""If this code were wrong, a recipe would train with other augmentations than it says, two ops
would move together, or a typing error in a gin file would go unnoticed."""

import functools

import gin
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment import keys as keys_lib
from simclr_tf.augment import policy as policy_lib
from simclr_tf.augment.op_pair import op_pair
from simclr_tf.augment.ops import policy_op

# gaussian_blur leaves images below 20 pixels as they are, so these tests use 24.
EVERY_OP = sorted(policy_lib.OPS)


@pytest.mark.parametrize("name", EVERY_OP)
def test_op_is_pure_and_in_range(name, images, keys, assert_pure):
    op = functools.partial(policy_lib.OPS[name].function, op=3, probability=0.5, strength=1.0)
    assert_pure(lambda images, keys: op(images, keys), images, keys)
    result = op(images, keys)
    assert result.shape == images.shape and result.dtype == tf.float32
    assert float(tf.reduce_min(result)) >= 0.0 and float(tf.reduce_max(result)) <= 1.0


@pytest.mark.parametrize("name", EVERY_OP)
def test_op_changes_as_many_examples_as_its_probability(name, images, many_keys, changed_examples):
    keys = many_keys[:512]
    images = tf.gather(images, np.arange(512) % 8)
    fraction = {
        probability: changed_examples(
            images,
            policy_lib.OPS[name].function(
                images, keys, op=2, probability=probability, strength=1.0
            ),
        ).mean()
        for probability in (0.0, 0.3, 1.0)
    }
    assert fraction[0.0] == 0.0
    # A crop may be the whole image.
    assert fraction[1.0] == 1.0 or (name == "crop" and fraction[1.0] > 0.97)
    # Four standard deviations of the mean of 512 draws.
    assert abs(fraction[0.3] - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 512)


@pytest.mark.parametrize("name", EVERY_OP)
def test_op_draws_anew_for_another_epoch_view_index_and_op(name, images, changed_examples):
    images = tf.gather(images, np.zeros(64, int))

    def changed(epoch=0, view=0, start=0, op=1):
        keys = keys_lib.example_keys(0, epoch, np.arange(start, start + 64), view)
        result = policy_lib.OPS[name].function(images, keys, op=op, probability=0.5, strength=1.0)
        return changed_examples(images, result)

    base = changed()
    for other in (changed(epoch=1), changed(view=1), changed(start=64), changed(op=2)):
        assert 10 <= (base != other).sum() <= 54


def test_default_policy_is_simclrs_for_imagenet():
    augmentation = policy_lib.augmentation()
    parsed = [(op.name, op.probability, op.strength) for op in augmentation.policy]
    assert parsed == [
        ("flip", 0.5, 1.0),
        ("color_jitter", 0.8, 1.0),
        ("grayscale", 0.2, 1.0),
        ("blur", 0.5, 1.0),
    ]
    assert augmentation.area_range == (0.08, 1.0)
    assert augmentation.aspect_range == (3 / 4, 4 / 3)
    assert augmentation.min_object_covered == 0.1
    assert augmentation.random_crop


def test_gin_changes_every_part():
    gin.parse_config(
        """
        augmentation.policy = [('sobel', 1.0), ('color_jitter_v1', 0.8, 0.5)]
        augmentation.area_range = (0.2, 0.9)
        augmentation.random_crop = False
        """
    )
    augmentation = policy_lib.augmentation()
    assert [op.name for op in augmentation.policy] == ["sobel", "color_jitter_v1"]
    assert augmentation.policy[1].strength == 0.5
    assert augmentation.area_range == (0.2, 0.9)
    assert not augmentation.random_crop


def test_crop_and_policy_are_pure_and_in_range(images, keys, assert_pure):
    augmentation = policy_lib.augmentation()

    def both(images, keys):
        return augmentation(augmentation.crop(images, keys, 20), keys)

    assert_pure(both, images, keys)
    result = both(images, keys).numpy()
    assert result.shape == (8, 20, 20, 3)
    assert result.min() >= 0.0 and result.max() <= 1.0


def test_ops_run_in_the_policys_order(images, keys):
    first = policy_lib.augmentation(policy=[("sobel", 1.0), ("grayscale", 1.0)])(images, keys)
    entries = policy_lib.parse_policy([("sobel", 1.0), ("grayscale", 1.0)])
    by_hand = images
    for entry in entries:
        by_hand = entry.function(by_hand, keys, op=1, probability=1.0, strength=1.0)
    np.testing.assert_allclose(first, by_hand, rtol=0, atol=1e-6)
    second = policy_lib.augmentation(policy=[("grayscale", 1.0), ("sobel", 1.0)])(images, keys)
    assert np.abs(first.numpy() - second.numpy()).max() > 0.01


def test_the_same_op_twice_draws_twice(images, many_keys, changed_examples):
    """Two fair flips leave half of the images mirrored, and not none."""
    images = tf.gather(images, np.arange(512) % 8)
    twice = policy_lib.augmentation(policy=[("flip", 0.5), ("flip", 0.5)])
    mirrored = changed_examples(images, twice(images, many_keys[:512])).mean()
    assert 0.4 < mirrored < 0.6


def test_first_op_does_not_share_its_draws_with_the_crop(many_keys):
    augmentation = policy_lib.augmentation(policy=[("flip", 0.5)])
    ramp = tf.tile(tf.linspace(0.0, 1.0, 32)[None, None, :, None], [4096, 32, 1, 3])
    flipped = augmentation(ramp, many_keys).numpy()[:, 0, 0, 0] > 0.5
    sizes = tf.fill([4096], 32)
    boxes = augmentation.sample_boxes(many_keys, sizes, sizes).numpy()
    correlations = [np.corrcoef(flipped, column)[0, 1] for column in boxes.T]
    assert np.abs(correlations).max() < 5 / np.sqrt(4096)


def test_without_random_crop_the_central_square_is_taken(images, keys):
    augmentation = policy_lib.augmentation(random_crop=False)
    boxes = augmentation.sample_boxes(keys[:2], tf.constant([24, 20]), tf.constant([24, 31]))
    np.testing.assert_array_equal(boxes, [[0, 0, 24, 24], [0, 6, 20, 20]])
    np.testing.assert_allclose(augmentation.crop(images, keys, 24), images, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (("colour_jitter", 0.8), r"Received: 'colour_jitter'. Did you mean 'color_jitter'\?"),
        (
            ("xyz", 0.8),
            r"blur, color_drop, color_jitter, .*flip.*Received: 'xyz'. Use one of these names",
        ),
        ("flip", r"\(name, probability\).*Received: 'flip'"),
        (("flip",), r"\(name, probability\)"),
        ((0.5, "flip"), r"\(name, probability\)"),
        (("flip", 1.5), r"between 0 and 1. Received: probability=1.5"),
        (("flip", "0.5"), r"between 0 and 1. Received: probability='0.5'"),
        (("flip", True), r"between 0 and 1. Received: probability=True"),
        (("flip", 0.5, 0.5), r"'flip' has no strength. Received: strength=0.5"),
        (("color_jitter", 0.8, 1.3), r"above 0 and at most 1.25. Received: strength=1.3"),
        (("cutout", 0.8, -1.0), r"a number positive. Received: strength=-1.0"),
        (("blur", 0.5, "1.0"), r"a number positive. Received: strength='1.0'"),
    ],
)
def test_impossible_entries_are_refused(entry, message):
    with pytest.raises(ValueError, match=message):
        policy_lib.parse_policy([("flip", 0.5), entry])


@pytest.fixture
def own_ops(monkeypatch):
    """Ops that a test adds are gone after it."""
    monkeypatch.setattr(policy_lib, "OPS", dict(policy_lib.OPS))
    monkeypatch.setattr("simclr_tf.augment.ops.OPS", policy_lib.OPS)


@pytest.mark.usefixtures("own_ops")
def test_an_op_is_one_definition_with_its_properties(images, keys):
    @policy_op("invert", max_strength=2.0, compiles=False)
    def invert(images, keys, *, op, probability, strength):
        return 1.0 - images

    augmentation = policy_lib.augmentation(policy=[("flip", 0.0), ("invert", 1.0, 2.0)])
    np.testing.assert_allclose(augmentation(images, keys), 1.0 - images.numpy(), atol=1e-6)
    assert not augmentation.compiles
    assert policy_lib.augmentation(policy=[("flip", 0.5)]).compiles
    with pytest.raises(ValueError, match=r"above 0 and at most 2.0. Received: strength=2.5"):
        policy_lib.parse_policy([("invert", 1.0, 2.5)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"area_range": (0.5, 0.2)}, r"area_range must be.*Received: area_range=\(0.5, 0.2\)"),
        ({"area_range": (0.5, 1.2)}, r"at most 1.0. Received"),
        ({"aspect_range": (0.0, 1.2)}, r"aspect_range must be two positive"),
        ({"min_object_covered": 1.5}, r"Received: min_object_covered=1.5"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        policy_lib.augmentation(**arguments)


@pytest.mark.parametrize("shape", [(8, 24, 24, 1), (8, 24, 24, 4), (24, 24, 3)])
def test_images_without_three_channels_are_refused(keys, shape):
    augmentation = policy_lib.augmentation()
    for call in (augmentation, functools.partial(augmentation.crop, size=16)):
        with pytest.raises(ValueError, match=r"3 channels.*Received: shape="):
            call(tf.zeros(shape), keys)


@pytest.fixture
def broken(own_ops):
    """A policy of one op that gives `result` for any images."""

    def policy(result):
        @policy_op("broken", max_strength=None)
        def op(images, keys, *, op, probability, strength):
            return result(images)

        return policy_lib.augmentation(policy=(("broken", 1.0),))

    return policy


@pytest.mark.parametrize(
    ("result", "received"),
    [
        (lambda images: None, "None"),
        (lambda images: images[:, 2:-2], r"float32 \(8, 20, 24, 3\)"),
        (lambda images: images[..., 0], r"float32 \(8, 24, 24\)"),
        (lambda images: tf.cast(images, tf.uint8), "uint8"),
    ],
)
def test_an_op_that_returns_no_such_images_is_named(broken, images, keys, result, received):
    with pytest.raises(ValueError, match=f"The op 'broken' must return .*Received: '?{received}"):
        broken(result)(images, keys)


def test_an_op_has_a_name_of_its_own_and_all_parameters():
    with pytest.raises(ValueError, match=r"'flip', which simclr_tf\.augment\.crop\.flip has"):
        policy_op("flip")(lambda images, keys, *, op, probability, strength: images)
    with pytest.raises(ValueError, match="'mirror', whose function lacks probability, strength"):
        policy_op("mirror")(lambda images, keys, *, op: images)
    assert "mirror" not in policy_lib.OPS


def test_a_pair_of_ops_is_applied_in_order_and_an_equal_pair_once():
    colour, sobel = [("color_jitter", 0.8, 1.0), ("grayscale", 0.2)], [("sobel", 1.0)]

    def names(first, second):
        policy = functools.partial(op_pair, first, second)
        return [op.name for op in policy_lib.augmentation(policy=policy).policy]

    assert names(colour, sobel) == ["color_jitter", "grayscale", "sobel"]
    assert names(sobel, colour) == ["sobel", "color_jitter", "grayscale"]
    assert names(colour, tuple(colour)) == ["color_jitter", "grayscale"]
