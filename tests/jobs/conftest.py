"""A tiny run, a folder of small pictures, and the command line that evaluates one on the other."""

import json
import pathlib

import numpy as np
import pytest

from simclr_tf import run
from simclr_tf.models.heads import projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.training.checkpoints import Checkpoints, named_groups
from tests.support.pictures import write_pictures
from tests.support.small_resnet import SMALL_DEPTH

RECIPE = """
include 'gin/base.gin'
data.source = 'folder:'
data.image_size = 16
resnet.depth = 6
resnet.width_multiplier = 0.125
projection_head.output_dim = 8
"""


class Evaluation:
    """Starts jobs on the pictures; `runs` holds the runs `whole` and `encoder_only`."""

    def __init__(self, folder: pathlib.Path):
        self.pictures = folder / "pictures"
        self.runs = folder / "runs"
        self.recipe = folder / "tiny.gin"
        self.recipe.write_text(RECIPE)
        rng = np.random.default_rng(0)
        write_pictures(self.pictures, rng)
        networks = {
            "encoder": resnet(SMALL_DEPTH, 0.125, image_size=16),
            "projection_head": projection_head(output_dim=8, input_dim=64),
        }
        for network in networks.values():
            for variable in network.variables:
                if variable.path.endswith("kernel"):
                    scale = np.sqrt(2 / np.prod(variable.shape[:-1]))
                    variable.assign(scale * rng.normal(size=variable.shape))
        for name, groups in (
            ("whole", networks),
            ("encoder_only", {"encoder": networks["encoder"]}),
        ):
            Checkpoints(str(self.runs / name), named_groups(groups), {}).save(3)

    def job(self, name: str, model_dir: pathlib.Path, *bindings: str, **kwargs) -> int:
        """Runs the program in this process and returns its exit code.

        Args:
          name: of the job.
          model_dir: for the results.
          *bindings: further gin bindings.
          **kwargs: `weights`, a run in `runs` (by default `whole`) or None for no weights;
            `pictures`, a folder; and `runtime`.
        """
        weights = kwargs.get("weights", "whole")
        path = [f"pretrained.path = '{self.runs / weights}'"] if weights else []
        return run.main(
            [
                f"--gin_file={self.recipe}",
                *(f"--gin_bindings={binding}" for binding in path),
                *(f"--gin_bindings={binding}" for binding in bindings),
                f"--data_dir={kwargs.get('pictures', self.pictures)}",
                f"--model_dir={model_dir}",
                f"--job={name}",
                f"--runtime={kwargs.get('runtime', 'tensorflow')}",
            ]
        )

    def result(self, name: str, model_dir: pathlib.Path, *bindings: str, **kwargs) -> dict:
        """Runs a job that ends well and returns its result."""
        assert self.job(name, model_dir, *bindings, **kwargs) == 0
        return json.loads((model_dir / "results" / f"{name}.json").read_text())


@pytest.fixture(scope="session")
def evaluation(tmp_path_factory) -> Evaluation:
    return Evaluation(tmp_path_factory.mktemp("evaluation"))


@pytest.fixture
def refused(evaluation, tmp_path, capfd):
    """Runs a job that must end with 2 and one message, which is returned."""

    def run_job(name: str, *bindings: str, **kwargs) -> str:
        assert evaluation.job(name, tmp_path, *bindings, **kwargs) == 2
        text = capfd.readouterr().err
        assert "Traceback" not in text
        assert not (tmp_path / "results").exists()
        return text[text.index("error: ") :]

    return run_job
