"""If this breaks, a run that is wasted runs on in silence, or a healthy one is called sick."""

import functools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import run as command_line
from simclr_tf.augment.policy import augmentation
from simclr_tf.context import Context
from simclr_tf.data.dataset import Dataset
from simclr_tf.data.source import ArraySource
from simclr_tf.distribute.batch_norm import SyncBatchNormalization
from simclr_tf.distribute.strategy import create_strategy
from simclr_tf.jobs.pretrain import pretraining
from simclr_tf.methods.simclr import simclr
from simclr_tf.models.heads import projection_head
from simclr_tf.objectives.margin_triplet import MarginTriplet
from simclr_tf.objectives.nt_xent import NTXent
from simclr_tf.optim.factory import lars, momentum
from simclr_tf.optim.schedules import WarmupCosine, learning_rate
from simclr_tf.training import figures
from simclr_tf.training.reporting import read_metrics, read_warnings
from simclr_tf.training.trainer import train

COUNT, BATCH, SIZE, CLASSES = 256, 32, 16, 4
CROPS = functools.partial(
    augmentation, policy=(("flip", 0.5), ("color_jitter", 0.8, 0.5)), area_range=(0.3, 1.0)
)


def encoder(normalization=SyncBatchNormalization, offset=0.0, *, image_size):
    """Two convolutions; `offset` is added before the last ReLU."""
    images = keras.Input((None, None, 3), name="images")
    x = keras.layers.Conv2D(16, 3, 2, use_bias=False, name="conv1")(images)
    x = keras.layers.ReLU(name="relu1")(normalization(name="bn1")(x))
    x = keras.layers.Conv2D(32, 3, 2, use_bias=False, name="conv2")(x)
    x = normalization(name="bn2")(x)
    x = keras.layers.ReLU(name="relu2")(keras.layers.Rescaling(1.0, offset, name="offset")(x))
    h = keras.layers.GlobalAveragePooling2D(name="pool", dtype="float32")(x)
    return keras.Model(images, {"final_avg_pool": h}, name="encoder")


def head_with_a_large_bias(input_dim):
    x = keras.Input((input_dim,), name="representation")
    z = keras.layers.Dense(16, bias_initializer=keras.initializers.Constant(100.0), name="z")(x)
    return keras.Model(x, {"projection_0": x, "projection_1": z}, name="projection_head")


class Leap(WarmupCosine):
    """A rate that suits for four epochs, and then one that does not."""

    def __call__(self, step):
        return tf.where(tf.cast(step, tf.int32) < 32, self.peak, 1e5 * self.peak)


def patches(count=COUNT) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 5, 5, 3), np.uint8).repeat(4, 1).repeat(4, 2)


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (COUNT, 64, 64, 3), np.uint8)


def coloured_by_class(labels) -> np.ndarray:
    colours = np.array([[250, 20, 20], [20, 250, 20], [20, 20, 250], [200, 200, 200]])
    rng = np.random.default_rng(0)
    return (colours[labels][:, None, None] + rng.integers(-20, 6, (len(labels), 20, 20, 3))).astype(
        np.uint8
    )


def run(folder, *, images=None, labels=None, epochs=2.0, rate=1.0, warmup=0.0, **kwargs):
    """Pretrains; returns the kinds of warnings in the order in which they were given."""
    images = patches() if images is None else images
    labels = (
        np.random.default_rng(1).integers(0, CLASSES, len(images)) if labels is None else labels
    )
    source = ArraySource(
        name="arrays",
        num_examples=len(images),
        class_names=None if isinstance(labels, str) else list("abcd"),
        images=images,
        labels=None if isinstance(labels, str) else labels,
    )
    method = {
        "projection_head": functools.partial(projection_head, output_dim=16),
        "loss": lambda: NTXent(0.5),
        "augmentation": CROPS,
    }
    method |= {name: kwargs.pop(name) for name in method.keys() & kwargs.keys()}
    settings = {
        "method": functools.partial(simclr, **method),
        "encoder": encoder,
        "optimizer": lars,
        "learning_rate": functools.partial(
            learning_rate, base=rate, scaling="none", warmup_epochs=warmup
        ),
        "steps_per_loop": 4,
        **kwargs,
    }
    assembled = pretraining(
        Context(model_dir=str(folder), tpu="none"),
        data=lambda data_dir: Dataset("arrays", SIZE, "train", "test", 64, None, opened=source),
        global_batch_size=BATCH,
        epochs=epochs,
        precision="float32",
        **settings,
    )
    train(assembled, export=lambda: "")
    return [warning["kind"] for warning in read_warnings(str(folder))]


whole_images = functools.partial(augmentation, random_crop=False)
LABELS = np.arange(8 * COUNT) % CLASSES
FAULTS = {
    "identical views": {"augmentation": functools.partial(whole_images, policy=())},
    "augmentation off": {
        "augmentation": functools.partial(whole_images, policy=(("color_jitter", 1.0, 0.05),))
    },
    "labels leaking": {
        "images": coloured_by_class(LABELS),
        "labels": LABELS,
        "augmentation": functools.partial(augmentation, policy=(("flip", 0.5),)),
        "epochs": 1.0,
        "rate": 2.0,
    },
    "batch norm not synchronized": {
        "encoder": functools.partial(encoder, keras.layers.BatchNormalization),
        "strategy": functools.partial(create_strategy, cpu_replicas=2),
    },
    "learning rate too high": {
        "optimizer": momentum,
        "learning_rate": lambda **numbers: Leap(peak=0.1, warmup_steps=0, total_steps=49),
        "epochs": 6.0,
    },
    "temperature out of range": {"loss": lambda: NTXent(0.01)},
    "dead encoder": {"encoder": functools.partial(encoder, offset=-100.0)},
    "collapse": {"projection_head": head_with_a_large_bias},
    "no learning": {
        "images": noise(),
        "augmentation": functools.partial(augmentation, policy=(), area_range=(0.1, 0.12)),
        "rate": 0.0,
        "epochs": 8.0,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAULTS)
def test_a_run_with_one_fault_is_told_which(kind, tmp_path, monkeypatch, caplog):
    if kind == "identical views":  # which the look at the first views would refuse
        monkeypatch.setattr(figures, "_check_views", lambda views: None)
    assert run(tmp_path, **FAULTS[kind]) == [kind]
    assert f"WARNING, {kind}: " in caplog.text


HEALTHY = {
    "past the warm-up": {"epochs": 10.0, "warmup": 1.0},
    "without labels, by another optimizer": {"labels": "none", "optimizer": momentum, "rate": 0.1},
    "synchronized": {"strategy": functools.partial(create_strategy, cpu_replicas=2)},
    "twice the loss": {"loss": lambda: NTXent(0.5, reduction="reference")},
    "a loss of pairs": {"loss": lambda: MarginTriplet(0.8, semi_hard=True), "epochs": 10.0},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_told_nothing(name, tmp_path):
    assert run(tmp_path, **HEALTHY[name]) == []


@pytest.mark.slow
def test_the_quick_start_is_told_nothing(tmp_path):
    """A narrower network, past its warm-up; and what a start leaves behind."""
    bindings = (
        "resnet.width_multiplier = 0.125",
        "pretrain.global_batch_size = 32",
        "pretrain.epochs = 0.2",
        "pretrain.steps_per_loop = 10",
    )
    arguments = ["--gin_file=gin/quickstart.gin", "--job=pretrain", "--tpu=none"]
    arguments += [f"--gin_bindings={binding}" for binding in bindings]
    assert command_line.main([*arguments, f"--model_dir={tmp_path}"]) == 0
    assert read_warnings(str(tmp_path)) == []
    reports = read_metrics(str(tmp_path))
    assert reports[-1]["step"] == 63
    names = ("effective_rank", "gradient_norm", "trust_ratio_median", "representation_spread")
    assert all(report[name] > 0 for report in reports for name in names)
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["job"], record["total_steps"]) == ("pretrain", 63)
    assert record["plan"]["steps"].startswith("63 (0.2 epochs)")
