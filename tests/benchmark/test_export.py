"""If this breaks, what a run spends on its files is not what the benchmark times."""

import pytest

from simclr_tf import config, jobs
from simclr_tf.benchmark import export
from simclr_tf.jobs.pretrain import pretraining

TINY = (
    "data.source = 'shapes'",
    "data.image_size = 32",
    "resnet.depth = 18",
    "resnet.width_multiplier = 0.125",
    "projection_head.output_dim = 8",
    "pretrain.global_batch_size = 4",
    "pretrain.epochs = 0.01",
)


@pytest.mark.slow
def test_every_stage_is_timed_and_sized(tmp_path, monkeypatch):
    monkeypatch.setattr(export.tempfile, "tempdir", str(tmp_path))
    jobs.load()
    config.load([], TINY)
    run = pretraining(jobs.Context(model_dir="", tpu="none"))
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in export.measure(run, rounds=1).splitlines()[2:]
    ]
    assert [name for name, *_ in rows] == [
        "save a checkpoint",
        "restore it",
        "export the SavedModel",
        "load it",
        "its first request",
        "its second request",
    ]
    parameters = sum(v.numpy().nbytes for v in run.trained.variables) / 2**20
    sizes = {name: float(mib) for name, _, mib in rows if mib}
    # The optimizer's velocities are as large as the weights; files have some overhead.
    assert 1.8 * parameters < sizes["save a checkpoint"] < 2.5 * parameters + 1
    assert parameters * 0.9 < sizes["export the SavedModel"] < parameters + 4
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
