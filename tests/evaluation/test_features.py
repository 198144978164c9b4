"""If this breaks, published accuracies are wrong: examples lost, encoder moved, features stale."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from simclr_tf.data.folder_source import open_folder
from simclr_tf.data.source import ArraySource
from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.errors import RequestError
from simclr_tf.evaluation import features as features_module
from simclr_tf.evaluation.features import FrozenEncoder, Transform
from simclr_tf.models.heads import projection_head
from simclr_tf.models.resnet import resnet
from tests.support.fake_tpu import fake_tpu_strategy, faults, ops_on_tpu
from tests.support.small_resnet import SMALL_DEPTH

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 16, 16, 3), np.uint8)
SOURCE = ArraySource(
    name="arrays",
    num_examples=11,
    class_names=["a", "b"],
    images=IMAGES,
    labels=np.arange(11) % 2,
)


def build_networks():
    return resnet(SMALL_DEPTH, 0.125, image_size=16), projection_head(output_dim=8, input_dim=64)


@pytest.fixture(scope="module")
def networks():
    return build_networks()


def frozen(networks, cache_dir=None):
    cache_dir = None if cache_dir is None else str(cache_dir)
    return FrozenEncoder(*networks, image_size=16, cache_dir=cache_dir)


def weights(networks):
    return [value for network in networks for value in network.get_weights()]


@settings(max_examples=6, deadline=None)
@given(batch_size=st.integers(1, 13))
def test_every_image_once_and_nothing_moves_whatever_the_batch(networks, batch_size):
    before = weights(networks)
    layers = ("representation", "projection_1", "projection")
    found = frozen(networks).features(SOURCE, layers, batch_size=batch_size)
    h = networks[0](IMAGES.astype(np.float32) / 255, training=False)["final_avg_pool"]
    z = networks[1](h, training=False)
    for layer, expected in zip(layers, (h, z["projection_1"], z["projection_2"]), strict=True):
        np.testing.assert_allclose(found[layer].values, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(found[layer].labels, SOURCE.labels)
        np.testing.assert_array_equal(found[layer].index, np.arange(11))
    for old, new in zip(before, weights(networks), strict=True):
        np.testing.assert_array_equal(old, new)


def test_kept_features_are_read_and_not_computed_again(networks, tmp_path, monkeypatch):
    first = frozen(networks, tmp_path).features(SOURCE)["representation"]
    monkeypatch.setattr(features_module, "plain_images", None)  # computing would fail
    second = frozen(networks, tmp_path).features(SOURCE)["representation"]
    for field in dataclasses.fields(first):
        np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))


@pytest.mark.parametrize("change", ["weights", "image", "label", "layer", "transform"])
def test_whatever_matters_has_features_of_its_own(networks, tmp_path, change):
    encoder = frozen(networks, tmp_path)
    before = encoder.features(SOURCE)["representation"]
    source, layer, transform = SOURCE, "representation", None
    if change == "weights":
        gamma = networks[0].get_layer("block_group4_block1_bn2").gamma
        gamma.assign_add(np.ones(64))
    elif change == "image":
        images = IMAGES.copy()
        images[3] ^= 255
        source = dataclasses.replace(SOURCE, images=images)
    elif change == "label":
        source = dataclasses.replace(SOURCE, labels=1 - SOURCE.labels)
    elif change == "layer":
        layer = "projection"
    else:
        transform = Transform("mirrored", lambda images, index: images[:, :, ::-1])
    after = encoder.features(source, (layer,), transform=transform)[layer]
    same_values = np.array_equal(before.values, after.values)
    assert not (same_values and np.array_equal(before.labels, after.labels))


def test_a_file_that_changed_is_read_again(networks, tmp_path):
    photos, cache = tmp_path / "photos", tmp_path / "features"
    photos.mkdir()
    for i, pixels in enumerate(IMAGES[:3]):
        (photos / f"{i}.png").write_bytes(tf.io.encode_png(pixels).numpy())
    encoder = frozen(networks, cache)
    before = encoder.features(open_folder(str(photos), "train"))["representation"].values
    (photos / "1.png").write_bytes(tf.io.encode_png(IMAGES[7]).numpy())
    after = encoder.features(open_folder(str(photos), "train"))["representation"].values
    same = [np.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(before, after, strict=True)]
    assert same == [True, False, True]


def test_an_encoder_that_moves_stops_the_evaluation(networks, tmp_path):
    """A network that is not frozen, as no test of numbers would notice."""

    def moving(images, index):
        networks[0].get_layer("stem_bn").beta.value.assign_add(tf.ones(8))
        return images

    with pytest.raises(RuntimeError, match="must not change"):
        frozen(networks, tmp_path).features(SOURCE, transform=Transform("moving", moving))
    assert not list(tmp_path.iterdir())


def test_a_layer_that_is_not_there_is_refused(networks):
    with pytest.raises(RequestError, match="must be one of representation"):
        frozen(networks).features(SOURCE, ("projection_7",))


def replicated(networks, strategy):
    """The same networks, built in the scope of `strategy`."""
    with strategy.scope():
        copies = (
            resnet(SMALL_DEPTH, 0.125, image_size=16),
            projection_head(output_dim=8, input_dim=64),
        )
    for copy, network in zip(copies, networks, strict=True):
        copy.set_weights(network.get_weights())
    return FrozenEncoder(*copies, image_size=16, strategy=strategy)


@pytest.fixture
def pictures(tmp_path):
    """The images as files, of which the sixth and the seventh do not decode."""
    for i, pixels in enumerate(IMAGES):
        content = b"no picture" if i in (5, 6) else tf.io.encode_png(pixels).numpy()
        (tmp_path / f"{i:02d}.png").write_bytes(content)
    return open_folder(str(tmp_path), "train")


@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_give_the_features_of_one_device(networks, pictures, replicas, monkeypatch):
    monkeypatch.setattr("simclr_tf.data.bad_images.BadImages.check", lambda self: None)
    encoder = replicated(networks, simulated_replicas(replicas))
    brighter = Transform("brighter", lambda images, index: tf.clip_by_value(images * 1.5, 0, 1))
    good = [0, 1, 2, 3, 4, 7, 8, 9, 10]
    layers = ("representation", "projection")
    for source, rows, batch_size, transform in (
        (SOURCE, list(range(11)), 4, brighter),
        (SOURCE, list(range(11)), 256, None),
        (pictures, good, 3, None),
    ):
        asked = {"transform": transform, "batch_size": batch_size}
        one = frozen(networks).features(source, layers, **asked)
        several = encoder.features(source, layers, **asked)
        for layer in layers:
            np.testing.assert_array_equal(several[layer].index, rows)
            np.testing.assert_array_equal(several[layer].labels, one[layer].labels)
            np.testing.assert_allclose(several[layer].values, one[layer].values, atol=1e-6)


def test_every_replica_takes_its_part(networks, monkeypatch):
    """Each batch once, and not once a replica."""
    encoder = replicated(networks, simulated_replicas(4))
    sizes = []
    embed = encoder._function(("representation",))

    def counted(shares):
        sizes.append([len(s) for s in encoder._strategy.experimental_local_results(shares)])
        return embed(shares)

    monkeypatch.setattr(encoder, "_function", lambda layers: counted)
    encoder.features(SOURCE, batch_size=6)
    assert sizes == [[2, 2, 2, 2]] * 2


def test_kept_features_are_known_whatever_computed_them(networks):
    encoder = replicated(networks, simulated_replicas(2))
    assert encoder.fingerprint() == frozen(networks).fingerprint()


def test_matrix_products_have_whole_precision(networks):
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    seen = []

    def look(images, index):
        seen.append(enabled())
        return images

    assert enabled()
    frozen(networks).features(SOURCE, transform=Transform("look", look))
    assert seen == [False] and enabled()


@pytest.mark.slow
def test_a_tpu_is_given_what_it_can_run(networks):
    """Under the real TPUStrategy over made-up cores, whose program is traced and not run."""
    encoder = replicated(networks, fake_tpu_strategy(4))
    assert encoder.fingerprint() == frozen(networks).fingerprint()
    embed = encoder._function(("representation", "projection"))
    graph = embed.get_concrete_function(tf.TensorSpec([2, 16, 16, 3])).graph
    ops = ops_on_tpu(graph)
    assert "Conv2D" in {op.type for op in ops}
    assert not [fault for op in ops for fault in faults(op)]
