"""`tfrecord:GLOB`: TFRecord files of tf.train.Example, as ImageNet is commonly packed.

The encoded image is one value of a bytes feature, the label one value of an int64 feature. The
files may be compressed.

A record whose features have other types, or are missing, counts as a bad image, like one that does
not decode. The first record, and the labels of all records, must be valid.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import gin
import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from simclr_tf.data import prepared
from simclr_tf.data.record_files import record_files
from simclr_tf.data.record_labels import MAX_CLASSES, Classes, count_labels, numbered_classes
from simclr_tf.data.record_paths import matching_files
from simclr_tf.data.record_source import RecordSource
from simclr_tf.data.record_stream import RecordFile
from simclr_tf.errors import RequestError

_AUTO = "auto"
_IMAGE_KEYS = ("image/encoded", "image")
_LABEL_KEYS = ("image/class/label", "label")
# First bytes of image formats, of those too that are not read: they are told of one by one.
_IMAGES = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")
_LOOKED_AT = 8
_BATCH = 1024


@gin.configurable("tfrecord", denylist=["pattern"])
def open_tfrecord(
    pattern: str, *, image_feature: str = _AUTO, label_feature: str | None = _AUTO
) -> RecordSource:
    """Opens the records of the files that match `pattern`.

    Args:
      pattern: a glob.
      image_feature: the feature that holds the encoded image; `auto` is `image/encoded` or
        `image`.
      label_feature: the feature that holds the label; `auto` is `image/class/label` or `label`, if
        there is one; None reads no labels.

    Raises:
      RequestError: no file matches, a file is cut short or damaged, or a feature is missing or
        unfit.
    """
    paths = matching_files(pattern)
    if not paths:
        raise RequestError(f"No TFRecord file matches. Received: tfrecord:{pattern}.")
    files = record_files(paths)
    num_examples = sum(f.count for f in files)
    if not num_examples:
        raise RequestError(f"The files hold no record. Received: tfrecord:{pattern}.")
    first = _first_records(next(f for f in files if f.count))
    image_key = _image_key(first, image_feature)
    label_key = _label_key(first, label_feature)
    classes = _classes(files, label_key) if label_key else Classes()
    return RecordSource(
        name=f"tfrecord:{pattern}",
        num_examples=num_examples,
        class_names=classes.names,
        counts=classes.counts,
        notes=classes.notes,
        files=files,
        features=(image_key, label_key),
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


Features = dict[str, tf.train.Feature]


def _features(record: bytes) -> Features:
    return dict(tf.train.Example.FromString(record).features.feature)


def _first_records(file: RecordFile) -> tuple[RecordFile, list[Features]]:
    """Returns the features of the first records, up to one that is no tf.train.Example."""
    found = []
    try:
        for record in _records(file).take(_LOOKED_AT).as_numpy_iterator():
            found.append(_features(record))
    except (tf.errors.OpError, DecodeError) as error:
        if not found:
            raise RequestError(
                f"Records must be of tf.train.Example. Received: {file.path}, whose first cannot "
                "be read. Copy it again, or leave it out."
            ) from error
    return file, found


def _image_key(first: tuple[RecordFile, list[Features]], asked: str) -> str:
    file, (record, *others) = first
    key = _named(record, asked, _IMAGE_KEYS)
    if key is None:
        raise RequestError(
            f"An encoded image must be in feature {' or '.join(_IMAGE_KEYS)}, or in that which "
            f"tfrecord.image_feature names. Received: tfrecord.image_feature={asked!r}, and in "
            f"record 0 of {file.path} {_listed(record)}."
        )
    if len(record[key].bytes_list.value) != 1:
        raise RequestError(
            f"An image must be in one value of bytes: the content of a JPEG or PNG file. Received: "
            f"{_described(record[key])} as {key} in record 0 of {file.path}. Pack encoded images, "
            f"or name their feature as tfrecord.image_feature: there is {_listed(record)}."
        )
    values = [v for r in (record, *others) for v in r.get(key, record[key]).bytes_list.value[:1]]
    if not any(value.startswith(_IMAGES) or value[4:8] == b"ftyp" for value in values):
        raise RequestError(
            f"An image must be encoded: the content of a JPEG or PNG file. Received: {key} of "
            f"{len(values[0]):,} bytes that begin with {values[0][:8]!r} in record 0 of "
            f"{file.path}, which may be raw pixels. Encode them, or name the feature of encoded "
            f"images as tfrecord.image_feature: there is {_listed(record)}."
        )
    return key


def _label_key(first: tuple[RecordFile, list[Features]], asked: str | None) -> str | None:
    file, (record, *others) = first
    # Another record's label is enough: that this one has none is an error, told when all are read.
    named = {name: feature for some in (*others, record) for name, feature in some.items()}
    key = None if asked is None else _named(named, asked, _LABEL_KEYS)
    if key is None and asked not in (None, _AUTO):
        raise RequestError(
            f"The feature of tfrecord.label_feature must be in the records. Received: {asked!r}, "
            f"and in record 0 of {file.path} {_listed(record)}. Name one of them, or None."
        )
    return key


def _named(record: Features, asked: str, usual: Sequence[str]) -> str | None:
    return next((key for key in (usual if asked == _AUTO else (asked,)) if key in record), None)


def _listed(record: Features) -> str:
    return ", ".join(f"{key} ({_described(record[key])})" for key in sorted(record)) or "nothing"


def _described(feature: tf.train.Feature | None) -> str:
    """Returns in words what a feature holds."""
    kind = feature.WhichOneof("kind") if feature else None
    values = getattr(feature, kind).value if kind else ()
    if not values:
        return "no value"
    if kind == "bytes_list":
        cut = values[0][:20]
        count = f"{len(values)} values of " if len(values) > 1 else ""
        return f"{count}bytes such as {cut!r}{'...' if cut != values[0] else ''}"
    if len(values) > 1:
        return f"{len(values):,} {'real ' if kind == 'float_list' else ''}numbers"
    return f"the {'real ' if kind == 'float_list' else ''}number {values[0]}"


def _records(file: RecordFile) -> tf.data.Dataset:
    return tf.data.TFRecordDataset(file.path, file.compression)


def _classes(files: Sequence[RecordFile], label_key: str) -> Classes:
    """Returns classes with the names that `prepare` wrote beside, or numbered."""
    counts = _count_labels(files, label_key)
    names = prepared.class_names_beside(files[0].path)
    if names is None:
        return numbered_classes(counts)
    if len(counts) > len(names):
        raise RequestError(
            "Each label must have a name in the description beside the records. Received: "
            f"{label_key} up to {len(counts) - 1}, and {len(names)} names beside {files[0].path}."
        )
    return Classes(names, np.pad(counts, (0, len(names) - len(counts))))


def _count_labels(files: Sequence[RecordFile], key: str) -> np.ndarray:
    """Counts the records of each label, int64 [C]; reads every record once."""
    labels = itertools.chain.from_iterable(_labels(file, key) for file in files)
    counts = count_labels(labels)
    if counts is None:
        raise RequestError(
            f"Labels must be below {MAX_CLASSES:,}, and -1 where unknown. Received: {key} beyond "
            f"that in {files[0].path}{_and_more(files)}. {_NO_LABELS}"
        )
    return counts


def _labels(file: RecordFile, key: str) -> Iterator[np.ndarray]:
    spec = {key: tf.io.FixedLenFeature([], tf.int64)}
    batches = _records(file).batch(_BATCH)
    read = 0
    try:
        labels = batches.map(lambda records: tf.io.parse_example(records, spec)[key])
        for some in labels.prefetch(1).as_numpy_iterator():
            yield some
            read += len(some)
    except tf.errors.OpError as error:
        raise RequestError(_unfit(file, key, read)) from error


def _unfit(file: RecordFile, key: str, after: int) -> str:
    """Returns what is wrong with the first unfit label after `after` records."""
    must = f"Each record must have one whole number as {key}, and be intact."
    number = after
    try:
        for record in _records(file).skip(after).as_numpy_iterator():
            feature = _features(record).get(key)
            if feature is None or len(feature.int64_list.value) != 1:
                found = _described(feature) if feature else f"no feature {key}"
                where = f"record {number} of {file.path}"
                return f"{must} Received: {found} in {where}. {_NO_LABELS}"
            number += 1
    except (tf.errors.OpError, DecodeError):
        pass
    return (
        f"{must} Received: {file.path}, whose record {number} cannot be read. Copy the file again, "
        "or leave it out."
    )


_NO_LABELS = (
    "Name another feature as tfrecord.label_feature, or train without labels: "
    "tfrecord.label_feature = None."
)


def _and_more(files: Sequence[RecordFile]) -> str:
    return f" and {len(files) - 1} more" if len(files) > 1 else ""
