"""If this breaks, a run goes on with other views than it began with, or fails on a TPU alone."""

import functools

import pytest

from simclr_tf.augment import addons, policy
from simclr_tf.data.data import Data
from simclr_tf.errors import RequestError
from simclr_tf.jobs import Context
from simclr_tf.jobs.pretrain import pretrain
from simclr_tf.jobs.pretraining import training_of
from simclr_tf.models.resnet import resnet
from simclr_tf.training.checkpoints import named_groups
from simclr_tf.training.loss_scale import SCALE_METRICS


def put_together(pictures, **kwargs):
    """The run on a folder of 16 px pictures, which is not started."""
    return pretrain(
        Context(model_dir="", data_dir=str(pictures), tpu="none"),
        data=functools.partial(Data, "folder:", 16, "train", "test", 64),
        encoder=functools.partial(resnet, depth=18, width_multiplier=0.125),
        global_batch_size=4,
        epochs=20.0,
        augment_on="device",
        then=lambda run: run,
        **kwargs,
    )


def test_where_files_are_augmented_is_said_and_must_not_change(evaluation):
    run = put_together(evaluation.pictures)
    assert run.settings["augment_on"] == "device"
    assert run.plan.lines(run.simclr)["views"].endswith("augmented on the device")


def test_ops_of_addons_are_refused_on_the_device(evaluation, monkeypatch):
    monkeypatch.setattr(addons, "op", lambda name: None)
    rotating = functools.partial(policy.augmentation, policy=(("addons:rotate", 0.5),))
    with pytest.raises(RequestError, match=r"addons:rotate(.|\n)*pretrain.augment_on = 'host'"):
        put_together(evaluation.pictures, augmentation=rotating)


def test_float16_is_trained_with_a_scaled_loss(evaluation):
    run = put_together(evaluation.pictures, precision="mixed_float16")
    assert run.plan.lines(run.simclr)["compute"].startswith("mixed_float16")
    assert run.settings["optimizer"] == "LARS"
    training = training_of(run)
    assert training.metric_names[-2:] == SCALE_METRICS
    groups = named_groups(training.networks, training.optimizer)
    assert float(groups["loss_scale"]["scale"].numpy()) == 2**15
