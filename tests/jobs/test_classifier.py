"""If this breaks, a classifier is trained by a wrong request, or is told to set what it has not."""

import functools

import pytest
import tensorflow as tf

from simclr_tf.data.dataset import Dataset
from simclr_tf.errors import RequestError
from simclr_tf.jobs import Context
from simclr_tf.jobs.classifier import CROP_AND_FLIP, ClassifierTask, classifier_training
from simclr_tf.models.resnet import resnet
from simclr_tf.training import trainer


def assemble(evaluation, model_dir="", **kwargs):
    """A classifier on a tiny encoder, which is not trained yet."""
    task = ClassifierTask(job="supervised", protocol="none", augmentation=CROP_AND_FLIP)
    return classifier_training(
        Context(model_dir=str(model_dir), data_dir=str(evaluation.pictures), tpu="none"),
        lambda: task,
        data=functools.partial(Dataset, "folder:", 16, "train", "test", 64),
        encoder=functools.partial(resnet, depth=18, width_multiplier=0.125),
        precision="float32",
        **{"global_batch_size": 4, "epochs": 1.0} | kwargs,
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps_per_loop", 0),
        ("checkpoint_every_steps", -1),
        ("keep_checkpoints", 0),
        ("global_batch_size", 0),
    ],
)
def test_counts_are_positive(evaluation, name, value):
    with pytest.raises(
        RequestError, match=rf"train_classifier\.{name} must be .* Received: {value}"
    ):
        assemble(evaluation, **{name: value})


def test_what_does_not_fit_is_told_the_jobs_own_settings(evaluation, tmp_path, monkeypatch):
    def full(strategy, train_step, names):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(trainer, "make_loop", full)
    monkeypatch.setattr(trainer.figures, "first_views", lambda pipeline: None)
    run = assemble(evaluation, tmp_path).run
    with pytest.raises(
        RequestError, match=r"OOM when .*train_classifier\.global_batch_size"
    ) as told:
        trainer.train(run, export=lambda: "")
    assert "pretrain." not in str(told.value)
