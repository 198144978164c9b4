"""Counts images that do not decode, and stops a run when there are too many."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf
from absl import logging

from simclr_tf.data import decode, reasons
from simclr_tf.data.source import Source
from simclr_tf.errors import RequestError, cause
from simclr_tf.names import shown

# Images of a folder that are all looked at before a run stops, and bad images that it names.
_LOOKED_THROUGH = 2000
_SHOWN = 50


class BadImages:
    """Images of a source that were skipped because they do not decode.

    Args:
      source: the images.
      limit: the largest share of bad images with which a run may continue; one is always allowed.
    """

    def __init__(self, source: Source, limit: float = 0.01):
        self._source = source
        self._limit = limit
        self._names: dict[str, str] = {}  # and the reason
        self._failure: RequestError | None = None

    def __len__(self) -> int:
        return len(self._names)

    def compare(
        self,
        asked: tf.Tensor,
        epoch: tf.Tensor,
        stored: tf.Tensor,
        given: tf.Tensor,
        load: Callable[[tf.Tensor, int, int], Any],
        *,
        replaces: bool,
    ) -> tf.Tensor:
        """Judges, inside tf.data, the images that did not load; returns `given`.

        An image counts as bad only if the fault lies in its bytes or its header. Any other failure
        to load it is an error, which `explained` puts in words.

        Args:
          asked: the numbers of the requested images, int64 [K].
          epoch: the epoch of each request, int64 [K].
          stored: the content read for each, string [K].
          given: the numbers of the images loaded in their places, int64 [K]; -1 for none.
          load: (content, epoch, number) -> loads an image again.
          replaces: whether other images are tried in place of a bad one. If so, it is an error
            that none of them decodes.
        """

        def judge(asked, epoch, stored, given) -> np.ndarray:
            for n in np.flatnonzero(asked != given):
                content = tf.constant(stored[n])
                self._judge(asked[n], content, lambda c, n=n: load(c, epoch[n], asked[n]))
            for n in np.flatnonzero(given < 0) if replaces else ():
                self._fail(
                    "An image that decodes must be found in place of one that does not. Received: "
                    f"{self._source.name_of(int(asked[n]))}, and no other that was tried decodes."
                )
            return given

        return tf.numpy_function(judge, [asked, epoch, stored, given], tf.int64)

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Explains in words an error of an image while batches are read.

        Raises:
          RequestError: an image that decodes could not be loaded, or no image fills a place.
        """
        try:
            yield
        except tf.errors.OpError as error:
            if self._failure:
                raise self._failure from error
            raise

    def check(self) -> None:
        """Raises RequestError if more than the allowed share of the images is bad.

        Of a small folder all bad images are named then, not only those met so far.
        """
        if len(self._names) <= max(1, self._limit * self._source.num_examples):
            return
        found = "so far"
        if self._source.image_files and self._source.num_examples <= _LOOKED_THROUGH:
            self._look_through()
            found = "in all"
        names = sorted(self._names)
        lines = [f"{name}: {self._names[name]}" for name in names[:_SHOWN]]
        more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
        listed = "\n  ".join(lines + more)
        received = f"{len(names)} of {self._source.num_examples} {found}"
        raise RequestError(
            f"At most {self._limit:.0%} of the images may fail to decode, or one. Received: "
            f"{received}. Repair or remove them:\n  {listed}"
        )

    def _look_through(self) -> None:
        """Finds the other bad images of files."""
        others = [path for path in self._source.files_read() if shown(path) not in self._names]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for path, said in zip(others, pool.map(reasons.reason, others), strict=True):
                if said:
                    self._names[shown(path)] = said

    def _judge(self, index: int, stored: tf.Tensor, load: Callable[[tf.Tensor], Any]) -> None:
        name = shown(self._source.name_of(int(index)))
        encoded = stored
        try:
            encoded = self._encoded(int(index), stored)
            decode.decode_any(encoded)
        except tf.errors.InvalidArgumentError as error:
            self._add(name, reasons.described(encoded.numpy(), name, error))
            return
        except Exception as error:
            said = cause(error)
        else:
            said = _error_of(load, stored)
        self._fail(
            f"An image that decodes must load. Received: {name}, of which TensorFlow says: {said}."
        )

    def _encoded(self, index: int, stored: tf.Tensor) -> tf.Tensor:
        if self._source.cache == "decoded":  # the copy of a bad image does not hold the cause
            return tf.io.read_file(os.fsencode(self._source.paths[index]))
        return self._source.unpack(stored, -1)[0]

    def _add(self, name: str, reason: str) -> None:
        if name not in self._names:
            self._names[name] = reason
            logging.warning("skipped an image that does not decode (%s): %s", reason, name)

    def _fail(self, message: str) -> NoReturn:
        self._failure = RequestError(message)
        raise self._failure


def _error_of(load: Callable[[tf.Tensor], Any], stored: tf.Tensor) -> str:
    try:
        load(stored)
    except Exception as error:
        return cause(error)
    return "it failed at first, and loaded when tried again"
