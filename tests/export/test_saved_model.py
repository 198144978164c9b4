"""If this breaks, what a run leaves behind cannot be served, or cannot be fine-tuned elsewhere."""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.export.saved_model import export_encoder
from simclr_tf.models.resnet import resnet

SIZE = 16


def build():
    return resnet(18, 0.125, image_size=SIZE)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A SavedModel of an encoder on two replicas, none of whose weights is an initial one."""
    with simulated_replicas(2).scope():
        encoder = build()
    rng = np.random.default_rng(0)
    for variable in encoder.variables:
        variable.assign(np.abs(variable.numpy() + rng.normal(0, 0.1, variable.shape)) + 0.01)
    folder = export_encoder(
        str(tmp_path_factory.mktemp("run")), 7, encoder, build, recipe="run.job = 'pretrain'\n"
    )
    images = rng.random((4, SIZE, SIZE, 3)).astype(np.float32)
    return folder, encoder, images


def test_it_lies_under_its_step_with_its_recipe(exported):
    folder, _, _ = exported
    assert folder.endswith("saved_model/7")
    with open(f"{folder}/assets.extra/config.gin") as file:
        assert file.read() == "run.job = 'pretrain'\n"


def test_it_gives_the_encoder_s_representation(exported):
    folder, encoder, images = exported
    loaded = tf.saved_model.load(folder)
    expected = encoder(images, training=False)["final_avg_pool"]
    np.testing.assert_allclose(loaded(images), expected, rtol=1e-5, atol=1e-6)
    served = loaded.signatures["serving_default"](images=tf.constant(images))
    np.testing.assert_allclose(served["representation"], expected, rtol=1e-5, atol=1e-6)
    assert loaded(images[:1, :12, :14]).shape == (1, expected.shape[1])


def test_it_loads_without_this_package(exported):
    """In a process that cannot import simclr_tf or keras' own loaders."""
    folder, encoder, images = exported
    program = f"""
        import json, sys
        sys.modules["simclr_tf"] = None
        import numpy as np, tensorflow as tf
        loaded = tf.saved_model.load({folder!r})
        images = np.array({images.tolist()}, np.float32)
        print(json.dumps(loaded(images).numpy().tolist()))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    expected = encoder(images, training=False)["final_avg_pool"]
    found = np.array(json.loads(done.stdout.splitlines()[-1]))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_fine_tuning_reaches_every_variable(exported):
    """As a TF-Hub layer does it: gradients to all trainable variables, moving averages move."""
    folder, encoder, images = exported
    loaded = tf.saved_model.load(folder)
    assert len(loaded.variables) == len(encoder.variables)
    assert len(loaded.trainable_variables) == len(encoder.trainable_variables)
    assert list(loaded.regularization_losses) == []
    before = {id(v): v.numpy() for v in loaded.variables}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded(images, training=True) ** 2)
    gradients = tape.gradient(loss, loaded.trainable_variables)
    assert all(g is not None for g in gradients)
    for variable, gradient in zip(loaded.trainable_variables, gradients, strict=True):
        variable.assign_sub(0.1 * gradient + 1e-3)
    assert all(not np.array_equal(v.numpy(), before[id(v)]) for v in loaded.variables)


def test_inference_moves_nothing(exported):
    folder, _, images = exported
    loaded = tf.saved_model.load(folder)
    before = [v.numpy() for v in loaded.variables]
    loaded(images, training=False)
    for variable, value in zip(loaded.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_the_graph_holds_no_collective(exported):
    """The encoder was replicated; its SavedModel runs on one device anywhere."""
    folder, _, _ = exported
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta_graph = tf.compat.v1.saved_model.load(session, ["serve"], folder)
    functions = meta_graph.graph_def.library.function
    ops = {node.op for function in functions for node in function.node_def}
    assert "Conv2D" in ops
    assert not {o for o in ops if "Collective" in o or "CrossReplica" in o or "Nccl" in o}
