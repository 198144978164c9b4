"""If this breaks, a classifier is trained by a wrong request, or is told to set what it has not."""

import functools
import pathlib

import pytest
import tensorflow as tf

from simclr_tf.context import Context
from simclr_tf.data.dataset import Dataset
from simclr_tf.errors import RequestError
from simclr_tf.jobs.classifier import classifier_training
from simclr_tf.jobs.classifier_task import CROP_AND_FLIP, ClassifierTask
from simclr_tf.models.resnet import resnet
from simclr_tf.training import runtime, trainer
from tests.support.small_resnet import SMALL_DEPTH


def assemble(evaluation, model_dir="", **kwargs):
    """A classifier on a tiny encoder, which is not trained yet."""
    task = ClassifierTask(job="supervised", protocol="none", augmentation=CROP_AND_FLIP)
    return classifier_training(
        Context(model_dir=str(model_dir), data_dir=str(evaluation.pictures), tpu="none"),
        lambda: task,
        data=functools.partial(Dataset, "folder:", 16, "train", "test", 64),
        encoder=functools.partial(resnet, depth=SMALL_DEPTH, width_multiplier=0.125),
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


def test_a_batch_of_more_than_the_images_is_refused_with_one_that_trains(evaluation):
    with pytest.raises(RequestError, match=r"Largest valid: 30\. ") as told:
        assemble(evaluation, global_batch_size=4096, epochs=30.0)
    assert "train_classifier.global_batch_size must not exceed" in str(told.value)
    assert "Add --gin_bindings='train_classifier.global_batch_size = 8'." in str(told.value)


def test_the_paper_s_recipe_on_a_hundred_images_is_refused_with_what_to_type(
    evaluation, refused, tmp_path
):
    """1 % of ten pictures a class is one of each."""
    recipe = gin_file("finetune_1pct.gin")
    words = refused("finetune", *recipe)
    assert "(0.01 of each class" not in words and "3 images. Largest valid: 3." in words
    assert "train_classifier.global_batch_size = 2'" in words
    assert "train_classifier.epochs = 67.0'" in words


def gin_file(name):
    """The bindings of a recipe that stands alone."""
    text = (pathlib.Path(__file__).parents[2] / "gin" / name).read_text()
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_supervised_training_takes_a_batch_of_one(evaluation):
    run = assemble(evaluation, global_batch_size=1, weight_decay=0.25, decay_classifier=True).run
    assert run.plan.global_batch_size == 1
    assert run.plan_lines()["classifier"] == "its kernel decayed by 0.25 in the loss"


def test_what_does_not_fit_is_told_the_jobs_own_settings(evaluation, tmp_path, monkeypatch):
    def run_steps(batches, steps):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(runtime, "make_loop", lambda *arguments: run_steps)
    monkeypatch.setattr(trainer.figures, "first_views", lambda pipeline: None)
    run = assemble(evaluation, tmp_path).run
    with pytest.raises(
        RequestError, match=r"OOM when .*train_classifier\.global_batch_size"
    ) as told:
        trainer.train(run, export=lambda: "")
    assert "pretrain." not in str(told.value)
