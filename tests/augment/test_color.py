"""If this code were wrong, colours would be distorted more, less or otherwise than in the paper,
or always in the same order."""

import itertools

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import scipy.stats
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr_tf.augment import color
from simclr_tf.augment.ops import OPS

NEUTRAL = {
    "brightness_scale": 1.0,
    "brightness_shift": 0.0,
    "contrast": 1.0,
    "saturation": 1.0,
    "hue": 0.0,
}
TENSORFLOWS = {
    "brightness_scale": lambda image, value: image * value,
    "brightness_shift": tf.image.adjust_brightness,
    "contrast": tf.image.adjust_contrast,
    "saturation": tf.image.adjust_saturation,
    "hue": tf.image.adjust_hue,
}
ORDERS = list(itertools.permutations(range(4)))


def adjust(images, slots=None, **values):
    count = len(images)
    slots = np.tile([0, 1, 2, 3], (count, 1)) if slots is None else slots
    parameters = {
        name: tf.broadcast_to(tf.constant(values.get(name, neutral), tf.float32), [count])
        for name, neutral in NEUTRAL.items()
    }
    return color.adjust_colors(images, tf.constant(slots, tf.int32), **parameters).numpy()


def extreme_colors():
    """Every corner, edge and centre of the colour cube, greys and ties of channels among them."""
    cube = np.array(list(itertools.product([0.0, 0.25, 0.5, 1.0], repeat=3)), np.float32)
    return tf.constant(cube.reshape(1, 8, 8, 3))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("brightness_scale", (0.2, 0.9, 1.8)),
        ("brightness_shift", (-0.8, 0.1, 0.8)),
        ("contrast", (0.0, 0.2, 1.8)),
        ("saturation", (0.0, 0.2, 1.8)),
        ("hue", (-0.2, -0.07, 0.0, 0.2, 0.5)),
    ],
)
def test_each_adjustment_is_tensorflows(images, name, values):
    for value in values:
        for batch in (images, extreme_colors()):
            expected = [tf.clip_by_value(TENSORFLOWS[name](image, value), 0, 1) for image in batch]
            np.testing.assert_allclose(
                adjust(batch, **{name: value}), tf.stack(expected), rtol=0, atol=1e-5
            )


@settings(deadline=None, max_examples=50)
@given(
    pixel=st.tuples(*[st.integers(0, 255)] * 3),
    saturation=st.floats(0, 2, width=32),
    hue=st.floats(-0.5, 0.5, width=32),
)
def test_saturation_and_hue_of_any_pixel_are_tensorflows(pixel, saturation, hue):
    """Of 8-bit pixels: TensorFlow's adjust_saturation makes (1, 0, 1e-16) black."""
    image = tf.constant(pixel, tf.float32, [1, 1, 1, 3]) / 255.0
    expected = tf.image.adjust_hue(tf.image.adjust_saturation(image, saturation), hue)
    result = adjust(image, saturation=saturation, hue=hue)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def test_all_orders_with_parameters_of_each_example(images):
    rng = np.random.default_rng(1)
    images = tf.gather(images, np.arange(24) % 8)
    values = {name: rng.uniform(0.2, 1.8, 24).astype("f") for name in ("contrast", "saturation")}
    values["brightness_scale"] = rng.uniform(0.2, 1.8, 24).astype("f")
    values["hue"] = rng.uniform(-0.2, 0.2, 24).astype("f")
    names = ("brightness_scale", "contrast", "saturation", "hue")
    result = adjust(images, slots=np.array(ORDERS), **values)
    for example, slots in enumerate(ORDERS):
        expected = images[example]
        for op in np.argsort(slots):
            expected = TENSORFLOWS[names[op]](expected, values[names[op]][example])
            expected = tf.clip_by_value(expected, 0.0, 1.0)
        np.testing.assert_allclose(result[example], expected, rtol=0, atol=1e-5)


@pytest.fixture
def drawn(monkeypatch, many_keys):
    """The parameters that color_jitter draws for 4096 examples."""

    def parameters(**options):
        captured = {}

        def capture(images, slots, **values):
            captured.update(values, slots=slots)
            return images

        monkeypatch.setattr(color, "adjust_colors", capture)
        color.color_jitter(tf.zeros([4096, 1, 1, 3]), many_keys, op=2, **options)
        return {name: value.numpy() for name, value in captured.items()}

    return parameters


@pytest.mark.parametrize("strength", [0.5, 1.0, 1.25])
@pytest.mark.parametrize("brightness", ["multiplicative", "additive"])
def test_parameters_are_uniform_in_the_papers_ranges(drawn, strength, brightness):
    parameters = drawn(strength=strength, brightness=brightness)
    scale, shift = parameters["brightness_scale"], parameters["brightness_shift"]
    moving, still = (scale - 1, shift) if brightness == "multiplicative" else (shift, scale - 1)
    assert (still == 0.0).all()
    assert (scale >= 0.0).all()
    for values, reach in (
        (moving, 0.8 * strength),
        (parameters["contrast"] - 1, 0.8 * strength),
        (parameters["saturation"] - 1, 0.8 * strength),
        (parameters["hue"], 0.2 * strength),
    ):
        assert scipy.stats.kstest(values, "uniform", args=(-reach, 2 * reach)).pvalue > 1e-3


@pytest.mark.parametrize(("name", "turns"), [("moco_v1", 0.4), ("pirl", 0.2)])
def test_moco_v1_and_pirl_move_the_hue_further(drawn, name, turns):
    """At strength 0.5: 0.4, 0.4, 0.4 and two fifths, or one, of a turn."""
    function = OPS[f"color_jitter_{name}"].function
    assert (function.func, function.keywords) == (color.color_jitter, {"hue": 2 * turns})
    hue = drawn(strength=0.5, hue=2 * turns)["hue"]
    assert scipy.stats.kstest(hue, "uniform", args=(-turns, 2 * turns)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("name", "fixed", "moving"),
    [
        ("color_jitter_vicreg", {"saturation": 0.4}, "brightness_scale"),
        ("color_jitter_byol", {"brightness": "additive", "saturation": 0.4}, "brightness_shift"),
    ],
)
def test_byol_and_vicreg_scale_saturation_half_as_much(drawn, name, fixed, moving):
    """At strength 0.5: 0.4, 0.4, 0.2 and 0.1 (BYOL's appendix B, VICReg's C.1)."""
    function = OPS[name].function
    assert (function.func, function.keywords) == (color.color_jitter, fixed)
    parameters = drawn(strength=0.5, **fixed)
    for key, reach in ((moving, 0.4), ("contrast", 0.4), ("saturation", 0.2), ("hue", 0.1)):
        values = parameters[key] - NEUTRAL[key]
        assert scipy.stats.kstest(values, "uniform", args=(-reach, 2 * reach)).pvalue > 1e-3, key


def test_orders_are_equally_likely(drawn):
    orders, counts = np.unique(drawn()["slots"], axis=0, return_counts=True)
    np.testing.assert_array_equal(orders, ORDERS)
    assert scipy.stats.chisquare(counts).pvalue > 1e-3


def test_jitter_of_strength_zero_changes_nothing(images, keys):
    jittered = color.color_jitter(images, keys, op=1, probability=1.0, strength=0.0)
    np.testing.assert_allclose(jittered, images, rtol=0, atol=1e-5)


@pytest.mark.parametrize("strength", [1.3, -0.1, float("nan")])
def test_impossible_strength_is_refused(images, keys, strength):
    with pytest.raises(ValueError, match=f"between 0 and 1.25. Received: strength={strength}"):
        color.color_jitter(images, keys, op=1, strength=strength)


def test_unknown_brightness_is_refused(images, keys):
    with pytest.raises(ValueError, match="Received: brightness='v1'"):
        color.color_jitter(images, keys, op=1, brightness="v1")


def test_grayscale_is_tensorflows(images, keys):
    gray = color.grayscale(images, keys, op=1, probability=1.0)
    expected = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(images))
    np.testing.assert_allclose(gray, expected, rtol=0, atol=1e-6)


def test_solarize_is_pillows(images, keys):
    """Of 8-bit images; Pillow inverts from 128 on, which is the first level above 0.5."""
    levels = np.round(images.numpy() * 255).astype(np.uint8)
    levels[0, 0] = np.arange(116, 140)[:, None]
    solarized = color.solarize(tf.constant(levels / 255, tf.float32), keys, op=1, probability=1.0)
    expected = [np.asarray(PIL.ImageOps.solarize(PIL.Image.fromarray(i), 128)) for i in levels]
    np.testing.assert_allclose(solarized, np.stack(expected) / 255, rtol=0, atol=1e-6)
