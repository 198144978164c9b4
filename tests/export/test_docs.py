"""If this breaks, docs/finetuning.md or docs/serving.md shows a program that does not work."""

import base64
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def programs(document):
    """The Python blocks of a document by heading, those under one heading as one program."""
    sections = re.split(r"^## ", (ROOT / "docs" / document).read_text(), flags=re.MULTILINE)
    found = {s.splitlines()[0]: "\n".join(BLOCK.findall(s)) for s in sections}
    return {heading: program for heading, program in found.items() if program}


@pytest.fixture
def checkout(exported, tmp_path):
    """A working directory with a run in the place where the documents have one."""
    run = tmp_path / "runs/quickstart/saved_model"
    run.mkdir(parents=True)
    (run / "313").symlink_to(exported.folder)
    return tmp_path


def run_here(program, folder):
    """In a process that has the package, as from an installation."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=env,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def changed(folder, exported):
    """Which of the encoder's variables a SavedModel has otherwise than the exported one."""
    weights = tf.saved_model.load(str(folder)).networks["encoder"].weights
    return {
        v.path
        for v in exported.networks["encoder"].variables
        if not np.array_equal(v.numpy(), weights[v.path])
    }


@pytest.mark.slow
def test_fine_tuning_in_plain_tensorflow(checkout, exported, run_elsewhere):
    output = run_elsewhere(programs("finetuning.md")["Plain TensorFlow"], cwd=checkout)
    assert "epoch 2: loss" in output
    trainable = [exported.networks[n].trainable_variables for n in ("encoder", "projection_head")]
    count = sum(map(len, trainable))
    assert f"{count} of {count} variables have a gradient" in output
    again = checkout / "runs/finetuned/1"
    assert changed(again, exported) == {v.path for v in exported.networks["encoder"].variables}
    module = tf.saved_model.load(str(again))
    assert set(module.signatures) == {
        *("serving_default", "encode_jpeg", "endpoints", "project", "classify")
    }
    images = tf.constant(exported.images)
    logits = module.signatures["classify"](images=images)["logits"]
    kernel, bias = module.probe
    np.testing.assert_allclose(logits, module(images) @ kernel + bias, rtol=1e-5, atol=1e-6)
    served = module.signatures["serving_default"](images=images)["representation"]
    np.testing.assert_allclose(served, module(images), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_fine_tuning_in_tf_keras(checkout, exported, run_elsewhere):
    pytest.importorskip("tensorflow_hub")
    pytest.importorskip("tf_keras")
    [program] = [p for h, p in programs("finetuning.md").items() if "tf-keras" in h]
    output = run_elsewhere(program, cwd=checkout)
    count = len(exported.networks["encoder"].trainable_variables)
    assert f"{count} variables of the encoder were trained" in output
    again = tf.saved_model.load(str(checkout / "runs/hub_finetuned/1"))
    assert again.serve(exported.images).shape == (4, 10)


@pytest.mark.slow
def test_fine_tuning_in_keras_3(checkout, exported):
    output = run_here(programs("finetuning.md")["Keras 3"], checkout)
    assert "Epoch 3/3" in output
    encoder = exported.networks["encoder"]
    moved = changed(checkout / "runs/keras_finetuned/1", exported)
    assert moved == {v.path for v in encoder.variables}


@pytest.fixture(scope="module")
def client():
    """The functions that docs/serving.md shows for clients."""
    pytest.importorskip("tensorflow_serving")
    names = {}
    exec(programs("serving.md")["A client"], names)
    return names


@pytest.fixture
def files():
    rng = np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (h, 20, 3), np.uint8) for h in (16, 30)]
    return [tf.io.encode_jpeg(p).numpy() for p in pixels]


def test_a_rest_body_is_what_the_signature_takes(client, exported, files):
    """Decoded as TF Serving does it: {"b64": ...} is bytes, a row an element of the batch."""
    body = json.loads(client["rest_body"](files))
    assert body["signature_name"] == "encode_jpeg"
    rows = [base64.b64decode(row["image_bytes"]["b64"]) for row in body["instances"]]
    assert rows == files
    encode = tf.saved_model.load(exported.folder).signatures[body["signature_name"]]
    assert encode(image_bytes=tf.constant(rows))["representation"].shape == (2, 64)


def test_a_grpc_request_is_what_the_signature_takes(client, exported, files):
    from tensorflow_serving.apis import predict_pb2

    sent = client["grpc_request"](files).SerializeToString()
    request = predict_pb2.PredictRequest.FromString(sent)
    inputs = {name: tf.constant(tf.make_ndarray(t)) for name, t in request.inputs.items()}
    loaded = tf.saved_model.load(exported.folder)
    outputs = loaded.signatures[request.model_spec.signature_name](**inputs)
    assert request.model_spec.name == "simclr"
    assert outputs["representation"].shape == (2, 64)
    assert inputs["image_bytes"].numpy().tolist() == files


def test_the_document_names_the_signatures_and_their_outputs(exported):
    text = (ROOT / "docs/serving.md").read_text()
    with open(f"{exported.folder}/assets.extra/metadata.json") as file:
        metadata = json.load(file)
    for name, described in metadata["signatures"].items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}`"))
        for tensor in [
            *described["inputs"],
            *(described["outputs"] if name != "endpoints" else ()),
        ]:
            assert f"`{tensor}`" in row, (name, tensor)
