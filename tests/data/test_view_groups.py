"""If this breaks, a method with several kinds of views trains on others than it asked for."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment import keys as random_keys
from simclr_tf.augment.policy import augmentation
from simclr_tf.augment.views import ViewGroup
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.folder_source import open_folder
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.source import ArraySource
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.training import figures

COUNT, BATCH, SEED = 24, 8, 3
LARGE = [
    augmentation(policy=(("flip", 0.5), ("color_jitter", 0.8))),
    augmentation(policy=(("flip", 0.5), ("blur", 0.5)), area_range=(0.3, 1.0)),
]
SMALL = augmentation(policy=(("grayscale", 0.5),), area_range=(0.05, 0.3))
# As BYOL asks for two policies, and multi-crop for views of another size.
GROUPS = [ViewGroup("large", LARGE, 16), ViewGroup("small", [SMALL] * 3, 8)]
IMAGES = np.random.default_rng(0).integers(0, 256, (COUNT, 20, 20, 3), np.uint8)


@pytest.fixture(params=["memory", "files"])
def source(request, tmp_path):
    if request.param == "memory":
        return ArraySource(
            name="arrays", num_examples=COUNT, class_names=None, images=IMAGES, labels=None
        )
    for i, image in enumerate(IMAGES):
        (tmp_path / f"{i:02d}.png").write_bytes(tf.io.encode_png(image).numpy())
    return open_folder(str(tmp_path), "train")


@pytest.mark.parametrize("place", ["host", "device"])
def test_every_view_is_of_its_own_policy_size_and_key(source, place):
    pipeline = ViewsPipeline(
        source=source, groups=GROUPS, seed=SEED, bad_images=BadImages(source), augment_on=place
    )
    host = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=BATCH)
    batch = next(iter(pipeline.dataset(host, start_step=1)))
    assert {n: (t.shape, t.dtype) for n, t in batch.items()} == {
        n: (spec.shape, spec.dtype) for n, spec in pipeline.element_spec(BATCH).items()
    }
    # Crops of files that are shipped to the device are rounded, which a policy may double.
    atol = 0.01 if pipeline.rounds_crops else 1e-6
    views, index = pipeline.with_views(batch), batch["index"]
    number = 0
    for group in GROUPS:
        for place_in_group, policy in enumerate(group.augmentations):
            keys = random_keys.example_keys(SEED, tf.zeros([BATCH], tf.int64), index, number)
            crops = policy.crop(tf.gather(IMAGES, index), keys, group.size)
            rows = slice(place_in_group * BATCH, (place_in_group + 1) * BATCH)
            np.testing.assert_allclose(views[group.name][rows], policy(crops, keys), atol=atol)
            number += 1


def test_a_picture_shows_the_views_of_all_groups(source, tmp_path):
    pipeline = ViewsPipeline(source=source, groups=GROUPS, seed=SEED, bad_images=BadImages(source))
    found = figures.first_views(pipeline, count=4)
    assert [group.shape for group in found] == [(4, 2, 16, 16, 3), (4, 3, 8, 8, 3)]
    assert tf.io.gfile.exists(figures.views(str(tmp_path), found))
