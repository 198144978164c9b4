"""If this breaks, a SavedModel cannot be read back: evaluated, fine-tuned in Keras, or refused."""

import json
import os
import shutil
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.batch_norm import SyncBatchNormalization
from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.errors import RequestError
from simclr_tf.export import load_encoder
from simclr_tf.export.loading import read_metadata, read_weights
from simclr_tf.export.saved_model import export_networks
from simclr_tf.models.packing import Conv2D
from simclr_tf.models.remat import Remat


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported.folder, tmp_path / "copy")


def test_the_weights_are_those_of_the_networks_by_path(exported):
    weights = read_weights(exported.folder)
    assert list(weights) == ["encoder", "projection_head", "classifier"]
    for name, network in exported.networks.items():
        assert set(weights[name]) == {v.path for v in network.variables}
        for variable in network.variables:
            np.testing.assert_array_equal(weights[name][variable.path], variable.numpy())


def test_a_folder_of_any_name_is_read(exported, tmp_path):
    copy = str(shutil.copytree(exported.folder, tmp_path / "[1] \\a*?%s"))
    assert read_weights(copy).keys() == read_weights(exported.folder).keys()


def test_a_fine_tuned_copy_s_weights_are_read_in_the_same_way(exported, tmp_path):
    """Saved again by TensorFlow alone, with the files beside it carried over."""
    loaded = tf.saved_model.load(exported.folder)
    loaded.networks["encoder"].weights["stem_bn/beta"].assign_add(tf.ones([8]))
    again = str(tmp_path / "again")
    tf.saved_model.save(loaded, again, signatures=loaded.signatures)
    with pytest.raises(RequestError, match=r"copy assets\.extra from the model"):
        read_weights(again)
    shutil.copytree(f"{exported.folder}/assets.extra", f"{again}/assets.extra")
    before, after = read_weights(exported.folder), read_weights(again)
    moved = after["encoder"].pop("stem_bn/beta") - before["encoder"].pop("stem_bn/beta")
    np.testing.assert_allclose(moved, 1.0, rtol=1e-6)
    for name, values in before.items():
        assert set(after[name]) == set(values)
        for path, value in values.items():
            np.testing.assert_array_equal(after[name][path], value)


def test_what_is_no_savedmodel_of_ours_is_refused(exported, copy, tmp_path):
    with pytest.raises(RequestError, match=r"holds no saved_model\.pb"):
        read_metadata(str(tmp_path / "nothing"))
    foreign = str(tmp_path / "foreign")
    tf.saved_model.save(tf.Module(), foreign)
    for read in (read_metadata, read_weights, load_encoder):
        with pytest.raises(RequestError, match=r"one that simclr_tf exported.*foreign"):
            read(foreign)
    assert read_metadata(str(copy)) == read_metadata(exported.folder)


@pytest.mark.parametrize("damage", ["index", "data", "short data", "a network"])
def test_an_incomplete_savedmodel_is_refused(copy, damage):
    data = copy / "variables/variables.data-00000-of-00001"
    if damage == "index":
        (copy / "variables/variables.index").unlink()
    elif damage == "data":
        data.unlink()
    elif damage == "short data":
        os.truncate(data, data.stat().st_size // 2)
    else:
        metadata = copy / "assets.extra/metadata.json"
        content = json.loads(metadata.read_text())
        metadata.write_text(json.dumps(content | {"networks": ["encoder", "another"]}))
    with pytest.raises(RequestError, match="must be complete"):
        read_weights(str(copy))


def test_the_encoder_is_a_keras_layer_with_the_same_numbers(exported):
    encoder = load_encoder(exported.folder)
    assert isinstance(encoder, keras.layers.Layer)
    network = exported.networks["encoder"]
    assert [v.path for v in encoder.weights] == [v.path for v in network.weights]
    assert len(encoder.trainable_weights) == len(network.trainable_weights)
    assert [layer.name for layer in encoder.layers if isinstance(layer, Remat)] == [
        "block_group2_remat"
    ]
    h = encoder(exported.images)
    np.testing.assert_allclose(h, exported.representation, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("trainable", [True, False])
def test_statistics_move_with_training_alone(exported, trainable):
    encoder = load_encoder(exported.folder, trainable=trainable)
    assert bool(encoder.trainable_weights) is trainable
    statistics = [v for v in encoder.variables if "moving" in v.path]
    before = [v.numpy() for v in statistics]
    encoder(exported.images, training=False)
    assert all(np.array_equal(v, b) for v, b in zip(statistics, before, strict=True))
    encoder(exported.images, training=True)
    moved = [not np.array_equal(v, b) for v, b in zip(statistics, before, strict=True)]
    assert all(moved) if trainable else not any(moved)


def test_an_architecture_that_is_not_known_here_is_refused(copy):
    (copy / "assets.extra/encoder.json").write_text('{"class_name": "Mine", "config": {}}')
    with pytest.raises(RequestError, match="Layers of your own must be imported"):
        load_encoder(str(copy))


def test_what_a_newer_keras_knows_and_leaves_open_is_passed_over(exported, copy):
    """An argument of None that this version's layers and initializers do not have."""
    path = copy / "assets.extra/encoder.json"

    def add(part):
        if str(part.get("module")).startswith("keras."):
            part["config"]["argument_of_a_later_version"] = None
        return part

    text = path.read_text()
    path.write_text(json.dumps(json.loads(text, object_hook=add)))
    assert path.read_text().count("argument_of_a_later_version") > 50
    encoder = load_encoder(str(copy))
    np.testing.assert_allclose(
        encoder(exported.images), exported.representation, rtol=1e-5, atol=1e-6
    )
    path.write_text(path.read_text().replace('later_version": null', 'later_version": 3'))
    with pytest.raises(RequestError, match="architecture must be readable"):
        load_encoder(str(copy))


def fit(folder, strategy):
    """Weights and losses after two epochs of fine-tuning by Keras on random images."""
    rng = np.random.default_rng(0)
    images = rng.random((16, 16, 16, 3)).astype(np.float32)
    labels = np.arange(16) % 3
    with strategy.scope():
        encoder = load_encoder(folder)
        logits = keras.layers.Dense(3, kernel_initializer="zeros")(encoder.output)
        model = keras.Model(encoder.input, logits)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.SGD(0.1), loss)
    before = [v.numpy() for v in model.variables]
    history = model.fit(images, labels, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return before, [v.numpy() for v in model.variables], history.history["loss"]


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory):
    """A SavedModel of a network that two replicas can train within seconds."""

    def build():
        images = keras.Input((None, None, 3), name="images")
        x = SyncBatchNormalization(name="bn1")(Conv2D(8, 3, 2, name="conv1")(images))
        x = SyncBatchNormalization(name="bn2")(Conv2D(8, 3, 1, name="conv2")(keras.ops.relu(x)))
        h = keras.layers.GlobalAveragePooling2D(name="final_avg_pool")(keras.ops.relu(x))
        return {"encoder": keras.Model(images, {"final_avg_pool": h})}

    folder = str(tmp_path_factory.mktemp("two_layers"))
    return export_networks(folder, 1, build(), build, image_size=16, recipe="")


@pytest.mark.slow
def test_fit_on_two_replicas_is_fit_on_one_device(two_layers):
    """Every variable is reached, and batch normalization sees the batches of all replicas."""
    before, single, losses = fit(two_layers, tf.distribute.get_strategy())
    assert all(not np.array_equal(a, b) for a, b in zip(before, single, strict=True))
    _, double, losses_of_two = fit(two_layers, simulated_replicas(2))
    np.testing.assert_allclose(losses_of_two, losses, rtol=1e-4)
    for one, two, start in zip(single, double, before, strict=True):
        step = np.abs(one - start).max()
        np.testing.assert_allclose(two - start, one - start, atol=1e-2 * step + 1e-7)


@pytest.mark.slow
def test_a_model_on_the_encoder_is_saved_and_loaded_by_keras(exported, tmp_path):
    encoder = load_encoder(exported.folder)
    model = keras.Sequential([encoder, keras.layers.Dense(3)])
    expected = model(exported.images)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(exported.images), expected, rtol=1e-6)


def test_importing_the_package_of_exports_is_light(run_elsewhere):
    root = os.path.dirname(os.path.dirname(sys.modules["simclr_tf"].__file__))
    program = (
        f"import sys; sys.path.insert(0, {root!r})\n"
        "import simclr_tf.export\nprint('tensorflow' in sys.modules)"
    )
    assert run_elsewhere(command=[sys.executable, "-c", program]).strip() == "False"
