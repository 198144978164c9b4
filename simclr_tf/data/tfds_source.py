"""`tfds:NAME[/CONFIG][:VERSION]`: a prepared data set of tensorflow_datasets, and our `shapes`.

Nothing is downloaded here: a data set that is not prepared is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from simclr_tf.data import bit_depth, record_stream, shapes
from simclr_tf.data.depth_check import notes_on
from simclr_tf.data.places import Place
from simclr_tf.data.record_labels import MAX_CLASSES, Classes, count_labels, numbered_classes
from simclr_tf.data.record_source import RecordSource
from simclr_tf.data.record_stream import RecordFile
from simclr_tf.data.source import ArraySource, Source
from simclr_tf.data.tfds_features import (
    check_image,
    fits_in_memory,
    names_of,
    reads_label,
    unused_label,
)
from simclr_tf.errors import RequestError

# A data set whose decoded images are equal in size and together smaller than this is kept decoded
# in memory: CIFAR-10 takes 150 MB.
_IN_MEMORY_BYTES = 2**30
# Names with a namespace stand for other people's code, which tensorflow_datasets would download
# and run.
_NAME = re.compile(r"\w+(/\w[\w.+-]*)?(:[\d.]+)?")


def open_shapes(split: str, data_dir: str | None) -> Source:
    """Opens the embedded data set, and renders it on first use, which takes some seconds."""
    return _open(shapes.prepare(data_dir), split, "shapes")


def open_tfds(
    name: str, split: str, data_dir: str | None, bits: int = bit_depth.FULL_DEPTH
) -> Source:
    """Opens a prepared data set, with `bits` in use of images of uint16.

    Raises:
      RequestError: it is not prepared in `data_dir`, or it lacks the split or an image.
    """
    if not _NAME.fullmatch(name):
        raise RequestError(
            "A data set must be given as tfds:NAME, tfds:NAME/CONFIG or tfds:NAME/CONFIG:VERSION, "
            f"in letters, digits and _ . + -. Received: tfds:{name}."
        )
    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        raise RequestError(_not_prepared(name, data_dir)) from error
    if not builder.info.splits:
        raise RequestError(_not_prepared(name, data_dir))
    return _open(builder, split, f"tfds:{name}", bits)


def class_names_of(spec: str) -> list[str] | None:
    """Returns the classes of `shapes` or `tfds:NAME`, prepared or not; None if not known."""
    if spec == "shapes":
        return list(shapes.CLASSES)
    if not _NAME.fullmatch(spec.removeprefix("tfds:")) or not spec.startswith("tfds:"):
        return None
    try:
        features = tfds.builder(spec.removeprefix("tfds:"), try_gcs=False).info.features
    except (tfds.core.DatasetNotFoundError, ValueError, AssertionError):
        return None
    return names_of(dict(features).get("label"))


def _not_prepared(name: str, data_dir: str | None) -> str:
    return (
        f"The data set must be prepared before training, which downloads nothing. Received: "
        f"tfds:{name} with data_dir={data_dir or 'the default of tensorflow_datasets'}. Prepare "
        f"it with: python tools/prepare_dataset.py {name} --data_dir=DIR"
    )


def _open(
    builder: tfds.core.DatasetBuilder, split: str, name: str, bits: int = bit_depth.FULL_DEPTH
) -> Source:
    features = builder.info.features
    check_image(features, name)
    try:
        info = builder.info.splits[split]
    except (KeyError, ValueError) as error:
        raise RequestError(
            f"The split must be one of {', '.join(builder.info.splits)}. Received: {split!r} of "
            f"{name}."
        ) from error
    in_memory = fits_in_memory(features, info.num_examples, _IN_MEMORY_BYTES)
    _check_format(builder, name, in_memory)
    files = [RecordFile(path=i.filename, skip=i.skip, count=i.take) for i in info.file_instructions]
    labelled = reads_label(features)
    if in_memory:
        images, labels = _decode_all(builder, split, labelled, bits)
        classes = _classes(features, [labels] if labelled else None)
        is_deep = features["image"].np_dtype == np.uint16 and bits == bit_depth.FULL_DEPTH
        largest = 256 * int(images.max(initial=0)) + 255 if is_deep else None
        return ArraySource(
            name=name,
            num_examples=info.num_examples,
            class_names=classes.names,
            labels=labels if classes.names else None,
            images=images,
            notes=[*classes.notes, *notes_on(largest)],
            read_from=[Place(f.path, f.skip, f.skip + f.count) for f in files],
        )
    classes = _classes(features, _labels(features, files) if labelled else None)
    return RecordSource(
        name=name,
        num_examples=info.num_examples,
        class_names=classes.names,
        counts=classes.counts,
        notes=classes.notes,
        files=files,
        parse=_parser(features, classes.names is not None),
    )


def _classes(features: tfds.features.FeaturesDict, labels: Iterable[np.ndarray] | None) -> Classes:
    """Returns the classes of a data set; labels without names are read, to number them."""
    names = names_of(dict(features).get("label"))
    note = unused_label(features)
    if names is not None or labels is None:
        return Classes(names, notes=[note] if note else [])
    counts = count_labels(labels)
    if counts is None:
        unfit = f"the labels are not used: they must be from -1 to {MAX_CLASSES - 1:,}"
        return Classes(notes=[unfit])
    return numbered_classes(counts)


def _check_format(builder: tfds.core.DatasetBuilder, name: str, in_memory: bool) -> None:
    """Refuses files whose records tensorflow_datasets or this package cannot read in order."""
    found = getattr(builder.info.file_format, "value", "tfrecord")
    if found == "tfrecord" or (in_memory and found == "parquet"):
        return
    short = name.removeprefix("tfds:")
    raise RequestError(
        f"A data set must be prepared as TFRecord files. Received: {name}, whose files in "
        f"{builder.data_dir} have the format {found}. Prepare it again in another folder: python "
        f"tools/prepare_dataset.py {short} --data_dir=DIR, or convert it: tfds convert_format "
        f"--dataset_version_dir={builder.data_dir} --out_file_format=tfrecord --out_dir=DIR/"
        f"{builder.info.full_name} (which needs apache_beam)."
    )


def _labels(features: tfds.features.FeaturesDict, files: list[RecordFile]) -> Iterator[np.ndarray]:
    parse = _parser(features, labelled=True)
    labels = record_stream.in_order(files).map(lambda record, _: parse(record)[1], tf.data.AUTOTUNE)
    return labels.batch(1024).as_numpy_iterator()


def _decode_all(
    builder, split: str, labelled: bool, bits: int
) -> tuple[np.ndarray, np.ndarray | None]:
    dataset = builder.as_dataset(split=split, shuffle_files=False)
    dataset = dataset.map(
        lambda e: (
            {"image": _rgb(e["image"], bits)}
            | ({"label": tf.cast(e["label"], tf.int64)} if labelled else {})
        ),
        tf.data.AUTOTUNE,
    )
    batches = list(dataset.batch(1024).as_numpy_iterator())
    images = np.concatenate([b["image"] for b in batches])
    return images, np.concatenate([b["label"] for b in batches]) if labelled else None


def _rgb(image: tf.Tensor, bits: int) -> tf.Tensor:
    """Returns uint8 [H, W, 3]; of uint16 the upper 8 of the bits in use."""
    if image.dtype == tf.uint16:
        image = bit_depth.to_bytes(image, bits)
    return tf.image.grayscale_to_rgb(image) if image.shape[-1] == 1 else image[..., :3]


def _parser(features: tfds.features.FeaturesDict, labelled: bool):
    decoders = {"image": tfds.decode.SkipDecoding()}

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = features.deserialize_example(record, decoders=decoders)
        label = tf.cast(example["label"], tf.int64) if labelled else tf.constant(-1, tf.int64)
        return example["image"], label

    return parse
