"""If this breaks, the curve of the probe misleads, or watching changes what is watched."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.linear_model import LogisticRegression

from simclr_tf.distribute.lowering import LoweringStrategy, lower
from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.jobs.assembly import dtype_policy
from simclr_tf.methods.simclr import simclr
from simclr_tf.models.heads import projection_head
from simclr_tf.optim.factory import lars
from simclr_tf.optim.schedules import WarmupCosine
from simclr_tf.training.checkpoints import Checkpoints, named_groups, read_manifest
from simclr_tf.training.loss_scale import with_loss_scale
from simclr_tf.training.probe import OnlineProbe, images_a_step, online_probe, probe_numbers
from simclr_tf.training.step import make_train_step
from tests.methods.conformance import tiny_encoder

SIDE, CLASSES, ROWS, KEPT = 2, 3, 8, 20
DIM = SIDE * SIDE * 3


def pixels() -> keras.Model:
    """An encoder whose representation is the image itself."""
    images = keras.Input((SIDE, SIDE, 3))
    h = keras.layers.Flatten(dtype="float32")(images)
    return keras.Model(images, {"final_avg_pool": h}, name="encoder")


def examples(step: int, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Images whose channels differ in scale and mean, and labels, one of them unknown."""
    rng = np.random.default_rng([5, step])
    labels = rng.integers(0, CLASSES, rows).astype(np.int32)
    h = rng.normal(size=(rows, DIM)) + np.eye(CLASSES, DIM)[labels]
    h = 3.0 + h * np.geomspace(0.1, 10, DIM)
    labels[0] = -1
    return h.reshape(-1, SIDE, SIDE, 3).astype(np.float32), labels


def numpy_rule(steps: int) -> tuple[list[dict[str, float]], np.ndarray, np.ndarray]:
    """The rule in float64: numbers of each step, and the last kernel and bias."""
    kernel, bias, momentum = np.zeros((DIM, CLASSES)), np.zeros(CLASSES), [0.0, 0.0]
    shown_kernel, shown_bias = None, None
    h, labels, numbers = np.zeros((0, DIM)), np.zeros(0, int), []
    for step in range(steps):
        images, new = examples(step)
        rows = images.reshape(-1, DIM).astype(np.float64)
        if shown_kernel is not None:
            p = softmax(rows @ shown_kernel + shown_bias)
            losses = [-np.log(p[i, k]) if k >= 0 else 0.0 for i, k in enumerate(new)]
            numbers.append(
                {"probe_loss": np.mean(losses), "probe_accuracy": np.mean(p.argmax(1) == new)}
            )
        h, labels = np.concatenate([rows, h])[:KEPT], np.concatenate([new, labels])[:KEPT]
        known = labels >= 0
        mean, deviation = h[known].mean(0), np.sqrt(h[known].var(0) + 1e-5)
        x, wanted = (h[known] - mean) / deviation, np.eye(CLASSES)[labels[known]]
        for _ in range(8):
            errors = (softmax(x @ kernel + bias) - wanted) / known.sum()
            momentum = [0.9 * momentum[0] + x.T @ errors, 0.9 * momentum[1] + errors.sum(0)]
            kernel = kernel - 4 / (DIM + 1) * momentum[0]
            bias = bias - 4 / (DIM + 1) * momentum[1]
        shown_kernel = kernel / deviation[:, None]
        shown_bias = bias - mean @ shown_kernel
    return numbers, shown_kernel, shown_bias


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def watched(steps: int, replicas: int = 1) -> tuple[list[dict[str, float]], OnlineProbe]:
    """The probe after some steps on replicas, and the numbers of each step."""
    strategy = simulated_replicas(replicas)
    with strategy.scope():
        probe = OnlineProbe(CLASSES, pixels(), kept=KEPT)
    watch = tf.function(lambda *batch: strategy.run(probe.watch, batch), autograph=False)
    numbers = []
    for step in range(steps):
        parts = [np.split(array, replicas) for array in examples(step)]
        batch = [
            strategy.experimental_distribute_values_from_function(
                lambda c, p=part: tf.constant(p[c.replica_id_in_sync_group])
            )
            for part in parts
        ]
        shares = watch(*batch)
        local = {n: strategy.experimental_local_results(v) for n, v in shares.items()}
        numbers.append({n: float(sum(v)) for n, v in local.items()})
    for variable in (*probe.state.values(), *probe.networks.variables):
        first, *others = strategy.experimental_local_results(variable.value)
        for other in others:
            np.testing.assert_array_equal(first, other, err_msg=variable.name)
    return numbers, probe


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_the_rule_is_that_of_numpy_on_any_number_of_replicas(replicas):
    expected, kernel, bias = numpy_rule(6)
    numbers, probe = watched(6, replicas)
    for there, here in zip(expected, numbers[1:], strict=True):
        assert here == pytest.approx(there, rel=1e-4)
    for variable, value in zip(probe.networks.variables, (kernel, bias), strict=True):
        np.testing.assert_allclose(variable, value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (30.0, 100.0)])
def test_it_comes_near_linear_evaluation_whatever_the_scale(scale, shift):
    """A few directions of the features have nearly all the variance, as of trained encoders."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(DIM, DIM)) * np.geomspace(0.03, 3.0, DIM)[:, None]
    centres = rng.normal(size=(CLASSES, DIM))

    def draw(rows):
        labels = rng.integers(0, CLASSES, rows)
        return scale * ((rng.normal(size=(rows, DIM)) + centres[labels]) @ mixing) + shift, labels

    h, labels = draw(4000)
    classifier = LogisticRegression(max_iter=2000).fit((h - h.mean(0)) / h.std(0), labels)
    tested, truth = draw(4000)
    expected = classifier.score((tested - h.mean(0)) / h.std(0), truth)
    probe = OnlineProbe(CLASSES, pixels(), kept=512)
    watch = tf.function(probe.watch, autograph=False)
    accuracies = []
    for _ in range(60):
        h, labels = draw(64)
        images = tf.constant(h.reshape(-1, SIDE, SIDE, 3), tf.float32)
        accuracies.append(watch(images, tf.constant(labels, tf.int32))["probe_accuracy"])
    assert 0.7 < expected < 0.99
    assert np.mean(accuracies[-20:]) == pytest.approx(expected, abs=0.04)


def test_unknown_labels_teach_it_nothing():
    probe = OnlineProbe(CLASSES, pixels(), kept=KEPT)
    probe.watch(tf.constant(examples(0)[0]), tf.fill([ROWS], -1))
    assert not np.any(probe.state["kernel"]) and not np.any(probe.state["bias"])
    logits = tf.constant([[2.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.0, 1.0]])
    numbers = probe_numbers(logits, tf.constant([0, -1, 0, -1]))
    assert float(numbers["probe_loss"]) == pytest.approx(2 * np.log(1 + np.exp(-2.0)) / 4)
    assert float(numbers["probe_accuracy"]) == pytest.approx(2 / 4)


def test_no_classes_no_probe():
    assert online_probe(None, pixels()) is None


def test_a_large_batch_gives_it_an_eighth_and_a_small_one_all():
    assert [images_a_step(batch) for batch in (8, 128, 512, 4096)] == [8, 64, 64, 512]


@pytest.mark.parametrize(
    ("replicas", "precision", "parts"),
    [(1, "float32", 1), (2, "float32", 1), (1, "float32", 2), (2, "mixed_float16", 1)],
)
def test_it_changes_nothing_of_the_encoder(replicas, precision, parts):
    """Bit for bit, and all that the encoder's optimizer holds."""
    after = [trained(replicas, watching, precision, parts) for watching in (False, True)]
    assert after[0].keys() == after[1].keys()
    for name, value in after[0].items():
        np.testing.assert_array_equal(after[1][name], value, err_msg=name)


def trained(replicas, watching, precision, parts) -> dict[str, np.ndarray]:
    """The method's and the optimizer's variables after two steps, with or without a probe."""
    strategy = simulated_replicas(replicas)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        with dtype_policy(precision):
            head = functools.partial(projection_head, output_dim=4)
            method = simclr(projection_head=head, encoder=tiny_encoder, image_size=16)
        trainable = method.networks.trainable_variables
        rule = lars(learning_rate=WarmupCosine(1.0, 0, 10), networks=method.networks)
        rule.build(trainable)
        optimizer = with_loss_scale(rule, trainable, precision)
        probe = OnlineProbe(CLASSES, method.networks["encoder"], kept=8) if watching else None
    step = make_train_step(method, optimizer, probe=probe, num_microbatches=parts)
    rng = np.random.default_rng(0)
    size = 8 // replicas
    batch = {
        "images": rng.random((replicas, 2 * size, 16, 16, 3), np.float32),
        "labels": rng.integers(0, 3, (replicas, size)).astype(np.int32),
        "index": np.arange(8, dtype=np.int32).reshape(replicas, size),
    }
    if watching:
        batch["plain_images"] = rng.random((replicas, 3, 16, 16, 3), np.float32)
        batch["plain_labels"] = rng.integers(0, 3, (replicas, 3)).astype(np.int32)
    dealt = {
        name: strategy.experimental_distribute_values_from_function(
            lambda c, a=array: tf.constant(a[c.replica_id_in_sync_group])
        )
        for name, array in batch.items()
    }
    run = tf.function(lambda b: strategy.run(step, (b,)), autograph=False)
    for _ in range(2):
        run(dealt)
    if probe:
        assert np.any(probe.state["kernel"])
    groups = named_groups(method.networks, optimizer)
    return {f"{g}/{p}": v.numpy() for g, group in groups.items() for p, v in group.items()}


def test_a_step_that_it_watches_is_for_tpus():
    strategy = LoweringStrategy(8)
    with strategy.scope():
        keras.utils.set_random_seed(0)
        with dtype_policy("mixed_bfloat16"):
            method = simclr(encoder=tiny_encoder, image_size=16)
        rule = lars(learning_rate=WarmupCosine(1.0, 0, 10), networks=method.networks)
        rule.build(method.networks.trainable_variables)
        probe = OnlineProbe(CLASSES, method.networks["encoder"], kept=64)
    batch = {
        "images": tf.TensorSpec([2 * 4, 16, 16, 3]),
        "labels": tf.TensorSpec([4], tf.int32),
        "index": tf.TensorSpec([4], tf.int32),
        "plain_images": tf.TensorSpec([2, 16, 16, 3]),
        "plain_labels": tf.TensorSpec([2], tf.int32),
    }
    text = lower(strategy, make_train_step(method, rule, probe=probe), batch).stablehlo
    assert "bf16" in text
    for unwanted in ("f64", "?x", "dynamic_reshape", "custom_call"):
        assert unwanted not in text, unwanted


def groups_of(probe: OnlineProbe) -> dict:
    return {**named_groups(probe.networks), "probe_optimizer": probe.state}


def test_it_resumes_bit_for_bit(tmp_path):
    _, through = watched(5)
    _, stopped = watched(4)
    Checkpoints(str(tmp_path), groups_of(stopped), {}).save(4)
    _, resumed = watched(0)
    assert Checkpoints(str(tmp_path), groups_of(resumed), {}).restore() == 4
    images, labels = map(tf.constant, examples(4))
    tf.function(resumed.watch, autograph=False)(images, labels)
    for name, variable in groups_of(through)["probe_optimizer"].items():
        np.testing.assert_array_equal(resumed.state[name], variable, err_msg=name)


def test_a_checkpoint_of_an_older_version_gives_all_but_the_probe(tmp_path, capsys):
    """There the encoder's optimizer held the probe's momentum."""
    old, new = (keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]) for _ in range(2))
    _, probe = watched(2)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build([*old.trainable_variables, *probe.networks.trainable_variables])
    Checkpoints(
        str(tmp_path), named_groups({"encoder": old, **probe.networks}, optimizer), {}
    ).save(7)
    saved = read_manifest(str(tmp_path), 7)["variables"]["optimizer"]
    assert sum("probe_dense" in path for path in saved) == 2
    for a, b in zip(old.variables, new.variables, strict=True):
        b._path = a.path  # Keras numbers models by how many were built before
    _, fresh = watched(0)
    before = [v.numpy() for v in fresh.networks.variables]
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(new.trainable_variables)
    groups = named_groups({"encoder": new, **fresh.networks}, optimizer)
    groups["optimizer"] = dict(
        zip([p for p in saved if "probe_dense" not in p], groups["optimizer"].values(), strict=True)
    )
    groups["probe_optimizer"] = fresh.state
    assert Checkpoints(str(tmp_path), groups, {}).restore() == 7
    assert (
        "the probe begins with its initial values again, and everything else resumes"
        in capsys.readouterr().out
    )
    for a, b in zip(old.variables, new.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    for variable, value in zip(fresh.networks.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_many_classes_get_fewer_steps_a_time():
    """Its matrix products must not show beside a step of ResNet-50 on 1,000 classes."""
    h = keras.Input((2048,))
    encoder = keras.Model(h, {"final_avg_pool": h})
    assert [OnlineProbe(classes, encoder).updates for classes in (10, 1000)] == [8, 1]
