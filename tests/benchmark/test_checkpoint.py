"""If this breaks, what a save costs is compared with a save that does something else."""

import pytest
import tensorflow as tf

from simclr_tf import config, jobs
from simclr_tf.benchmark import checkpoint
from simclr_tf.jobs.pretrain import pretraining
from simclr_tf.training.checkpoints import Checkpoints

TINY = (
    "data.source = 'shapes'",
    "data.image_size = 32",
    "resnet.depth = 18",
    "resnet.width_multiplier = 0.125",
    "projection_head.output_dim = 8",
    "pretrain.global_batch_size = 4",
    "pretrain.epochs = 0.01",
)


@pytest.fixture(scope="module")
def tiny_run():
    jobs.load()
    config.load([], TINY)
    return pretraining(jobs.Context(model_dir="", tpu="none"))


@pytest.mark.slow
def test_both_ways_take_turns_and_change_nothing(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint.tempfile, "tempdir", str(tmp_path))
    before = [v.numpy() for v in tiny_run.trained.variables]
    size, table = checkpoint.measure(tiny_run, rounds=2).split("\n\n")
    assert size.endswith("GiB of variables")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert [name for name, *_ in rows] == [
        "written before the loop goes on",
        "copied before the loop goes on",
        "until the copy is written",
        "an update of all variables",
        "the first update after a copy",
    ]
    assert rows[0][2] == rows[3][2] == "1.00 (1.00 to 1.00)"
    assert all(
        (a == v.numpy()).all() for a, v in zip(before, tiny_run.trained.variables, strict=True)
    )
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


@pytest.mark.slow
def test_the_baseline_writes_what_a_save_writes(tiny_run, tmp_path):
    groups = tiny_run.groups()
    checkpoint._write(groups, str(tmp_path / "variables"))
    Checkpoints(str(tmp_path), groups, {}).save(0)
    ours = tf.train.load_checkpoint(str(tmp_path / "checkpoints" / "step_00000000" / "variables"))
    baseline = tf.train.load_checkpoint(str(tmp_path / "variables"))
    assert ours.get_variable_to_shape_map() == baseline.get_variable_to_shape_map()
