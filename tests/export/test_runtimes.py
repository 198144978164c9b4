"""If this breaks, programs that are not ours (servers, tf-keras, other runtimes) cannot use it."""

import json
import os
import sys

import numpy as np
import pytest

CLI = os.path.join(os.path.dirname(sys.executable), "saved_model_cli")


@pytest.fixture
def images_file(exported, tmp_path):
    path = str(tmp_path / "images.npy")
    np.save(path, exported.images)
    return path


def test_the_eager_loader(exported, run_elsewhere, images_file):
    output = run_elsewhere(f"""
        import json, numpy as np, tensorflow as tf
        loaded = tf.saved_model.load({exported.folder!r})
        print(json.dumps(loaded(np.load({images_file!r})).numpy().tolist()))
    """)
    found = np.array(json.loads(output.splitlines()[-1]))
    np.testing.assert_allclose(found, exported.representation, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_the_session_loader_that_servers_use(exported, run_elsewhere, images_file):
    """By names alone: tag and signature, and several requests to one session, one of them bad."""
    output = run_elsewhere(f"""
        import json, numpy as np, tensorflow as tf
        v1 = tf.compat.v1
        images = np.load({images_file!r})
        encoded = [tf.io.encode_png((i * 255).astype(np.uint8)).numpy() for i in images]
        with v1.Session(graph=tf.Graph()) as session:
            graph = v1.saved_model.load(session, ["serve"], {exported.folder!r})
            def serve(name, value):
                signature = graph.signature_def[name]
                assert signature.method_name == "tensorflow/serving/predict"
                [key] = signature.inputs.values()
                outputs = {{k: t.name for k, t in signature.outputs.items()}}
                return session.run(outputs, {{key.name: value}})
            h = serve("serving_default", images)["representation"]
            try:
                serve("encode_jpeg", encoded + [b"no image"])
                raise AssertionError("a bad image was taken")
            except tf.errors.InvalidArgumentError:
                pass
            h_bytes = serve("encode_jpeg", encoded)["representation"]
            h_cut = serve("serving_default", np.floor(images * 255) / 255)["representation"]
            z = serve("project", images)["projection"]
            classes = serve("classify", images)
            named = serve("endpoints", images)
        print(json.dumps([a.tolist() for a in (h, h_bytes, h_cut, z, classes["logits"],
                                               named["final_avg_pool"], named["projection_2"])]))
    """)
    h, h_bytes, h_cut, z, logits, pooled, projected = map(
        np.array, json.loads(output.splitlines()[-1])
    )
    expected = exported.representation
    head = exported.networks["projection_head"](expected, training=False)["projection_2"]
    classifier = exported.networks["classifier"](expected, training=False)
    for found, wanted in (
        (h, expected),
        (pooled, expected),
        (h_bytes, h_cut),
        (z, head),
        (projected, head),
        (logits, classifier),
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_saved_model_cli_shows_and_runs_it(exported, run_elsewhere, images_file, tmp_path):

    def cli(*arguments):
        return run_elsewhere(f"""
            import runpy
            sys.argv = [{CLI!r}, *{arguments!r}]
            runpy.run_path({CLI!r}, run_name="__main__")
        """)

    shown = cli("show", "--dir", exported.folder, "--all")
    for name in ("serving_default", "encode_jpeg", "endpoints", "project", "classify"):
        assert f"signature_def['{name}']" in shown
    serve = ("--dir", exported.folder, "--tag_set", "serve", "--signature_def", "serving_default")
    cli("run", *serve, "--inputs", f"images={images_file}", "--outdir", str(tmp_path / "out"))
    found = np.load(tmp_path / "out/representation.npy")
    np.testing.assert_allclose(found, exported.representation, rtol=1e-5, atol=1e-6)


def test_a_runtime_that_is_not_tensorflow(exported):
    """OpenVINO reads the graph itself, with other kernels behind it."""
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    model = core.compile_model(exported.folder, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    [found] = model(exported.images).values()
    np.testing.assert_allclose(found, exported.representation, atol=1e-4)
    other = np.random.default_rng(1).random((2, 24, 18, 3)).astype(np.float32)
    [found] = model(other).values()
    expected = exported.networks["encoder"](other, training=False)["final_avg_pool"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.slow
def test_a_hub_layer_of_tf_keras_trains_it(exported, run_elsewhere, images_file):
    """fit moves every variable; inference moves none, and neither does fit of a frozen layer."""
    pytest.importorskip("tensorflow_hub")
    pytest.importorskip("tf_keras")
    output = run_elsewhere(f"""
        import json, numpy as np, tensorflow_hub as hub, tf_keras
        layer = hub.KerasLayer({exported.folder!r}, trainable=True)
        images = np.load({images_file!r})
        model = tf_keras.Sequential([layer, tf_keras.layers.Dense(3)])
        model.compile(tf_keras.optimizers.SGD(0.1), "mse")
        before = [v.numpy() for v in layer.variables]
        h = layer(images).numpy()
        kept = all(np.array_equal(v, b) for v, b in zip(layer.variables, before))
        model.fit(images, np.eye(3, dtype="float32")[[0, 1, 2, 0]], epochs=3, verbose=0)
        moved = [not np.array_equal(v, b) for v, b in zip(layer.variables, before)]
        frozen = hub.KerasLayer({exported.folder!r}, trainable=False)
        model = tf_keras.Sequential([frozen, tf_keras.layers.Dense(3)])
        model.compile(tf_keras.optimizers.SGD(0.1), "mse")
        model.fit(images, np.eye(3, dtype="float32")[[0, 1, 2, 0]], verbose=0)
        kept &= all(np.array_equal(v, b) for v, b in zip(frozen.variables, before))
        counts = [len(layer.variables), len(layer.trainable_variables)]
        print(json.dumps([h.tolist(), kept, sum(moved), *counts]))
    """)
    h, kept, moved, variables, trainable = json.loads(output.splitlines()[-1])
    encoder = exported.networks["encoder"]
    np.testing.assert_allclose(h, exported.representation, rtol=1e-5, atol=1e-6)
    assert kept
    assert moved == variables == len(encoder.variables)
    assert trainable == len(encoder.trainable_variables)
