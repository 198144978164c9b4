"""If this breaks, where the augmentation runs changes what is learned from."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment.policy import augmentation
from simclr_tf.data import folder_source, tfrecord_source
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.source import ArraySource, FileSource
from simclr_tf.distribute.strategy import HostSlice, host_slice, simulated_replicas
from simclr_tf.training import figures
from tests.support.views import pairs

POLICY = (("flip", 0.5), ("color_jitter", 0.8, 0.5))
QUICKLY_COMPILED = (("flip", 0.5), ("grayscale", 0.5), ("blur", 0.5))
ONE_HOST = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=4)


def on_device(source, policy=QUICKLY_COMPILED) -> ViewsPipeline:
    return ViewsPipeline(
        source=source,
        groups=pairs(augmentation(policy=policy), 24),
        seed=3,
        bad_images=BadImages(source),
        augment_on="device",
    )


def on_host(pipeline: ViewsPipeline) -> ViewsPipeline:
    return dataclasses.replace(pipeline, augment_on="host")


@pytest.fixture
def in_memory() -> ArraySource:
    images = np.random.default_rng(0).integers(0, 256, (12, 20, 32, 3), np.uint8)
    return ArraySource(name="arrays", num_examples=12, class_names=None, images=images, labels=None)


@pytest.fixture(params=["folder", "records"])
def encoded(request, photos, record_files):
    if request.param == "folder":
        return folder_source.open_folder(str(photos), "train")
    return tfrecord_source.open_tfrecord(record_files(5, 4, 3))


def first(pipeline: ViewsPipeline) -> dict[str, tf.Tensor]:
    return next(iter(pipeline.dataset(ONE_HOST)))


def test_images_in_memory_are_shipped_once_and_give_the_views_of_the_host(in_memory):
    pipeline = on_device(in_memory, POLICY)
    batch, expected = first(pipeline), first(on_host(pipeline))
    np.testing.assert_array_equal(batch["images"], in_memory.images[batch["index"]])
    np.testing.assert_array_equal(batch["index"], expected["index"])
    for compiled in (False, True):
        views = tf.function(pipeline.with_views, jit_compile=compiled)(batch)["images"]
        np.testing.assert_allclose(views, expected["images"], rtol=0, atol=1e-5)


def test_crops_of_files_are_shipped_rounded_and_give_the_views_of_the_host(encoded):
    """The host's own policy, on the host's crops to the nearest of 256 levels."""
    pipeline = on_device(encoded)
    batch = first(pipeline)
    bare = dataclasses.replace(on_host(pipeline), groups=pairs(augmentation(policy=()), 24))
    crops = first(bare)["images"].numpy()
    assert batch["images"].dtype == tf.uint8
    np.testing.assert_allclose(batch["images"] / 255, crops, rtol=0, atol=1 / 510 + 1e-6)
    rounded = tf.cast(batch["images"], tf.float32) / 255
    expected = pipeline.groups[0].augmentations[0](rounded, batch["keys"])
    # Records differ from files in how they are read: for them compiling again would show nothing.
    for compiled in (False, True)[: 1 + isinstance(encoded, FileSource)]:
        views = tf.function(pipeline.with_views, jit_compile=compiled)(batch)["images"]
        np.testing.assert_allclose(views, expected, rtol=0, atol=1e-5)


def test_what_is_lowered_is_what_is_fed(in_memory, photos):
    """The static shapes for which preflight compiles the step."""
    for source in (in_memory, folder_source.open_folder(str(photos), "train")):
        pipeline = on_device(source)
        spec = pipeline.element_spec(per_replica=4)
        batch = first(pipeline)
        assert batch.keys() == spec.keys()
        assert {n: (t.shape, t.dtype) for n, t in batch.items()} == {
            n: (s.shape, s.dtype) for n, s in spec.items()
        }
        views = (
            tf.function(pipeline.with_views)
            .get_concrete_function(spec)
            .structured_outputs["images"]
        )
        assert views.shape == [8, 24, 24, 3] and views.dtype == tf.float32


def test_replicas_make_the_views_of_their_own_images(in_memory):
    pipeline, strategy = on_device(in_memory), simulated_replicas(2)

    def views_of(pipeline):
        def images_of(batch):
            return pipeline.with_views(batch)["images"]

        batches = strategy.distribute_datasets_from_function(
            lambda context: pipeline.dataset(host_slice(context, global_batch_size=8))
        )
        run = tf.function(lambda batch: strategy.run(images_of, (batch,)))
        return strategy.experimental_local_results(run(next(iter(batches))))

    for found, expected in zip(views_of(pipeline), views_of(on_host(pipeline)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_picture_of_first_views_shows_views(in_memory):
    pipeline = on_device(in_memory)
    [found], [expected] = (figures.first_views(p, count=6) for p in (pipeline, on_host(pipeline)))
    assert found.shape == (6, 2, 24, 24, 3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
