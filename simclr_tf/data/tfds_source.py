"""`tfds:NAME[/CONFIG][:VERSION]`: a prepared data set of tensorflow_datasets, and our `shapes`.

Nothing is downloaded here: a data set that is not prepared is an error.
"""

from __future__ import annotations

import re

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from simclr_tf.data import shapes
from simclr_tf.data.record_source import RecordSource
from simclr_tf.data.record_stream import RecordFile
from simclr_tf.data.source import ArraySource, Source
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


def open_tfds(name: str, split: str, data_dir: str | None) -> Source:
    """Opens a prepared data set.

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
    return _open(builder, split, f"tfds:{name}")


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
    label = dict(features).get("label")
    return list(label.names) if isinstance(label, tfds.features.ClassLabel) else None


def _not_prepared(name: str, data_dir: str | None) -> str:
    return (
        f"The data set must be prepared before training, which downloads nothing. Received: "
        f"tfds:{name} with data_dir={data_dir or 'the default of tensorflow_datasets'}. Prepare "
        f"it with: python tools/prepare_dataset.py {name} --data_dir=DIR"
    )


def _open(builder: tfds.core.DatasetBuilder, split: str, name: str) -> Source:
    features = builder.info.features
    if "image" not in features:
        raise RequestError(
            f"A data set must have the feature 'image'. {name} has: {', '.join(features)}."
        )
    try:
        info = builder.info.splits[split]
    except (KeyError, ValueError) as error:
        raise RequestError(
            f"The split must be one of {', '.join(builder.info.splits)}. Received: {split!r} of "
            f"{name}."
        ) from error
    label = dict(features).get("label")
    class_names = list(label.names) if isinstance(label, tfds.features.ClassLabel) else None
    common = dict(name=name, num_examples=info.num_examples, class_names=class_names)
    shape = features["image"].shape
    if None not in shape and info.num_examples * np.prod(shape) <= _IN_MEMORY_BYTES:
        images, labels = _decode_all(builder, split, class_names is not None)
        return ArraySource(images=images, labels=labels, **common)
    files = [RecordFile(path=i.filename, skip=i.skip, count=i.take) for i in info.file_instructions]
    return RecordSource(files=files, parse=_parser(features, class_names is not None), **common)


def _decode_all(builder, split: str, labelled: bool) -> tuple[np.ndarray, np.ndarray | None]:
    dataset = builder.as_dataset(split=split, shuffle_files=False)
    dataset = dataset.map(
        lambda e: {"image": _rgb(e["image"])} | ({"label": e["label"]} if labelled else {}),
        tf.data.AUTOTUNE,
    )
    batches = list(dataset.batch(1024).as_numpy_iterator())
    images = np.concatenate([b["image"] for b in batches])
    return images, np.concatenate([b["label"] for b in batches]) if labelled else None


def _rgb(image: tf.Tensor) -> tf.Tensor:
    return tf.image.grayscale_to_rgb(image) if image.shape[-1] == 1 else image[..., :3]


def _parser(features: tfds.features.FeaturesDict, labelled: bool):
    decoders = {"image": tfds.decode.SkipDecoding()}

    def parse(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = features.deserialize_example(record, decoders=decoders)
        label = tf.cast(example["label"], tf.int64) if labelled else tf.constant(-1, tf.int64)
        return example["image"], label

    return parse
