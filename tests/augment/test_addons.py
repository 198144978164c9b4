"""If this code were wrong, importing the package would need tensorflow-addons, using one of its ops
would leave Keras 2 behind in the program, or its ops would draw numbers of their own."""

import functools
import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment import addons, policy
from simclr_tf.augment import keys as keys_lib

MISSING = [name for name in ("tensorflow_addons", "tf_keras") if not importlib.util.find_spec(name)]
needs_addons = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


def run(program: str) -> None:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_of_addons_is_imported_until_asked():
    run(
        "import sys\n"
        "from simclr_tf.augment import policy\n"
        "policy.augmentation()\n"
        "unwanted = {'tensorflow_addons', 'tf_keras', 'typeguard'}\n"
        "assert not unwanted & sys.modules.keys(), unwanted & sys.modules.keys()\n"
    )


@needs_addons
@pytest.mark.parametrize("keras_first", [True, False])
def test_keras_3_is_untouched_after_asking(keras_first):
    run(
        ("import keras\n" if keras_first else "") + "import sys\n"
        "import tensorflow as tf\n"
        + ("assert tf.keras.__version__.startswith('3.')\n" if keras_first else "")
        + "def of_keras(name):\n"
        "    return name.split('.')[0] == 'keras' or name.startswith('tensorflow.keras')\n"
        "before = {name: module for name, module in sys.modules.items() if of_keras(name)}\n"
        "attribute = tf.__dict__.get('keras')\n"
        "from simclr_tf.augment import addons\n"
        "addons.op('rotate')\n"
        "assert 'tensorflow_addons' in sys.modules\n"
        "after = {name: module for name, module in sys.modules.items() if of_keras(name)}\n"
        "assert before == after, before.keys() ^ after.keys()\n"
        "assert tf.__dict__.get('keras') is attribute\n"
        "import keras\n"
        "assert keras.__version__.startswith('3.') and tf.keras.__version__.startswith('3.')\n"
        "model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])\n"
        "assert model(tf.zeros((1, 4))).shape == (1, 2)\n"
    )


def test_what_is_missing_is_said(monkeypatch):
    addons.op.cache_clear()
    addons._addons_image.cache_clear()
    for name in ("tensorflow_addons", "tf_keras"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'pip install "simclr_tf\[addons\]"'):
        policy.parse_policy([("addons:rotate", 0.5, 0.3)])


@needs_addons
@pytest.mark.parametrize(
    "name", ["rotate", "shear_x", "shear_y", "sharpness", "equalize", "translate", "mean_filter2d"]
)
def test_op_is_pure_and_in_range(name, images, keys, assert_pure, changed_examples):
    op = functools.partial(
        addons.op(name).function, op=1, strength=2.0 if name == "translate" else 0.5
    )
    assert_pure(lambda images, keys: op(images, keys, probability=0.5), images, keys, xla=False)
    assert not changed_examples(images, op(images, keys, probability=0.0)).any()
    changed = op(images, keys, probability=1.0).numpy()
    assert changed_examples(images, changed).all()
    assert changed.min() >= 0.0 and changed.max() <= 1.0


@needs_addons
def test_angles_are_drawn_from_the_keys(many_keys):
    """A point right of the centre lands where its image's own drawn angle says."""
    dot = np.zeros((33, 33, 3), "f")
    dot[15:18, 29:32] = 1.0
    images = tf.tile(dot[None], [64, 1, 1, 1])
    turned = addons.op("rotate").function(
        images, many_keys[:64], op=1, probability=1.0, strength=0.5
    )
    angles = 0.5 * (2.0 * keys_lib.uniform(many_keys[:64], 1, 2).numpy()[:, 1] - 1.0)
    for image, angle in zip(turned.numpy()[..., 0], angles, strict=True):
        y, x = np.argwhere(image > 0.5).mean(axis=0) - 16
        assert np.arctan2(-y, x) == pytest.approx(angle, abs=0.06)


@needs_addons
@pytest.mark.parametrize("name", ["random_cutout", "blend", "nothing"])
def test_unusable_ops_are_refused(name):
    with pytest.raises(ValueError, match=f"Received: NAME='{name}'"):
        policy.parse_policy([(f"addons:{name}", 0.5)])
