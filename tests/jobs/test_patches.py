"""If this breaks, an encoder of patches is trained, and cannot be used."""

import shutil

import numpy as np
import pytest
import tensorflow as tf

CPC = (
    "pretrain.encoder = @patch_encoder",
    "patch_encoder.patch_size = 8",
    "patch_encoder.stride = 4",
    "resnet.normalization = 'layer_norm'",
)
STEPS = (
    "pretrain.method = @cpc",
    "pretrain.optimizer = @adam",
    "pretrain.global_batch_size = 10",
    "pretrain.epochs = 1.0",
    "learning_rate.warmup_epochs = 0.0",
    "context_network.blocks = 1",
    "context_network.hidden_dim = 4",
)


@pytest.mark.slow
def test_whole_images_are_evaluated_fine_tuned_and_exported(evaluation, tmp_path):
    """By every job, with the encoder that the recipe pretrains."""
    folder = tmp_path / "cpc"
    assert evaluation.job("pretrain", folder, *CPC, *STEPS, weights=None) == 0
    path = f"pretrained.path = '{folder}'"
    for job, own in (("knn", ["knn.k = 3"]), ("linear_eval", [])):
        found = evaluation.result(job, tmp_path / job, *CPC, *own, path, weights=None)
        numbers = found["numbers"]
        assert numbers["top1"] > 0.5  # of three colours
    tuned = ("train_classifier.global_batch_size = 10", "train_classifier.epochs = 1.0", path)
    assert evaluation.job("finetune", tmp_path / "tuned", *CPC, *tuned, weights=None) == 0
    images = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    [exported] = (folder / "saved_model").iterdir()
    first = tf.saved_model.load(str(exported))(images)
    shutil.rmtree(exported)
    assert evaluation.job("export", folder, *CPC, weights=None) == 0
    np.testing.assert_array_equal(tf.saved_model.load(str(exported))(images), first)
