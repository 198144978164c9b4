"""If this breaks, what a run leaves behind cannot be served, or cannot be fine-tuned elsewhere."""

import glob
import json
import os
import resource
import struct
import sys
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.data import folder_source
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.plain_images import plain_images
from simclr_tf.export import saved_model, warmup
from simclr_tf.export.saved_model import export_networks
from simclr_tf.models.heads import projection_head

SIZE = 16


@pytest.fixture
def loaded(exported):
    return tf.saved_model.load(exported.folder)


def close(found, expected):
    """Equal but for rounding, which is relative to what was summed and so to the largest entry."""
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_it_lies_under_its_step_with_its_recipe(exported):
    assert exported.folder.endswith("saved_model/7")
    assert os.listdir(os.path.dirname(exported.folder)) == ["7"]
    with open(f"{exported.folder}/assets.extra/config.gin") as file:
        assert file.read() == "run.job = 'pretrain'\n"


def test_it_gives_the_encoder_s_representation(exported, loaded):
    images = tf.constant(exported.images)
    close(loaded(images), exported.representation)
    served = loaded.signatures["serving_default"](images=images)
    assert list(served) == ["representation"]
    close(served["representation"], exported.representation)


def test_images_may_have_any_size(exported, loaded):
    images = np.random.default_rng(1).random((2, 12, 22, 3)).astype(np.float32)
    expected = exported.networks["encoder"](images, training=False)
    named = loaded.signatures["endpoints"](images=tf.constant(images))
    assert named["block_group4"].shape == (2, 2, 3, 64)
    close(named["final_avg_pool"], expected["final_avg_pool"])


def test_endpoints_are_all_named_layers(exported, loaded):
    named = loaded.signatures["endpoints"](images=tf.constant(exported.images))
    encoder, head = exported.networks["encoder"], exported.networks["projection_head"]
    expected = encoder(exported.images, training=False)
    expected = {**expected, **head(exported.representation, training=False)}
    assert set(named) == set(expected)
    for name, value in expected.items():
        close(named[name], value)


def test_project_and_classify_are_the_heads_behind_the_encoder(exported, loaded):
    images = tf.constant(exported.images)
    head, classifier = exported.networks["projection_head"], exported.networks["classifier"]
    [z] = loaded.signatures["project"](images=images).values()
    close(z, head(exported.representation, training=False)["projection_2"])
    found = loaded.signatures["classify"](images=images)
    logits = classifier(exported.representation, training=False).numpy()
    close(found["logits"], logits)
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    close(found["probabilities"], exponents / exponents.sum(axis=1, keepdims=True))
    names = [("circle", "square", "star")[k].encode() for k in logits.argmax(axis=1)]
    assert found["class_name"].numpy().tolist() == names


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Encoded images of several kinds and sizes, one of them of the trained size."""
    target = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate([(40, 30), (SIZE, SIZE), (9, 50), (33, 33)]):
        for channels in (1, 3):
            pixels = rng.integers(0, 256, (height, width, channels), np.uint8)
            tf.io.write_file(f"{target}/{i}{channels}.jpg", tf.io.encode_jpeg(pixels, quality=90))
            tf.io.write_file(f"{target}/{i}{channels}.png", tf.io.encode_png(pixels))
    return str(target)


def test_encode_jpeg_preprocesses_as_evaluation_does(loaded, files):
    source = folder_source.open_folder(files, "train")
    bad = BadImages(source)
    [(images, _, _)] = list(plain_images(source, SIZE, 100, bad))
    encoded = tf.stack([tf.io.read_file(p) for p in source.paths])
    assert len(bad) == 0 and len(images) == len(encoded) == 16
    served = loaded.signatures["encode_jpeg"](image_bytes=encoded)["representation"]
    close(served, loaded(images))


def test_a_bad_image_is_an_error_of_its_request_alone(loaded, files):
    encode = loaded.signatures["encode_jpeg"]
    good = tf.io.read_file(sorted(glob.glob(f"{files}/*.jpg"))[0])
    before = encode(image_bytes=good[tf.newaxis])["representation"]
    for bad in (b"no image", b"", good.numpy()[:100]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            encode(image_bytes=tf.constant([good.numpy(), bad]))
    np.testing.assert_array_equal(encode(image_bytes=good[tf.newaxis])["representation"], before)


def png_header(width, height):
    size = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n\0\0\0\r" + size + struct.pack(">I", zlib.crc32(size))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (png_header(50_000, 50_000), "must have from 1 to 89478485 pixels"),
        (png_header(10_000, 10_000), "must have from 1 to 89478485 pixels"),
        (png_header(0, 10), "must have from 1 to 89478485 pixels"),
        (b"ftypheic, a phone's format", "must be a JPEG, PNG, GIF"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "must hold what its header says"),
        (b"GIF89a" + b"\x01\0\x01\0\0\0\0;", "A GIF must hold a frame"),
        (b"BM" + bytes(60), "A BMP must have 8, 24 or 32 bits"),
    ],
)
def test_what_is_too_large_or_of_another_kind_is_named(loaded, files, bad, message):
    """Before memory is taken for it: of 10,000 x 10,000 pixels TensorFlow would take 286 MiB."""
    encode = loaded.signatures["encode_jpeg"]
    good = tf.io.read_file(sorted(glob.glob(f"{files}/*.jpg"))[0])
    before = encode(image_bytes=good[tf.newaxis])["representation"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        encode(image_bytes=tf.constant([good.numpy(), bad]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 64 * 1024
    np.testing.assert_array_equal(encode(image_bytes=good[tf.newaxis])["representation"], before)


def test_fine_tuning_reaches_every_variable(exported, loaded):
    """As a TF-Hub layer does it: gradients to all trainable variables, moving averages move."""
    encoder = exported.networks["encoder"]
    assert len(loaded.variables) == len(encoder.variables)
    assert len(loaded.trainable_variables) == len(encoder.trainable_variables)
    assert list(loaded.regularization_losses) == []
    before = {id(v): v.numpy() for v in loaded.variables}
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded(exported.images, training=True) ** 2)
    gradients = tape.gradient(loss, loaded.trainable_variables)
    assert all(g is not None for g in gradients)
    for variable, gradient in zip(loaded.trainable_variables, gradients, strict=True):
        variable.assign_sub(0.1 * gradient + 1e-3)
    assert all(not np.array_equal(v.numpy(), before[id(v)]) for v in loaded.variables)


@pytest.mark.parametrize("name", ["projection_head", "classifier"])
def test_fine_tuning_from_a_head_reaches_its_variables_too(exported, loaded, name):
    encoder, head = loaded.networks["encoder"], loaded.networks[name]
    assert set(encoder.weights) == {v.path for v in exported.networks["encoder"].variables}
    assert set(head.weights) == {v.path for v in exported.networks[name].variables}
    statistics = [v for path, v in head.weights.items() if "moving" in path]
    before = [v.numpy() for v in statistics]
    variables = [*encoder.trainable_variables, *head.trainable_variables]
    with tf.GradientTape() as tape:
        outputs = head(loaded(exported.images, training=True), training=True)
        z = outputs["projection_2"] if name == "projection_head" else outputs
        loss = tf.reduce_sum(z**3)
    assert all(g is not None for g in tape.gradient(loss, variables))
    assert statistics
    for variable, value in zip(statistics, before, strict=True):
        assert not np.array_equal(variable, value)


def test_inference_moves_nothing(exported, loaded):
    def values():
        return [v.numpy() for network in loaded.networks.values() for v in network.variables]

    before = values()
    loaded(exported.images, training=False)
    for name, function in loaded.signatures.items():
        if name != "encode_jpeg":
            function(images=tf.constant(exported.images))
    for value, old in zip(values(), before, strict=True):
        np.testing.assert_array_equal(value, old)


def all_nodes(folder):
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        graph = tf.compat.v1.saved_model.load(session, ["serve"], folder).graph_def
    return [*graph.node, *(node for f in graph.library.function for node in f.node_def)], graph


def test_the_graph_is_small_and_runs_on_any_one_device(exported):
    """The encoder was replicated and rematerialized, of which the SavedModel knows nothing."""
    nodes, graph = all_nodes(exported.folder)
    ops = {node.op for node in nodes}
    assert {"Conv2D", "FusedBatchNormV3", "DecodeImage", "DecodeAndCropJpeg"} <= ops
    foreign = ("Collective", "CrossReplica", "Nccl", "TPU", "Xla", "PyFunc", "PartitionedCustom")
    assert not {op for op in ops if op.startswith(foreign)}
    # A gradient that Python registered would be looked for where the model is loaded.
    assert not [n.name for n in nodes if "_gradient_op_type" in n.attr and n.op == "IdentityN"]
    assert not graph.library.gradient
    # The encoder is in it three times: to be called in both modes, and for all signatures.
    assert os.path.getsize(f"{exported.folder}/saved_model.pb") < 1_300_000
    kernels = [v for v in exported.networks["encoder"].variables if v.path.endswith("kernel")]
    assert len([n for n in nodes if n.op == "Conv2D"]) == 3 * len(kernels)


def test_the_metadata_tell_how_to_use_it(exported):
    with open(f"{exported.folder}/assets.extra/metadata.json") as file:
        metadata = json.load(file)
    assert (metadata["step"], metadata["image_size"]) == (7, SIZE)
    assert metadata["classes"] == ["circle", "square", "star"]
    assert metadata["dimensions"] == {"representation": 64, "projection": 16, "logits": 3}
    assert metadata["input_range"] == [0.0, 1.0]
    assert metadata["versions"]["tensorflow"] == tf.__version__
    assert metadata["versions"]["keras"] == keras.__version__
    assert "0.875" in metadata["preprocessing"] and "taken whole" in metadata["preprocessing"]
    assert tf.__version__.startswith(metadata["minimum_tf_serving"].split(",")[0])
    signatures = tf.saved_model.load(exported.folder).signatures
    assert set(metadata["signatures"]) == set(signatures)
    for name, described in metadata["signatures"].items():
        [(key, spec)] = described["inputs"].items()
        found = signatures[name].structured_input_signature[1][key]
        assert (spec["dtype"], spec["shape"]) == (found.dtype.name, found.shape.as_list())
        outputs = {k: v.shape.as_list() for k, v in signatures[name].structured_outputs.items()}
        assert {k: v["shape"] for k, v in described["outputs"].items()} == outputs


def test_warmup_requests_run_on_every_signature(exported, loaded):
    log = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    path = f"{exported.folder}/assets.extra/tf_serving_warmup_requests"
    records = [log.PredictionLog.FromString(r.numpy()) for r in tf.data.TFRecordDataset(path)]
    requests = {r.predict_log.request.model_spec.signature_name: r for r in records}
    assert set(requests) == set(loaded.signatures)
    for name, record in requests.items():
        inputs = {
            key: tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype))
            for key, proto in record.predict_log.request.inputs.items()
        }
        outputs = loaded.signatures[name](**inputs)
        assert all(value.shape[0] == 1 for value in outputs.values())
    assert os.path.getsize(path) < 10_000


def test_without_the_serving_api_a_model_is_written_without_warmup(monkeypatch, tmp_path, exported):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    (tmp_path / "assets.extra").mkdir()
    warmup.write_warmup(str(tmp_path), {}, SIZE)
    assert list((tmp_path / "assets.extra").iterdir()) == []


def small(name="conv", **kwargs):
    """Networks with an encoder of one layer."""
    images = keras.Input((None, None, 3), name="images")
    x = keras.layers.Conv2D(4, 3, name=name)(images)
    outputs = {"final_avg_pool": keras.layers.GlobalAveragePooling2D()(x)}
    return {"encoder": keras.Model(images, outputs), **kwargs}


def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path):
    trained = small()
    arguments = dict(image_size=SIZE, recipe="")
    with pytest.raises(ValueError, match=r"build must give the networks.*projection_head"):
        head = projection_head(input_dim=4)
        export_networks(str(tmp_path), 1, trained, lambda: small(projection_head=head), **arguments)
    with pytest.raises(
        ValueError, match=r"encoder with the variables of the trained.*conv/bias, .*other"
    ):
        export_networks(str(tmp_path), 1, trained, lambda: small(name="other"), **arguments)
    with pytest.raises(ValueError, match="2 names for 0 classes"):
        export_networks(str(tmp_path), 1, trained, small, class_names=["a", "b"], **arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_export_leaves_the_old_model_and_is_cleared_away(tmp_path, monkeypatch):
    trained = small(projection_head=projection_head("none", input_dim=4))
    arguments = (str(tmp_path), 3, trained, lambda: trained)
    folder = export_networks(*arguments, image_size=SIZE, recipe="old")
    monkeypatch.setattr(saved_model, "write_warmup", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_networks(*arguments, image_size=SIZE, recipe="new")
    with open(f"{folder}/assets.extra/config.gin") as file:
        assert file.read() == "old"
    monkeypatch.undo()
    assert export_networks(*arguments, image_size=SIZE, recipe="new") == folder
    assert [p.name for p in (tmp_path / "saved_model").iterdir()] == ["3"]
    images = tf.random.stateless_uniform([2, SIZE, SIZE, 3], [0, 1])
    loaded = tf.saved_model.load(folder)
    assert set(loaded.signatures) == {"serving_default", "encode_jpeg", "endpoints", "project"}
    # A head that projects nothing: z is h.
    close(loaded.signatures["project"](images=images)["projection"], loaded(images))
