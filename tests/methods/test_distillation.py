"""If this breaks, a student learns something else than its teacher's probabilities."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.errors import InvalidArgument
from simclr_tf.methods.distillation import Distillation
from simclr_tf.models.networks import Networks
from simclr_tf.objectives.distillation import soft_cross_entropies
from tests.methods import conformance
from tests.methods.test_conformance import classifier, student
from tests.support.differences import slope
from tests.support.findings import findings

C = conformance.CLASSES
RNG = np.random.default_rng(0)
STUDENT, TEACHER = RNG.normal(size=(2, 8, C)).astype(np.float32) * 3
LABELS = np.array([0, 1, -1, 2, 0, -1, 2, 1], np.int32)


def softmax(logits) -> np.ndarray:
    exponentials = np.exp(np.float64(logits))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def oracle(student, temperature: float, weight: float) -> dict[str, float]:
    """In loops and float64."""
    losses, entropies, agreed, found = [], [], [], []
    for s, t, label in zip(student.astype(np.float64), TEACHER, LABELS, strict=True):
        wanted, soft, p = softmax(t / temperature), softmax(s / temperature), softmax(s)
        loss = -sum(a * math.log(b) for a, b in zip(wanted, soft, strict=True))
        entropy = -sum(a * math.log(a) for a in wanted)
        labelled = -math.log(p[label]) if label >= 0 else 0.0
        losses.append((1 - weight) * temperature**2 * loss + weight * labelled)
        entropies.append(temperature**2 * entropy)
        agreed.append(s.argmax() == t.argmax())
        found.append(s.argmax() == label)
    values = {"loss": losses, "teacher_entropy": entropies}
    values |= {"teacher_agreement": agreed, "top1": found, "top5": LABELS >= 0}
    return {name: np.mean(value) for name, value in values.items()}


def build(**settings) -> Distillation:
    whole = student(encoder=conformance.tiny_encoder, image_size=16)
    return Distillation(whole.networks, whole.views, fixed=whole.fixed, **settings)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 0.0), (0.1, 0.0), (4.0, 0.25)])
def test_equals_its_equation_on_any_replicas(replicas, temperature, weight):
    method = build(temperature=temperature, label_weight=weight)
    strategy = simulated_replicas(replicas)

    def share():
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        logits, taught, labels = (
            tf.gather(tf.stack(np.split(x, replicas)), replica) for x in (STUDENT, TEACHER, LABELS)
        )
        with tf.GradientTape() as tape:
            tape.watch([logits, taught])
            loss, metrics = method.loss(
                {"logits": logits}, {"labels": labels, "teacher_logits": taught}
            )
        return loss, metrics, tape.gradient(loss, [logits, taught])

    loss, metrics, (by_logit, by_teacher) = tf.function(lambda: strategy.run(share))()
    assert by_teacher is None
    expected = oracle(STUDENT, temperature, weight)
    assert list(metrics) == [metric.name for metric in method.metrics[1:]]
    for name, value in {"loss": loss, **metrics}.items():
        found = strategy.reduce("SUM", value, axis=None)
        np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    gradient = np.concatenate(strategy.experimental_local_results(by_logit))
    for index in [(0, 0), (2, 1), (7, 2)]:
        by_element = slope(lambda s: oracle(s, temperature, weight)["loss"], STUDENT, index)
        np.testing.assert_allclose(gradient[index], by_element, rtol=1e-3, atol=1e-7)


def test_a_student_that_agrees_has_the_teachers_entropy():
    losses, entropies = soft_cross_entropies(tf.constant(TEACHER), tf.constant(TEACHER), 0.5)
    np.testing.assert_allclose(losses, entropies, rtol=1e-6)
    even, _ = soft_cross_entropies(tf.zeros([8, C]), tf.constant(TEACHER), 0.5)
    chance, _ = build(temperature=0.5).expected(8)
    np.testing.assert_allclose(even, chance, rtol=1e-5)
    assert build(label_weight=0.5).expected(8) is None


def test_the_teacher_sees_the_same_view_in_inference():
    method = build()
    batch = conformance.batch_of(method, 0)
    before = [v.numpy() for v in method.fixed.variables]
    found = method.targets(batch)["teacher_logits"]
    alone = [method.targets({**batch, "images": image[None]}) for image in batch["images"]]
    np.testing.assert_allclose(
        found, tf.concat([one["teacher_logits"] for one in alone], axis=0), rtol=1e-4, atol=1e-5
    )
    for variable, value in zip(method.fixed.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.0}, {"label_weight": -0.1}, {"label_weight": 1.1}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(InvalidArgument, match="temperature > 0 and 0 <= label_weight <= 1"):
        build(**settings)


def test_the_teacher_must_know_the_same_classes():
    other = classifier(encoder=conformance.tiny_encoder, image_size=16, head_layers=0)
    fixed = {"teacher": other.networks["encoder"], "teacher_classifier": other.networks["probe"]}
    networks = student(encoder=conformance.tiny_encoder, image_size=16)
    twice = keras.layers.Concatenate()([other.networks["probe"].output] * 2)
    fixed["teacher_classifier"] = keras.Model(other.networks["probe"].input, twice)
    with pytest.raises(InvalidArgument, match="a teacher of 6 classes, and a student of 3"):
        Distillation(networks.networks, networks.views, fixed=Networks(fixed))


@pytest.mark.parametrize(("share", "kinds"), [(0.999, ["teacher undecided"]), (0.5, [])])
def test_a_teacher_that_says_nothing(share, kinds):
    method = build(temperature=2.0)
    numbers = {
        "teacher_entropy": share * 4 * math.log(C),
        "representation_spread": 0.5,
    }
    assert findings(method, numbers) == kinds


def test_the_plan_and_the_progress_in_words():
    loss = "cross-entropy with the teacher, temperature 2, "
    assert build(temperature=2.0).plan_lines(8) == {"loss": loss + "no labels"}
    assert build(temperature=2.0, label_weight=0.25).plan_lines(8) == {
        "loss": loss + "labels count 0.25"
    }
    numbers = {"distillation_loss": 0.5, "teacher_agreement": 0.75, "top1": 0.25}
    assert build().words(numbers) == "distillation loss 0.500, agreement 75.0%, top-1 25.0%"
    assert "(chance 1.10)" in build().words({**numbers, "loss_chance": 1.0986})
