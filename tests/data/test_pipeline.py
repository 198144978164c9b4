"""If this breaks, runs see other images than they should: repeated, missing, irreproducible."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment.policy import augmentation
from simclr_tf.data import folder_source, image_views, tfrecord_source
from simclr_tf.data import pipeline as pipeline_module
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.order import Order
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.plain_images import plain_images
from simclr_tf.data.read_errors import is_read_error
from simclr_tf.data.source import ArraySource
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.errors import RequestError
from tests.data.conftest import write_photos, write_records
from tests.support.views import pairs

POLICY = (("flip", 0.5), ("color_jitter", 0.8, 0.5))
ONE_HOST = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=4)


def array_source(count=10, size=16):
    rng = np.random.default_rng(0)
    return ArraySource(
        name="arrays",
        num_examples=count,
        class_names=[str(i) for i in range(count)],
        images=rng.integers(0, 256, (count, size, size, 3), np.uint8),
        labels=np.arange(count),
    )


def pipeline(source, seed=3, **kwargs):
    return ViewsPipeline(
        source=source,
        groups=pairs(augmentation(policy=POLICY), 12),
        seed=seed,
        bad_images=kwargs.pop("bad_images", BadImages(source)),
        **kwargs,
    )


def batches(source, count, host=ONE_HOST, start_step=0, **kwargs):
    dataset = pipeline(source, **kwargs).dataset(host, start_step)
    return list(dataset.take(count).as_numpy_iterator())


SOURCES = ("array", "folder", "records", "one record file")


@pytest.fixture(scope="module")
def open_source(tmp_path_factory):
    """Opens the source of a kind; its files are the same for all tests, which leave them alone."""

    @functools.cache
    def opened(kind):
        if kind == "array":
            return array_source()
        folder = tmp_path_factory.mktemp(kind.replace(" ", "_"))
        if kind == "folder":
            return folder_source.open_folder(str(write_photos(folder / "photos")), "train")
        counts = (5, 4, 3) if kind == "records" else (12,)
        return tfrecord_source.open_tfrecord(write_records(folder, *counts))

    return opened


@pytest.fixture(scope="module")
def first_batches(open_source):
    """Reads the first 8 batches of a kind of source, 32 images, once for all tests."""
    return functools.cache(lambda kind: batches(open_source(kind), 8))


@pytest.fixture(params=SOURCES)
def kind(request):
    return request.param


@pytest.fixture
def source(kind, open_source):
    return open_source(kind)


@pytest.fixture
def whole(kind, first_batches):
    return first_batches(kind)


def test_batches_are_pairs_of_views_in_range(whole):
    batch = whole[0]
    assert batch["images"].shape == (8, 12, 12, 3) and batch["images"].dtype == np.float32
    assert batch["images"].min() >= 0 and batch["images"].max() <= 1
    assert batch["labels"].shape == batch["index"].shape == (4,)
    differing = np.abs(batch["images"][:4] - batch["images"][4:]).mean(axis=(1, 2, 3))
    assert (differing > 1e-3).all()


def test_what_is_lowered_is_what_is_fed(source, whole):
    """The static shapes for which preflight compiles the step."""
    built = pipeline(source)
    spec = built.element_spec(per_replica=4)
    assert built.dataset(ONE_HOST).element_spec.keys() == spec.keys()
    for name, value in whole[0].items():
        static = (tuple(spec[name].shape), spec[name].dtype.as_numpy_dtype)
        assert (value.shape, value.dtype) == static, name


@pytest.mark.parametrize(
    ("kind", "augment_on"), zip(SOURCES, ("device", "host", "device", "host"), strict=True)
)
def test_plain_images_come_beside_the_same_views(open_source, first_batches, kind, augment_on):
    """In the order of the run; 4 of them over all replicas, whatever the batch."""
    source = open_source(kind)
    hosts = [HostSlice(index=0, num_hosts=1, replicas=r, per_replica=4 // r) for r in (1, 2)]
    found = []
    for host in hosts:
        built = pipeline(source, augment_on=augment_on, plain_images=4)
        dataset = built.dataset(host)
        assert built.element_spec(host.per_replica, host.replicas) == dataset.element_spec
        found.append(list(dataset.take(2 * host.replicas).as_numpy_iterator()))
    on_host = augment_on == "host"
    without = first_batches(kind)[:2] if on_host else batches(source, 2, augment_on=augment_on)
    for batch, expected in zip(found[0], without, strict=True):
        for name, value in expected.items():
            np.testing.assert_array_equal(batch[name], value, err_msg=name)
    for name in ("plain_images", "plain_labels"):
        one, two = (np.concatenate([batch[name] for batch in all]) for all in found)
        np.testing.assert_array_equal(one, two, err_msg=name)
    if source.in_memory:
        np.testing.assert_array_equal(one, np.concatenate([batch["labels"] for batch in without]))


def test_plain_images_are_those_of_the_evaluation():
    """Where images of the requested size are used whole."""
    source = array_source(count=6, size=12)
    [batch] = batches(source, 1, plain_images=6)
    images, labels, _ = next(plain_images(source, 12, 6, BadImages(source)))
    for image, label in zip(batch["plain_images"], batch["plain_labels"], strict=True):
        [expected] = images[labels == label]
        np.testing.assert_allclose(image, expected, atol=1e-5)


def test_every_epoch_shows_every_image_once_in_another_order(source, whole):
    n = source.num_examples
    order = np.concatenate([b["index"] for b in whole])
    first, second = list(order[:n]), list(order[n : 2 * n])
    assert len(set(first)) == n and sorted(first) == sorted(second)
    assert first != second


def test_epochs_show_other_views_and_seeds_too():
    source = array_source()
    host = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=10)
    views = [b["images"][:10][np.argsort(b["index"])] for b in batches(source, 2, host)]
    views.append(batches(source, 1, host, seed=4)[0])
    views[2] = views[2]["images"][:10][np.argsort(views[2]["index"])]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert (np.abs(views[a] - views[b]).mean(axis=(1, 2, 3)) > 1e-3).all()


def test_going_on_at_a_step_gives_what_came_then(source, whole):
    start = 4  # within the second epoch
    [resumed] = batches(source, 1, start_step=start)
    for name, value in resumed.items():
        np.testing.assert_array_equal(value, whole[start][name], err_msg=name)


@pytest.mark.parametrize(("seed", "global_seed"), [(0, None), (0, 0), (3, 5)])
def test_the_global_seed_changes_nothing(record_files, seed, global_seed):
    """Which is the run's own from when its networks are built, and 0 by default."""
    source = tfrecord_source.open_tfrecord(record_files(6))
    found = []
    try:
        for value in (1, global_seed):
            tf.random.set_seed(value)
            found.append(numbers_read(source, 3, ONE_HOST, seed))
    finally:
        tf.random.set_seed(None)
    assert found[0] == found[1]


def test_parallelism_changes_nothing(source, whole, monkeypatch):
    monkeypatch.setattr(tf.data, "AUTOTUNE", 1)
    for a, b in zip(whole[:4], batches(source, 4), strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_augmenting_in_chunks_changes_nothing(monkeypatch):
    source = array_source()
    whole = batches(source, 4)
    monkeypatch.setattr(pipeline_module, "_chunk_size", lambda per_replica: 2)
    for a, b in zip(whole, batches(source, 4), strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.mark.parametrize(
    ("batch", "chunk"), [(4, 4), (256, 256), (512, 256), (600, 200), (257, 257)]
)
def test_chunks_divide_the_batch(batch, chunk):
    assert pipeline_module._chunk_size(batch) == chunk


def numbers_read(source, count, host, seed=3):
    """The numbers of the images of the first blocks of a host, in the order that it reads them."""
    if source.in_memory:
        return [i for b in batches(source, count, host, seed=seed) for i in b["index"]]
    blocks, opened = source.blocks(Order(seed=seed, host=host, shuffle_buffer=8192))
    asked = blocks.map(lambda *element: opened(*element).asked).take(count)
    return [int(i) for numbers in asked.as_numpy_iterator() for i in numbers]


def test_hosts_together_see_every_image_once(source):
    num_hosts = 3
    n = source.num_examples
    parts = []
    for index in range(num_hosts):
        host = HostSlice(index=index, num_hosts=num_hosts, replicas=1, per_replica=1)
        # An epoch of record files is a host's own shard; of the others, every num_hosts-th image.
        parts.append(numbers_read(source, n, host))
    if isinstance(source, ArraySource) or hasattr(source, "paths"):
        together = [i for step in zip(*parts, strict=True) for i in step][:n]
        assert sorted(together) == list(range(n))
    else:
        shards = [set(p) for p in parts]
        assert sum(map(len, shards)) == n == len(set().union(*shards))


def test_the_number_of_hosts_does_not_change_the_global_batch():
    source = array_source()
    whole = batches(source, 3)
    for index in range(2):
        host = HostSlice(index=index, num_hosts=2, replicas=2, per_replica=1)
        rows = [b["index"][0] for b in batches(source, 6, host)]
        expected = [i for b in whole for i in b["index"][2 * index : 2 * index + 2]]
        assert rows == expected


def test_files_give_the_views_that_their_pixels_give(photos):
    """Decoding only the crop of a JPEG is the same as cropping the decoded image."""
    from_files = folder_source.open_folder(str(photos), "train")
    host = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=from_files.num_examples)
    batch = batches(from_files, 1, host)[0]
    views = dict(zip(batch["index"], batch["images"], strict=False))
    for i, path in enumerate(from_files.paths):
        pixels = tf.io.decode_image(tf.io.read_file(path), 3, expand_animations=False).numpy()
        alone = ArraySource(
            name="one", num_examples=1, class_names=None, images=pixels[None], labels=None
        )
        one = pipeline(alone)
        keys = _keys_of(one, i)
        policy = augmentation(policy=POLICY)
        crops = policy.crop(tf.constant(alone.images), keys, 12)
        np.testing.assert_allclose(views[i], policy(crops, keys)[0], atol=0.02)


def _keys_of(views_pipeline, index):
    from simclr_tf.augment.keys import example_keys

    zero = tf.zeros([1], tf.int64)
    return example_keys(views_pipeline.seed, zero, zero + index, 0)


def spoil(photos):
    (photos / "3.jpg").write_bytes((photos / "3.jpg").read_bytes()[:60])
    (photos / "misnamed.png").write_text("no picture at all")


def test_bad_files_are_replaced_and_counted(photos):
    spoil(photos)
    source = folder_source.open_folder(str(photos), "train")
    bad = BadImages(source, limit=0.5)
    host = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=source.num_examples)
    batch = batches(source, 1, host, bad_images=bad)[0]
    assert len(bad) == 2
    bad.check()
    names = {source.paths[i].rpartition("/")[2] for i in batch["index"]}
    assert not names & {"3.jpg", "misnamed.png"}
    assert len(names) == source.num_examples - 2


def test_a_source_without_one_good_image_ends_at_once(tmp_path):
    for i in range(12):
        (tmp_path / f"{i}.jpg").write_text("no picture at all")
    source = folder_source.open_folder(str(tmp_path), "train")
    bad = BadImages(source)
    with pytest.raises(RequestError, match="no other that was tried decodes"), bad.explained():
        batches(source, 1, bad_images=bad)


def without_kernel(dtype, shape):
    """What a function is on a host that has no XLA:CPU: an error when it runs."""
    name = "no transfer manager for platform Host"
    return lambda *_: lambda *_: tf.reshape(tf.io.decode_raw(tf.io.read_file(name), dtype), shape)


def test_what_is_wrong_with_the_program_is_no_bad_image(photos, monkeypatch):
    source = folder_source.open_folder(str(photos), "train")
    bad = BadImages(source)
    with monkeypatch.context() as patch:
        patch.setattr(image_views, "box_sampler", without_kernel(tf.int32, [2, 4]))
        with (
            pytest.raises(RequestError, match=r"decodes must load(.|\n)*no transfer manager"),
            bad.explained(),
        ):
            batches(source, 1, bad_images=bad)
    with monkeypatch.context() as patch:
        patch.setattr(image_views, "view_augmenter", without_kernel(tf.float32, [12, 12, 3]))
        with pytest.raises(tf.errors.OpError, match="no transfer manager"):
            batches(source, 1)
    assert len(bad) == 0


def test_what_is_gone_is_no_bad_image(photos):
    source = folder_source.open_folder(str(photos), "train")
    bad = BadImages(source)
    (photos / "3.jpg").unlink()
    with pytest.raises(tf.errors.NotFoundError, match=r"3\.jpg") as error, bad.explained():
        batches(source, 4, bad_images=bad)
    assert is_read_error(error.value) and len(bad) == 0
    with pytest.raises(RequestError, match=r"must be readable(.|\n)*3\.jpg"):
        list(plain_images(source, 12, 5, bad))


def test_too_many_bad_files_stop_with_their_names(photos):
    spoil(photos)
    source = folder_source.open_folder(str(photos), "train")
    bad = BadImages(source)
    batches(source, 4, bad_images=bad)
    with pytest.raises(RequestError, match=r"At most 1%(.|\n)*3\.jpg(.|\n)*misnamed\.png"):
        bad.check()


def test_bad_records_are_replaced_and_counted(record_files):
    spoilt = frozenset({1, 2, 3, 5, 6, 8})
    source = tfrecord_source.open_tfrecord(record_files(6, 6, bad=spoilt))
    host = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=6)
    bad = BadImages(source, limit=0.5)
    whole = batches(source, 4, host, bad_images=bad)
    assert len(bad) == len(spoilt)
    assert not spoilt & {int(label) for batch in whole for label in batch["labels"]}
    for start in (1, 3):  # what takes the place of a record is known then, too
        resumed = batches(source, 1, host, start, bad_images=bad)[0]
        for name, value in resumed.items():
            np.testing.assert_array_equal(value, whole[start][name], err_msg=name)


def test_plain_images_come_once_each_in_order_with_a_last_partial_batch(source):
    found = list(plain_images(source, 12, 5, BadImages(source)))
    sizes = [len(labels) for _, labels, _ in found]
    assert sum(sizes) == source.num_examples
    assert sizes[:-1] == [5] * (len(sizes) - 1) and 0 < sizes[-1] <= 5
    if source.num_classes:
        assert [int(i) for _, labels, _ in found for i in labels] == list(
            range(source.num_examples)
        )


def test_plain_images_skip_and_count_what_does_not_decode(photos):
    spoil(photos)
    source = folder_source.open_folder(str(photos), "train")
    bad = BadImages(source, limit=0.5)
    images = [image for image, _, _ in plain_images(source, 12, 5, bad)]
    assert sum(len(i) for i in images) == source.num_examples - 2 == 11
    assert len(bad) == 2


def test_small_images_of_the_asked_size_are_taken_whole(tmp_path):
    source = array_source(size=16)
    images, _, _ = next(iter(plain_images(source, 16, 10, BadImages(source))))
    np.testing.assert_allclose(images, source.images / 255, atol=1e-6)
    for i, pixels in enumerate(source.images):
        (tmp_path / f"{i}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    files = folder_source.open_folder(str(tmp_path), "train")
    images, _, _ = next(iter(plain_images(files, 16, 10, BadImages(files))))
    np.testing.assert_allclose(images, source.images / 255, atol=1e-6)
