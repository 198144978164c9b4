"""If this breaks, a student has another teacher than asked for, or learns from hidden labels."""

import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.data.source import ArraySource
from simclr_tf.errors import RequestError
from simclr_tf.export.loading import load_classifier, load_encoder
from simclr_tf.export.saved_model import export_networks
from simclr_tf.jobs.distill import Teacher
from tests.methods import conformance
from tests.methods.test_conformance import classifier
from tests.support.pictures import CLASSES

SHORT = (
    "train_classifier.global_batch_size = 8",
    "train_classifier.epochs = 2.0",
    "train_classifier.precision = 'float32'",
)


def export(folder: pathlib.Path, head_layers: int = 0, names=("encoder", "classifier")) -> str:
    """A SavedModel of random networks, as a run would export it as its step 7."""
    method = classifier(encoder=conformance.tiny_encoder, image_size=16, head_layers=head_layers)
    for i, variable in enumerate(method.networks.variables):
        variable.assign(np.random.default_rng(i).uniform(0.2, 1.0, variable.shape))
    networks = {name: method.exported()[name] for name in names}
    classes = CLASSES if "classifier" in names else None
    return export_networks(
        str(folder), 7, networks, lambda: networks, image_size=16, recipe="", class_names=classes
    )


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> pathlib.Path:
    """The folder of a run whose classes are those of the pictures."""
    folder = tmp_path_factory.mktemp("teacher")
    export(folder)
    return folder


@pytest.mark.parametrize("head_layers", [0, 1, 2])
def test_a_teacher_answers_as_its_saved_model(tmp_path, head_layers):
    """Also with layers of the projection head, whose last one has no offset."""
    path = export(tmp_path, head_layers)
    images = np.random.default_rng(0).random((4, 16, 16, 3), np.float32)
    served = tf.saved_model.load(path).signatures["classify"](tf.constant(images))["logits"]
    h = load_encoder(path, trainable=False)(images, training=True)
    found = load_classifier(path)(h, training=False)
    np.testing.assert_allclose(found, served, rtol=1e-4, atol=1e-5)
    assert np.ptp(served, axis=0).min() > 1e-3


def test_a_teacher_must_classify(tmp_path):
    path = export(tmp_path, names=("encoder",))
    with pytest.raises(RequestError, match="The teacher must classify"):
        Teacher.find(str(tmp_path), "student")
    with pytest.raises(RequestError, match="must hold a linear classifier"):
        load_classifier(path)


@pytest.mark.slow
def test_a_student_is_trained_and_tested(evaluation, teacher, tmp_path):
    settings = (
        f"distill.teacher = '{teacher}'",
        "distill.label_share = 0.5",
        "distill.label_weight = 0.25",
    )
    result = evaluation.result("distill", tmp_path, *SHORT, *settings, weights=None)
    assert result["n"] == {"train": 30, "test": 12}
    assert result["teacher"] == str(teacher / "saved_model" / "7")
    assert result["label_weight"] == 0.25
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < last["teacher_entropy"] <= np.log(3) and last["distillation_loss"] > 0
    again = evaluation.result("distill", tmp_path, *SHORT, *settings, weights=None)
    assert again["numbers"] == result["numbers"]
    assert Teacher.find(str(tmp_path), "another") == Teacher.find(
        str(next((tmp_path / "saved_model").iterdir())), "another"
    )


@pytest.mark.parametrize(
    ("bindings", "words"),
    [
        (("distill.teacher = ''",), "distill.teacher must be the folder of another run"),
        (("distill.teacher = 'nowhere'",), "A folder with a SavedModel is needed"),
        (("distill.temperature = 0.0",), "temperature > 0"),
        (("distill.label_share = 0.0",), r"must be in (0, 1]"),
        (("data.image_size = 32",), "16 pixels, and data.image_size = 32"),
    ],
)
def test_wrong_requests_end_with_2_and_one_clear_message(
    evaluation, teacher, tmp_path, capfd, bindings, words
):
    given = (f"distill.teacher = '{teacher}'", *bindings)
    assert evaluation.job("distill", tmp_path / "student", *SHORT, *given, weights=None) == 2
    error = capfd.readouterr().err
    error = error[error.index("error: ") :]
    assert words in error and "Traceback" not in error
    assert not (tmp_path / "student" / "checkpoints").exists()


def images(names, labels) -> ArraySource:
    pixels = np.zeros((6, 4, 4, 3), np.uint8)
    return ArraySource(
        name="arrays", num_examples=6, class_names=names, images=pixels, labels=labels
    )


def test_which_labels_a_student_learns_from():
    model = Teacher("teacher", 16, ("a", "b"))
    labels = np.array([0, 0, 1, 1, 0, -1])
    half = model.images(images(["a", "b"], labels), 0, label_share=0.5)
    assert half.num_examples == 6
    kept = half.labels >= 0
    np.testing.assert_array_equal(half.labels[kept], labels[kept])
    assert np.bincount(half.labels[kept]).tolist() == [2, 1]
    none = model.images(images(None, None), 0, label_share=0.5)
    assert none.num_classes == 2 and (none.label_tensor().numpy() == -1).all()
    with pytest.raises(RequestError, match=r"teacher of a, b, and images of b, a\."):
        model.images(images(["b", "a"], labels), 0, label_share=1.0)
