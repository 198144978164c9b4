"""Reads the names of classes that tools/prepare_dataset.py writes beside records."""

from __future__ import annotations

import json
import os

import tensorflow as tf

from simclr_tf.errors import RequestError

_DESCRIPTION = "dataset.json"


def class_names_beside(path: str) -> list[str] | None:
    """Returns the class names in the order of the labels, or None if the set has none.

    Args:
      path: a file of records.

    Raises:
      RequestError: a description is there, but not as the tool writes it.
    """
    description = os.path.join(os.path.dirname(path), _DESCRIPTION)
    if not tf.io.gfile.exists(description):
        return None
    try:
        with tf.io.gfile.GFile(description) as file:
            names = json.loads(file.read())["classes"]
    except (ValueError, TypeError, KeyError, RecursionError, tf.errors.OpError) as error:
        raise _wrong(description) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise _wrong(description)
    return names or None


def _wrong(description: str) -> RequestError:
    return RequestError(
        f"{description} beside record files must hold a list of names as 'classes'. Received: "
        "another content. Prepare the set again, or rename the file if it is another program's."
    )
