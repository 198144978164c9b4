"""Writes records to TFRecord files, each of which appears when it is whole."""

from __future__ import annotations

import os
from collections.abc import Callable

import tensorflow as tf

from simclr_tf.prepare.parts import Picture
from simclr_tf.prepare.plan import Record, Shard


def write(shard: Shard, folder: str, contents: Callable[[Picture], bytes]) -> None:
    """Writes a file, if it is not there.

    Args:
      shard: its name and records.
      folder: where it is written.
      contents: picture -> the encoded image.
    """
    path = os.path.join(folder, shard.name)
    if os.path.exists(path):
        return
    partial = os.fsencode(f"{path}.partial")
    with tf.io.TFRecordWriter(partial) as writer:
        for record in shard.records:
            writer.write(_example(record, contents(record.picture)))
    os.replace(partial, path)


def _example(record: Record, content: bytes) -> bytes:
    features = {
        "image/encoded": _bytes(content),
        "image/filename": _bytes(os.fsencode(record.picture.path)),
    }
    if record.label is not None:
        numbers = tf.train.Int64List(value=[record.label])
        features["image/class/label"] = tf.train.Feature(int64_list=numbers)
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
