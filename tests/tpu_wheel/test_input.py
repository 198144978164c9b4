"""If this breaks, a TPU host trains on other views than it should, or on none."""

import contextlib
import io

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from simclr_tf.augment.policy import augmentation
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.plain_images import plain_images
from simclr_tf.data.record_source import RecordSource
from simclr_tf.data.source import ArraySource, FileSource, Source
from simclr_tf.data.source_kinds import open_source
from simclr_tf.distribute import environment
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.distribute.xla import host_compiles
from tests.support.colours import IMAGES, colour, jpeg
from tests.support.views import pairs

# Neither crop nor flip nor blur changes an image of one colour.
POLICY = (("flip", 0.5), ("blur", 0.5))
ONE_HOST = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=8)


def test_whether_the_host_compiles_is_found_out():
    assert host_compiles() == (environment.installed("tensorflow-tpu") is None)


def records(folder, photos) -> Source:
    for part in range(2):
        with tf.io.TFRecordWriter(str(folder / f"{part}.tfrecord")) as writer:
            for number in range(part, IMAGES, 2):
                image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[jpeg(number)]))
                label = tf.train.Feature(int64_list=tf.train.Int64List(value=[number]))
                features = tf.train.Features(feature={"image": image, "label": label})
                writer.write(tf.train.Example(features=features).SerializeToString())
    return open_source(f"tfrecord:{folder}/*.tfrecord", "train", None)


def prepared(folder, size) -> Source:
    """A data set of tensorflow_datasets; of one size it is held in memory."""

    class Colours(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            image = tfds.features.Image(shape=(size, size, 3), encoding_format="jpeg")
            label = tfds.features.ClassLabel(num_classes=IMAGES)
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for number in range(IMAGES):
                pixels = np.broadcast_to(colour(number), (32, 32, 3))
                yield number, {"image": pixels, "label": number}

    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):
        Colours(data_dir=str(folder)).download_and_prepare()
    return open_source("tfds:colours", "train", str(folder))


SOURCES = {
    "files": (FileSource, lambda folder, photos: open_source(f"folder:{photos}", "train", None)),
    "records": (RecordSource, records),
    "tfds": (RecordSource, lambda folder, photos: prepared(folder, None)),
    "arrays": (ArraySource, lambda folder, photos: prepared(folder, 32)),
}


@pytest.fixture(scope="module", params=SOURCES)
def source(request, tmp_path_factory, photos) -> Source:
    kind, opened = SOURCES[request.param]
    found = opened(tmp_path_factory.mktemp("data"), photos)
    assert isinstance(found, kind) and found.num_examples == IMAGES
    return found


def number_of(source: Source, index: int, label: int) -> int:
    """Files are known by their names; of the others each image has a class of its own."""
    return int(source.paths[index][-6:-4]) if isinstance(source, FileSource) else label


@pytest.mark.parametrize("augment_on", ["host", "device"])
def test_every_view_is_of_its_image(source, augment_on):
    bad = BadImages(source)
    pipeline = ViewsPipeline(
        source=source,
        groups=pairs(augmentation(policy=POLICY), 16),
        seed=1,
        bad_images=bad,
        augment_on=augment_on,
    )
    seen = []
    for batch in pipeline.dataset(ONE_HOST).take(IMAGES // ONE_HOST.per_replica):
        first, second = np.split(pipeline.with_views(batch)["images"].numpy(), 2)
        numbers = map(number_of, [source] * 8, batch["index"].numpy(), batch["labels"].numpy())
        for number, *views in zip(numbers, first, second, strict=True):
            # Blur keeps one colour but at the borders, where it sees black.
            centre = np.stack(views)[:, 6:10, 6:10]
            expected = np.broadcast_to(colour(number) / 255, centre.shape)
            np.testing.assert_allclose(centre, expected, rtol=0, atol=3 / 255)
            seen.append(number)
    assert sorted(seen) == list(range(IMAGES)) and len(bad) == 0


def test_every_plain_image_is_itself(source):
    bad = BadImages(source)
    for images, labels, index in plain_images(source, 16, 7, bad):
        for image, label, i in zip(images, labels, index, strict=True):
            expected = np.broadcast_to(colour(number_of(source, i, label)) / 255, image.shape)
            np.testing.assert_allclose(image, expected, rtol=0, atol=3 / 255)
    assert len(bad) == 0
