"""If this breaks, a job that trains ends on a TPU host before its first step, or after its last.

The strategy is TensorFlow's own for TPUs, over cores that do not exist. What would run on them, the
loop of steps and the features of test images, is traced instead; all else is real.
"""

import inspect
import json

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import run
from simclr_tf.distribute import strategy as strategies
from simclr_tf.evaluation.features import FrozenEncoder
from simclr_tf.training import runtime
from simclr_tf.training.loop import LoopResult
from tests.support.fake_tpu import fake_tpu_strategy, faults, ops_on_tpu

pytestmark = pytest.mark.slow
CORES = 4
TINY = (
    "data.image_size = 32",
    "resnet.width_multiplier = 0.125",
    "pretrain.global_batch_size = 8",
    "pretrain.epochs = 2.0",
    "learning_rate.warmup_epochs = 0.0",
    "train_classifier.global_batch_size = 8",
    "train_classifier.epochs = 2.0",
)
STEPS = 7


@pytest.fixture(scope="module")
def programs():
    """What loops ("steps") and evaluations ("features") would have run on the TPU, in order."""
    traced = []

    def make_loop(strategy, train_step, names, real=runtime.make_loop):
        steps = inspect.getclosurevars(real(strategy, train_step, names)).nonlocals["steps"]

        def run_steps(iterator, num_steps):
            graph = steps.get_concrete_function(iterator, tf.constant(num_steps)).graph
            traced.append(("steps", ops_on_tpu(graph)))
            return LoopResult({name: 1.0 for name in names}, None, 0.0)

        return run_steps

    def features(frozen, embed, images, batch):
        zeros = tf.zeros([batch // CORES, *images.shape[1:]])
        shares = frozen._strategy.experimental_distribute_values_from_function(lambda _: zeros)
        concrete = embed.get_concrete_function(shares)
        traced.append(("features", ops_on_tpu(concrete.graph)))
        return {
            layer: np.zeros([len(images), frozen._outputs[layer].shape[-1]], np.float32)
            for layer in concrete.structured_outputs
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategies, "tpu_name", lambda asked: "local")
        patch.setattr(strategies, "tpu_strategy", lambda name: fake_tpu_strategy(CORES))
        patch.setattr(runtime, "make_loop", make_loop)
        patch.setattr(FrozenEncoder, "_over_replicas", features)
        yield traced


@pytest.fixture(scope="module")
def start(tmp_path_factory, photos):
    """Runs a job on the photos; returns its folder."""
    runs = tmp_path_factory.mktemp("runs")

    def start(name, *recipes, **bindings):
        files = ("gin/folder.gin", *recipes)
        bound = [*TINY, *(f"{key.replace('__', '.')} = {value}" for key, value in bindings.items())]
        code = run.main(
            [
                *(f"--gin_file={file}" for file in files),
                *(f"--gin_bindings={binding}" for binding in bound if usable(binding, recipes)),
                f"--data_dir={photos}",
                f"--model_dir={runs / name}",
                "--tpu=none",  # nothing is to be looked for
            ]
        )
        assert code == 0
        return runs / name

    return start


def usable(binding: str, recipes: tuple[str, ...]) -> bool:
    """What no job of the recipe uses is refused."""
    return bool(recipes) or not binding.startswith("train_classifier")


@pytest.fixture(scope="module")
def pretrained(start, programs):
    return start("pretrained")


def check_trained(folder, programs):
    """What was traced is what a TPU runs, and the run has left what others look for."""
    steps = next(ops for kind, ops in reversed(programs) if kind == "steps")
    assert any("CrossReplicaSum" in op.type for op in steps)
    assert not [fault for _, ops in programs for op in ops for fault in faults(op)]
    [manifest] = (folder / "checkpoints" / f"step_{STEPS:08}").glob("manifest.json")
    assert json.loads(manifest.read_text())["step"] == STEPS
    reports = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert reports[-1]["step"] == STEPS and reports[-1]["skipped_images"] == 0
    encoder = tf.saved_model.load(str(folder / "saved_model" / str(STEPS)))
    assert encoder(tf.zeros([2, 32, 32, 3])).shape[0] == 2


def test_pretraining(pretrained, programs):
    check_trained(pretrained, programs)
    plan = json.loads((pretrained / "run.json").read_text())["plan"]
    assert plan["replicas"].startswith("TPUStrategy") and f"({CORES} on" in plan["replicas"]
    assert plan["views"].endswith("on the device")


@pytest.mark.parametrize("job", ["finetune_100pct", "supervised", "linear_eval_sgd"])
def test_training_a_classifier(job, start, pretrained, programs):
    weights = {} if job == "supervised" else {"pretrained__path": f"'{pretrained}'"}
    warmup = {"train_classifier__warmup_epochs": 0.0} if job == "supervised" else {}
    folder = start(job, f"gin/{job}.gin", **weights, **warmup)
    check_trained(folder, programs)
    assert programs[-1][0] == "features"
    [result] = (folder / "results").glob("*.json")
    assert json.loads(result.read_text())["n"]["test"] == 24
