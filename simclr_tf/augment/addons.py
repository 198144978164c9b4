"""tensorflow-addons' image ops as policy ops, imported beside Keras 3 and only on request.

tensorflow-addons 0.23 is the last release and needs Keras 2 during its import. This module swaps
in the Keras 2 namespace for the import and restores Keras 3 afterwards.

An op of addons becomes an op of a policy by these rules:

*   Its parameters `angles` (radians), `level` (shear), `delta_hue` (radians) and `translations`
    (pixels, x and y) are drawn from U(-strength, strength) for each example, and `factor`
    (sharpness), which is neutral at 1, from 1 + U(-strength, strength).
*   `replace`, the colour of empty pixels, is black. Other parameters keep their defaults.
*   An op without drawn parameters (equalize, the filters) ignores strength.
*   The ops take whole numbers from 0 to 255, so images are converted to these and back.

An op that needs anything else, or that draws random numbers itself, is refused. Some ops have no
XLA kernel (rotate, equalize): use them on the host, in tf.data, and not on a TPU.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator

import tensorflow as tf

from simclr_tf.augment import keys as keys_lib
from simclr_tf.augment.ops import Op
from simclr_tf.errors import InvalidArgument

_DRAWN_FOR_BATCH = {"angles": 1, "translations": 2}
_DRAWN_FOR_IMAGE = ("level", "delta_hue", "factor")
_GIVEN = ("image", "images", "replace")


def _is_tensorflow_keras(module_name: str) -> bool:
    return module_name.split(".")[:2] == ["tensorflow", "keras"]


@contextlib.contextmanager
def _keras_2_namespace() -> Iterator[None]:
    """Makes the Keras names that tensorflow-addons imports those of Keras 2 while open."""
    keras_2 = importlib.import_module("tf_keras")
    engine = types.ModuleType("keras.src.engine")
    engine.keras_tensor = importlib.import_module("tf_keras.src.engine.keras_tensor")
    lent = {
        "keras.src.engine": engine,
        "tensorflow.keras": keras_2,
        "tensorflow.keras.optimizers": keras_2.optimizers,
        "tensorflow.keras.optimizers.legacy": keras_2.optimizers.legacy,
    }
    own_modules = {
        name: module
        for name, module in sys.modules.items()
        if name in lent or _is_tensorflow_keras(name)
    }
    own_attribute = tf.__dict__.get("keras")
    for name in own_modules:
        del sys.modules[name]
    sys.modules.update(lent)
    tf.keras = keras_2
    try:
        yield
    finally:
        if own_attribute is None:
            del tf.keras
        else:
            tf.keras = own_attribute
        for name in list(sys.modules):
            if name in lent or _is_tensorflow_keras(name):
                del sys.modules[name]
        sys.modules.update(own_modules)


@functools.lru_cache(maxsize=1)
def _addons_image() -> types.ModuleType:
    try:
        with _keras_2_namespace():
            addons = importlib.import_module("tensorflow_addons")
    except ImportError as error:
        raise ImportError(
            "Policy ops 'addons:NAME' need tensorflow-addons 0.23 and tf-keras. "
            f"Received: {error}, on Python {sys.version_info.major}.{sys.version_info.minor}. "
            'On Python 3.10 or 3.11, pip install "simclr_tf[addons]"; it has no release for later '
            "ones: there, use this package's own ops (simclr_tf.augment.ops.OPS)."
        ) from error
    # Its compiled kernels are for TensorFlow 2.15 and may crash others; use its Python ops instead.
    addons.options.disable_custom_kernel()
    return addons.image


def _check_usable(name: str, function: Callable[..., tf.Tensor] | None) -> None:
    if function is None:
        raise InvalidArgument(
            "'addons:NAME' must name a function of tensorflow_addons.image. "
            f"Received: NAME={name!r}. Examples: rotate, shear_x, sharpness, equalize."
        )
    parameters = inspect.signature(function).parameters
    known = {*_GIVEN, *_DRAWN_FOR_BATCH, *_DRAWN_FOR_IMAGE}
    unknown = [
        parameter.name
        for parameter in parameters.values()
        if parameter.default is parameter.empty and parameter.name not in known
    ]
    if unknown or "seed" in parameters or not {"image", "images"} & parameters.keys():
        reason = "it draws its own random numbers" if "seed" in parameters else f"needs {unknown}"
        raise InvalidArgument(
            "'addons:NAME' must name an op that takes images and needs nothing but "
            f"{', '.join(sorted(known - {'image', 'images'}))}. "
            f"Received: NAME={name!r} ({reason}). "
            "Use another op, or write this one as a function of this package."
        )


@functools.cache
def op(name: str) -> Op:
    """Returns an op of `tensorflow_addons.image` as a policy op, by the rules of this module.

    Args:
        name: of the function in `tensorflow_addons.image`, such as 'rotate'.

    Returns:
        The op, marked as one that XLA does not compile.

    Raises:
        ImportError: if tensorflow-addons is not installed, or has no release for this Python.
        ValueError: if it has no such op, or the op cannot be part of a policy.
    """
    function = getattr(_addons_image(), name, None)
    _check_usable(name, function)
    parameters = inspect.signature(function).parameters
    constants = {"replace": 0.0} if "replace" in parameters else {}
    for_batch = next((p for p in _DRAWN_FOR_BATCH if p in parameters), None)
    for_image = next((p for p in _DRAWN_FOR_IMAGE if p in parameters), None)
    # A separate graph, which AutoGraph converts: the pipelines themselves are built without it.
    function = tf.function(function)

    def apply(
        images: tf.Tensor,
        keys: tf.Tensor,
        *,
        op: int,
        probability: float = 0.5,
        strength: float = 1.0,
    ) -> tf.Tensor:
        draws = keys_lib.uniform(keys, op, 3)
        values = (2.0 * draws[:, 1:] - 1.0) * strength

        def change(images: tf.Tensor) -> tf.Tensor:
            levels = tf.round(images * 255.0)
            if for_batch:
                each = values[:, 0] if _DRAWN_FOR_BATCH[for_batch] == 1 else values
                changed = function(levels, **{for_batch: each}, **constants)
            elif for_image:
                neutral = 1.0 if for_image == "factor" else 0.0
                changed = tf.map_fn(
                    lambda pair: function(pair[0], **{for_image: pair[1]}, **constants),
                    (levels, neutral + values[:, 0]),
                    fn_output_signature=tf.float32,
                )
            else:
                changed = function(levels, **constants)
            return tf.ensure_shape(tf.clip_by_value(changed / 255.0, 0.0, 1.0), images.shape)

        return keys_lib.apply_to_drawn(draws[:, 0], probability, change, images)

    return Op(f"addons:{name}", apply, compiles=False)
