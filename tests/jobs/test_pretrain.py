"""If this breaks, a run goes on with other views than it began with, or fails on a TPU alone."""

import functools
import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import run as program
from simclr_tf.augment import addons, policy
from simclr_tf.augment.ops import Op
from simclr_tf.context import Context
from simclr_tf.data.dataset import Dataset
from simclr_tf.distribute.lowering import LoweringStrategy
from simclr_tf.errors import RequestError
from simclr_tf.export import load_encoder
from simclr_tf.jobs import assembly
from simclr_tf.jobs.pretrain import pretraining
from simclr_tf.methods.simclr import simclr
from simclr_tf.methods.supcon import supcon
from simclr_tf.models.resnet import resnet
from simclr_tf.training import plan as plan_module
from simclr_tf.training import trainer
from simclr_tf.training.checkpoints import Checkpoints
from simclr_tf.training.loss_scale import SCALE_METRICS
from tests.support.small_resnet import SMALL_DEPTH


def put_together(pictures, model_dir="", **kwargs):
    """The run on a folder of 16 px pictures, which is not started."""
    return pretraining(
        Context(model_dir=str(model_dir), data_dir=str(pictures), tpu="none"),
        data=functools.partial(Dataset, "folder:", 16, "train", "test", 64),
        **{
            "encoder": functools.partial(resnet, depth=SMALL_DEPTH, width_multiplier=0.125),
            "global_batch_size": 4,
            "epochs": 20.0,
            "augment_on": "device",
        }
        | kwargs,
    )


def test_where_files_are_augmented_is_said_and_must_not_change(evaluation):
    run = put_together(evaluation.pictures)
    assert run.settings["augment_on"] == "device"
    assert run.plan_lines()["views"].endswith("augmented on the device")


def one_size(*, image_size):
    images = keras.Input((image_size, image_size, 3), name="images")
    pool = keras.layers.GlobalAveragePooling2D(dtype="float32")
    return keras.Model(images, {"final_avg_pool": pool(images)}, name="encoder")


@pytest.mark.parametrize(
    "smaller",
    [{"image_sizes": [(8, 0.5)]}, {"method": functools.partial(simclr, small_views=2)}],
    ids=["stages", "small views"],
)
def test_smaller_views_need_an_encoder_of_any_size(evaluation, smaller):
    assert put_together(evaluation.pictures, encoder=one_size)
    with pytest.raises(RequestError, match=r"takes, 16 pixels\. Received: views of 8, 16 pixels"):
        put_together(evaluation.pictures, encoder=one_size, **smaller)


def test_the_batch_may_follow_from_the_number_of_images(evaluation):
    run = put_together(
        evaluation.pictures, global_batch_size=lambda num_examples: num_examples // 4
    )
    assert run.plan.global_batch_size == run.plan.source.num_examples // 4 > 4


def test_a_method_that_needs_labels_refuses_data_without(evaluation, tmp_path):
    assert put_together(evaluation.pictures, method=supcon).method.name == "SupCon"
    for i, picture in enumerate(sorted(evaluation.pictures.rglob("*.*"))[:8]):
        shutil.copy(picture, tmp_path / f"{i}{picture.suffix}")
    with pytest.raises(RequestError, match=r"SupCon needs labels\. .*which has none"):
        put_together(tmp_path, method=supcon)


@pytest.mark.parametrize("compiles", [True, False])
@pytest.mark.parametrize("strategy", [tf.distribute.get_strategy, lambda: LoweringStrategy(2)])
def test_the_policy_runs_on_tpus_and_where_the_host_does_not_compile(
    evaluation, monkeypatch, compiles, strategy
):
    for module in (assembly, plan_module):
        monkeypatch.setattr(module, "host_compiles", lambda: compiles)
    run = put_together(evaluation.pictures, augment_on="auto", strategy=lambda **_: strategy())
    on_tpus = isinstance(run.strategy, LoweringStrategy)
    place = "device" if on_tpus or not compiles else "host"
    lines = run.plan_lines()
    assert run.pipeline.augment_on == place and lines["views"].endswith(f"on the {place}")
    assert ("not compiled" in lines["host"]) != compiles


@pytest.mark.parametrize("place", ["host", "device"])
def test_a_run_that_goes_on_keeps_its_place(evaluation, monkeypatch, tmp_path, place):
    started = put_together(evaluation.pictures, tmp_path, augment_on=place)
    Checkpoints(str(tmp_path), started.groups(), started.settings).save(0)
    for compiles in (True, False):
        monkeypatch.setattr(assembly, "host_compiles", lambda there=compiles: there)
        run = put_together(evaluation.pictures, tmp_path, augment_on="auto")
        assert run.pipeline.augment_on == place and run.settings == started.settings


def test_ops_of_addons_are_refused_on_the_device(evaluation, monkeypatch):
    monkeypatch.setattr(addons, "op", lambda name: Op(name, tf.identity, compiles=False))
    rotating = functools.partial(policy.augmentation, policy=(("addons:rotate", 0.5),))
    with pytest.raises(RequestError, match=r"addons:rotate(.|\n)*pretrain.augment_on = 'host'"):
        put_together(evaluation.pictures, method=functools.partial(simclr, augmentation=rotating))


def test_float16_is_trained_with_a_scaled_loss(evaluation):
    run = put_together(evaluation.pictures, precision="mixed_float16")
    assert run.plan_lines()["compute"].startswith("mixed_float16")
    assert run.settings["optimizer"] == "LARS"
    assert tuple(run.metrics[-2:]) == SCALE_METRICS
    assert float(run.groups()["loss_scale"]["scale"].numpy()) == 2**15


@pytest.mark.parametrize("name", ["steps_per_loop", "checkpoint_every_steps", "keep_checkpoints"])
def test_counts_are_positive(evaluation, name):
    with pytest.raises(RequestError, match=rf"pretrain\.{name} must be at least 1. Received: 0"):
        put_together(evaluation.pictures, **{name: 0})


@pytest.fixture
def start(evaluation, monkeypatch):
    """Starts a run, which saves its step 0, draws no views and takes no step."""
    monkeypatch.setattr(trainer._Trainer, "_train_from", lambda *_: None)
    monkeypatch.setattr(trainer.figures, "first_views", lambda pipeline: None)
    return lambda folder, **kwargs: trainer.train(
        put_together(evaluation.pictures, folder, **kwargs), export=lambda: ""
    )


def saved(folder):
    """Variables of step 0: group and path -> value."""
    reader = tf.train.load_checkpoint(f"{folder}/checkpoints/step_00000000/variables")
    names = [name for name in reader.get_variable_to_shape_map() if ".ATTRIBUTES" in name]
    return {name: reader.get_tensor(name) for name in names}


def test_a_run_starts_from_another_and_resumes_without_it(start, tmp_path, capfd):
    first, second = tmp_path / "first", tmp_path / "second"
    with pytest.raises(RequestError, match=r"set pretrain.initial_weights to a run's folder"):
        start(second, initial_weights=str(first))
    start(first)
    capfd.readouterr()
    start(second, initial_weights=str(first), seed=1)
    assert "  loaded         encoder (35 variables), projection_head" in capfd.readouterr().out
    source, found = saved(first), saved(second)
    networks = [name for name in found if name.startswith(("encoder/", "projection_head/"))]
    assert len(networks) == 44
    for name in networks:
        np.testing.assert_array_equal(found[name], source[name])
    assert any(np.any(found[n] != source[n]) for n in found if n.startswith("probe/"))
    first.rename(tmp_path / "moved")
    start(second, initial_weights=str(first), seed=1)
    plan = json.loads((second / "run.json").read_text())["plan"]
    assert plan["initial weights"] == f"{first}, read when the run began"


def test_a_run_of_another_length_is_refused_with_the_way_to_go_on(start, tmp_path):
    start(tmp_path)
    with pytest.raises(RequestError) as error:
        start(tmp_path, epochs=40.0)
    advice = f"another --model_dir, with pretrain.initial_weights = '{tmp_path}'."
    assert str(error.value).endswith(advice)
    with pytest.raises(RequestError, match=r"or another --model_dir\.$"):
        start(tmp_path, seed=1)


def test_a_run_on_paper_reads_no_weights(evaluation):
    strategy = LoweringStrategy(2, values=False)
    put_together(evaluation.pictures, strategy=lambda **_: strategy, initial_weights="missing")


@pytest.mark.slow
def test_a_network_of_keras_is_pretrained_exported_and_evaluated(evaluation, tmp_path):
    """Micro-batches compute it twice; one binding chooses it for every job."""
    folder = tmp_path / "run"
    recipe = (
        "pretrain.encoder = @keras_application",
        "keras_application.name = 'MobileNet'",
        "data.image_size = 32",
    )
    training = (
        "pretrain.global_batch_size = 8",
        "pretrain.microbatch_size = 4",
        "pretrain.epochs = 0.3",
        "learning_rate.warmup_epochs = 0.0",
        "pretrain.online_probe = False",
    )
    flags = [f"--data_dir={evaluation.pictures}", f"--model_dir={folder}", "--job=pretrain"]
    bindings = [f"--gin_bindings={binding}" for binding in (*recipe, *training)]
    assert program.main([f"--gin_file={evaluation.recipe}", *flags, *bindings]) == 0
    [exported] = (folder / "saved_model").iterdir()
    numbers = []
    for weights in (folder, exported):
        path = f"pretrained.path = '{weights}'"
        result = evaluation.result("linear_eval", tmp_path / weights.name, *recipe, path)
        numbers.append((result["numbers"], result["checkpoint"]["fingerprint"]))
    assert numbers[0] == numbers[1]
    pixels = np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)
    served = tf.saved_model.load(str(exported))(pixels)
    assert served.shape == (2, 1024)
    np.testing.assert_allclose(load_encoder(str(exported))(pixels), served, rtol=1e-4, atol=1e-5)
