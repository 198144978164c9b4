"""If this breaks, copies reach training, or pictures that are none are left out."""

import io

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from simclr_tf.prepare import duplicates, signature, splits
from tests.support.scenes import file_of, scene


def find(images, digests=None):
    thumbnails = [signature.thumbnail_of(image) for image in images]
    return duplicates.find(
        digests or [str(n) for n in range(len(images))],
        [signature.hashes_of(image) for image in images],
        thumbnails.__getitem__,
    )


def again(image, **settings):
    return Image.open(io.BytesIO(file_of(image, "JPEG", **settings))).convert("RGB")


def test_copies_of_a_picture_are_found_and_others_are_not():
    images = [scene(n, (160, 120)) for n in range(30)]
    copies = [
        again(images[0], quality=30),
        images[1].resize((80, 60), Image.Resampling.BICUBIC),
        ImageEnhance.Brightness(images[2]).enhance(1.05),
        again(images[3].resize((200, 150)), quality=80),
    ]
    found = find(images + copies)
    assert {n: copy.kept for n, copy in found.copies.items()} == {30: 0, 31: 1, 32: 2, 33: 3}
    assert {copy.kind for copy in found.copies.values()} == {"near"}


def test_equal_files_are_exact_copies_of_the_picture_that_is_kept():
    near = again(scene(0, (160, 120)), quality=40)
    images = [scene(0, (160, 120)), scene(1), near, scene(1), near]
    found = find(images, ["a", "b", "c", "b", "c"])
    assert found.copies == {
        2: duplicates.Copy(0, "near"),
        3: duplicates.Copy(1, "exact"),
        4: duplicates.Copy(0, "near"),
    }


def test_pictures_of_one_colour_are_told_apart_by_it():
    images = [Image.new("RGB", (40, 40), colour) for colour in ("black", "white", "red", "black")]
    assert set(find(images).copies) == {3}


def test_textures_that_look_alike_from_afar_are_no_copies():
    rng = np.random.default_rng(0)
    images = [
        Image.fromarray(rng.integers(96, 160, (64, 64, 3), dtype=np.uint8)) for _ in range(40)
    ]
    assert not find(images).copies


def test_pictures_that_share_a_copy_are_one_group():
    """C is near A and near B, which are not near each other."""
    digests = ["a", "b", "c", "d"]
    thumbnails = [np.full((16, 16, 3), level, np.uint8).tobytes() for level in (90, 130, 110, 200)]
    found = duplicates.find(digests, [(0, 0)] * 4, thumbnails.__getitem__)
    assert set(found.copies) == {2}
    assert found.group_of == {0: 0, 1: 0, 3: 3}


def test_time_does_not_grow_with_the_square_for_many_copies():
    thumbnails = [bytes(768)] * 5000
    asked = []

    def thumbnail(n):
        asked.append(n)
        return thumbnails[n]

    found = duplicates.find([str(n) for n in range(5000)], [(0, 0)] * 5000, thumbnail)
    assert len(found.copies) == 4999 and len(asked) < 10_001


@pytest.mark.parametrize("percent", [0, 10, 30])
def test_the_test_split_takes_the_same_share_of_each_class_and_whole_groups(percent):
    paths = [f"{n}.jpg" for n in range(200)]
    classes = ["cat" if n < 150 else "dog" for n in range(200)]
    group_of = {n: n - n % 2 for n in range(200)}
    drawn = splits.test_split(paths, classes, group_of, percent, seed=0)
    for name, count in (("cat", 150), ("dog", 50)):
        mine = [n for n in drawn if classes[n] == name]
        assert 0 <= len(mine) - round(count * percent / 100) <= 1
    assert all((n ^ 1) in drawn for n in drawn)
    assert drawn == splits.test_split(paths, classes, group_of, percent, seed=0)
    if percent:
        assert drawn != splits.test_split(paths, classes, group_of, percent, seed=1)


def test_a_small_class_is_in_both_splits_and_one_image_is_trained_on():
    classes = ["few", "few", "few", "one"]
    drawn = splits.test_split(list("abcd"), classes, {n: n for n in range(4)}, 10, seed=0)
    assert len(drawn) == 1 and drawn < {0, 1, 2}
