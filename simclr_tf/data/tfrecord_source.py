"""`tfrecord:GLOB`: TFRecord files of tf.train.Example, as ImageNet is commonly packed.

The encoded image is the bytes feature `image/encoded` or `image`; the label, if there is one, is
the int64 feature `image/class/label` or `label`.

A record whose features have other types, or are missing, counts as a bad image, like one that does
not decode. The first record, and the labels of all records, must be valid.
"""

from __future__ import annotations

import os
import struct

import tensorflow as tf
from google.protobuf.message import DecodeError

from simclr_tf.data import prepared
from simclr_tf.data.record_source import RecordSource
from simclr_tf.data.record_stream import RecordFile
from simclr_tf.errors import RequestError

_IMAGE_KEYS = ("image/encoded", "image")
_LABEL_KEYS = ("image/class/label", "label")
_MAX_RECORD_BYTES = 2**30
_MAX_CLASSES = 2**20


def open_tfrecord(pattern: str) -> RecordSource:
    """Opens the records of the files that match `pattern`.

    Raises:
      RequestError: no file matches, a file is cut short or damaged, or there is no image feature.
    """
    paths = sorted(p for p in tf.io.gfile.glob(pattern) if "://" in p or os.path.isfile(p))
    if not paths:
        raise RequestError(f"No TFRecord file matches. Received: tfrecord:{pattern}.")
    files = [RecordFile(path=p, skip=0, count=_count(p)) for p in paths]
    num_examples = sum(f.count for f in files)
    if not num_examples:
        raise RequestError(f"The files hold no record. Received: tfrecord:{pattern}.")
    features = _features(next(f.path for f in files if f.count))
    image_key = _first_present(_IMAGE_KEYS, features)
    label_key = _first_present(_LABEL_KEYS, features)
    if image_key is None:
        raise RequestError(
            f"An encoded image must be in feature {' or '.join(_IMAGE_KEYS)}. Received features: "
            f"{', '.join(sorted(features))}."
        )
    return RecordSource(
        name=f"tfrecord:{pattern}",
        num_examples=num_examples,
        class_names=_class_names(files, label_key) if label_key else None,
        files=files,
        parse=_parser(image_key, label_key),
    )


def _parser(image_key: str, label_key: str | None):
    spec = {image_key: tf.io.FixedLenFeature([], tf.string)}
    if label_key:
        spec[label_key] = tf.io.FixedLenFeature([], tf.int64)

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = tf.io.parse_single_example(record, spec)
        label = example[label_key] if label_key else tf.constant(-1, tf.int64)
        return example[image_key], label

    return parse


def _count(path: str) -> int:
    """Counts the records of a file by its length headers alone.

    A record is: uint64 length, uint32 checksum, `length` bytes, uint32 checksum.
    """
    count, position = 0, 0
    size = tf.io.gfile.stat(path).length
    with tf.io.gfile.GFile(path, "rb") as file:
        while position < size:
            file.seek(position)
            header = file.read(12)
            if len(header) == 12:
                (length,) = struct.unpack("<Q", header[:8])
                position += 12 + length + 4
            if len(header) < 12 or position > size:
                raise RequestError(
                    f"{path} is cut short after record {count}. Copy it again, or leave it out."
                )
            if length > _MAX_RECORD_BYTES:
                raise RequestError(
                    f"A record must have at most {_MAX_RECORD_BYTES >> 20} MiB. Received: "
                    f"{length >> 20} in record {count} of {path}. Leave the file out."
                )
            count += 1
    return count


def _features(path: str) -> set[str]:
    try:
        record = next(iter(tf.data.TFRecordDataset(path).take(1))).numpy()
        return set(tf.train.Example.FromString(record).features.feature)
    except (tf.errors.OpError, DecodeError) as error:
        raise RequestError(
            f"Records must be of tf.train.Example. Received: {path}, whose first cannot be read. "
            "Copy it again, or leave it out."
        ) from error


def _first_present(keys: tuple[str, ...], features: set[str]) -> str | None:
    return next((key for key in keys if key in features), None)


def _class_names(files: list[RecordFile], label_key: str) -> list[str] | None:
    """Returns the names beside the files, or else labels 0 to the largest; None if only one.

    This reads every record once.
    """
    spec = {label_key: tf.io.FixedLenFeature([], tf.int64)}
    labels = (
        tf.data.TFRecordDataset([f.path for f in files])
        .batch(1024)
        .map(lambda records: tf.io.parse_example(records, spec)[label_key])
    )
    try:
        extremes = [(int(tf.reduce_min(some)), int(tf.reduce_max(some))) for some in labels]
    except tf.errors.OpError as error:
        raise RequestError(
            f"Each record must have one whole number as {label_key}, and be intact. Received: "
            f"{files[0].path} and {len(files) - 1} more, where one is not. Copy or pack them again."
        ) from error
    smallest, largest = min(e[0] for e in extremes), max(e[1] for e in extremes)
    if smallest < -1 or largest >= _MAX_CLASSES:
        raise RequestError(
            f"Labels must be below {_MAX_CLASSES:,}, and -1 where unknown. Received: {label_key} "
            f"from {smallest} to {largest}."
        )
    names = prepared.class_names_beside(files[0].path)
    if names is None:
        return [str(i) for i in range(largest + 1)] if largest > 0 else None
    if largest >= len(names):
        raise RequestError(
            f"Each label must have a name in the description beside the records. Received: "
            f"{label_key} up to {largest}, and {len(names)} names beside {files[0].path}."
        )
    return names
