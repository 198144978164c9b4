"""SimCLR with Keras 3 models trained under tf.distribute."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib


def _refuse_unsupported_keras() -> None:
    """Raises ImportError, in one sentence, for a Keras that this package cannot use.

    Reads only the environment and Keras' configuration file, so that importing the package stays
    light.
    """
    if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true"):
        raise ImportError(
            "simclr_tf needs Keras 3, but TF_USE_LEGACY_KERAS="
            f"{os.environ['TF_USE_LEGACY_KERAS']!r} asks for Keras 2: unset TF_USE_LEGACY_KERAS."
        )
    backend, origin = os.environ.get("KERAS_BACKEND"), "KERAS_BACKEND"
    if not backend:
        home = pathlib.Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser()
        origin = str(home / "keras.json")
        try:
            backend = json.loads(pathlib.Path(origin).read_text()).get("backend", "tensorflow")
        except (OSError, ValueError, AttributeError):
            backend = "tensorflow"
    if backend != "tensorflow":
        raise ImportError(
            f"simclr_tf needs the TensorFlow backend of Keras, but {origin} chooses {backend!r}: "
            "set KERAS_BACKEND=tensorflow."
        )

    try:
        version = importlib.metadata.version("keras")
    except importlib.metadata.PackageNotFoundError:
        version = "none"
    if version == "none" or tuple(map(int, version.split(".")[:2])) < (3, 10):
        raise ImportError(
            f"simclr_tf needs Keras 3.10 or later, but {version} is installed: "
            "pip install 'keras>=3.10'."
        )


_refuse_unsupported_keras()

__version__ = "0.1.0"
