"""If this breaks, a run fails on the TPU that somebody has rented for it, after minutes."""

import functools
import pathlib

import gin
import pytest
import tensorflow as tf

from simclr_tf import config, jobs
from simclr_tf.augment.views import ViewGroup
from simclr_tf.distribute.lowering import LoweringStrategy, lower, not_for_tpu
from simclr_tf.errors import RequestError
from simclr_tf.jobs import preflight
from simclr_tf.jobs.assembly import dtype_policy
from simclr_tf.jobs.classifier_task import CROP_AND_FLIP
from simclr_tf.jobs.preflight import _lower_step, _OnPaper
from simclr_tf.jobs.pretrain import pretraining
from simclr_tf.methods.supervised import Supervised
from simclr_tf.models.classifier import build_classifier, freeze_groups
from simclr_tf.models.heads import projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.optim.factory import lars
from simclr_tf.optim.schedules import WarmupCosine
from simclr_tf.preflight.analysis import analyse
from simclr_tf.preflight.chips import parse_topology
from simclr_tf.preflight.compiled_step import LoweredStep, estimates
from simclr_tf.preflight.table import details, row
from simclr_tf.preflight.tpu_compiler import TpuCompiler
from simclr_tf.training.step import make_train_step
from tests.support.child import in_child
from tests.support.small_resnet import SMALL_BOTTLENECK, SMALL_DEPTH

RECIPES = sorted(
    path
    for path in (pathlib.Path(__file__).parents[2] / "gin").rglob("*.gin")
    if path.stem != "base"
    and "pretrain.epochs" in path.read_text()  # else it is a part of others
    and path.parent.name != "studies"
    and "train_classifier" not in path.read_text()
)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_for_tpus(recipe):
    """At a small batch, resolution and depth, with the stem of the recipe's own resolution."""
    stem = "imagenet" if "imagenet" in recipe.read_text() or recipe.stem == "folder" else "cifar"
    assert_is_for_tpus(recipe, f"resnet.stem = '{stem}'")


@pytest.mark.slow
def test_selective_kernels_are_for_tpus():
    recipe = next(path for path in RECIPES if path.stem == "r50_1x")
    small = ["resnet.stem = 'imagenet'", "resnet.width_multiplier = 0.125"]
    assert_is_for_tpus(recipe, "resnet.sk_ratio = 0.0625", *small)


def assert_is_for_tpus(recipe: pathlib.Path, *bindings: str) -> None:
    small = ["pretrain.global_batch_size = 16", "data.image_size = 96", "pretrain.image_sizes = ()"]
    if "patch_encoder.patch_size = 80" in recipe.read_text():
        small += ["data.image_size = 260", "cpc_loss.negative_groups = 1"]
    depth = SMALL_BOTTLENECK if "resnet.depth = 50" in recipe.read_text() else SMALL_DEPTH
    text = in_child(lowered, recipe, [*small, f"resnet.depth = {depth}", *bindings])
    assert "stablehlo.all_reduce" in text and "bf16" in text
    for unwanted in ("f64", "?x", "dynamic_reshape", "custom_call", "infeed", "outfeed", "send"):
        assert unwanted not in text, unwanted
    operations = [line for line in text.splitlines() if "stablehlo.convolution" in line]
    assert operations and all("bf16" in line for line in operations)


def lowered(recipe: pathlib.Path, bindings: list[str]) -> str:
    """Returns the step of a recipe for 8 replicas, as StableHLO."""
    jobs.load()
    config.load([str(recipe)], bindings)
    run = pretraining(
        jobs.Context(model_dir="unused"),
        data=_OnPaper(num_classes=10),
        strategy=lambda **_: LoweringStrategy(8, values=False),
    )
    return _lower_step(run).stablehlo


@pytest.mark.slow
def test_training_a_classifier_is_for_tpus():
    replicas = LoweringStrategy(8)
    with replicas.scope(), dtype_policy("mixed_bfloat16"):
        networks = build_classifier(
            functools.partial(resnet, SMALL_DEPTH, 0.125),
            projection_head,
            image_size=32,
            num_classes=10,
            head_layers=1,
            zero_init=True,
            seed=0,
        )
        freeze_groups(networks["encoder"], 1)
        schedule = WarmupCosine(0.1, 0, 10)
        optimizer = lars(weight_decay=0.0, learning_rate=schedule, networks=networks)
        optimizer.build(networks.trainable_variables)
    method = Supervised(networks, [ViewGroup("images", [CROP_AND_FLIP], 32)])
    step = make_train_step(method, optimizer)
    batch = {
        "images": tf.TensorSpec([2, 32, 32, 3], tf.float32),
        "labels": tf.TensorSpec([2], tf.int32),
    }
    text = lower(replicas, step, batch).stablehlo
    assert "stablehlo.all_reduce" in text and "bf16" in text
    assert "f64" not in text and "custom_call" not in text


VECTOR = tf.TensorSpec([4])


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (lambda x: tf.strings.length(tf.as_string(x)), "gives string"),
        (lambda x: tf.reduce_sum(tf.cast(x, tf.float64)), "gives float64"),
        (lambda x: tf.boolean_mask(x, x > 0), r"has the shape \(None,\)"),
        (lambda x: tf.py_function(lambda v: v, [x], tf.float32), "runs on the host"),
        (tf.function(lambda x: tf.cast(x, tf.float64)), "gives float64"),
    ],
)
def test_what_no_tpu_runs_is_named(function, fault):
    with pytest.raises(RequestError, match=f"(?s)static shape that a TPU runs.*{fault}"):
        lower(LoweringStrategy(2), function, VECTOR)


def test_faults_inside_of_functions_are_found():
    @tf.function
    def inner(x):
        return tf.cast(tf.as_string(x) == "1", tf.float32)

    graph = tf.function(lambda x: inner(x) + 1.0).get_concrete_function(VECTOR).graph
    assert any("gives string" in line for line in not_for_tpu(graph))


def test_arguments_and_results_of_a_program():
    strategy = LoweringStrategy(2)
    with strategy.scope():
        read, written = tf.Variable([1.0, 2.0]), tf.Variable(3.0)

    def replica_fn(x):
        context = tf.distribute.get_replica_context()
        total = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(x * read))
        written.assign_add(total)
        return total

    program = lower(strategy, replica_fn, tf.TensorSpec([2]))
    assert {id(v) for v in program.variables} == {id(read), id(written)}
    assert [id(v) for v in program.updated] == [id(written)]
    assert "tensor<1x2xi64>" in program.stablehlo  # one group of two replicas
    assert "mhlo." not in program.stablehlo.partition("module @")[2].partition("\n")[2]


PROGRAM = """
ENTRY %main () -> f32[] {
  ROOT %a = f32[] add(%b, %c), backend_config={"estimated_cycles":"1000000000"}
}
"""


def test_a_program_that_does_not_fit_is_not_read(tmp_path):
    """There is none: the compiler writes its message, and nothing else."""
    python = tmp_path / "python"
    said = '{"num_devices": 8, "out_of_memory": "too much"}'
    python.write_text(f"#!/bin/sh\necho '{said}' > $4\n: > $5\n")
    python.chmod(0o755)
    found = TpuCompiler(str(python))("", parse_topology("v3:2x2"))
    assert found == ({"num_devices": 8, "out_of_memory": "too much"}, None)


@pytest.mark.parametrize(("cycles", "share"), [(10**6, 0.5), (10**5, None)])
def test_more_than_the_peak_is_no_estimate(cycles, share):
    topology = parse_topology("v3:2x2")
    chip = topology.chip
    step = LoweredStep("", 1, model_flop=int(0.5 * 10**6 / chip.clock_hz * chip.peak_flops))
    analysis = analyse(PROGRAM.replace("1000000000", str(cycles)))
    if share:
        found = estimates(step, analysis, topology)
        assert found["estimated_utilization"] == pytest.approx(share)
        assert found["estimated_seconds"] == pytest.approx(cycles / 0.94e9)
    else:
        with pytest.raises(RuntimeError, match=r"must not exceed the peak.*v3:2x2.*100000 cycles"):
            estimates(step, analysis, topology)


def test_no_estimate_is_made_of_an_unknown_number_of_runs():
    """Which the table and the details say, where there was a number."""
    loop = """
%body (p: (f32[])) -> (f32[]) {
  ROOT %t = (f32[]) tuple(%x), backend_config={"estimated_cycles":"1000000000"}
}
%until (p: (f32[])) -> pred[] {
  ROOT %c = pred[] compare(%x, %y), direction=LT
}
ENTRY %main () -> (f32[]) {
  ROOT %w = (f32[]) while(%z), condition=%until, body=%body, metadata={op_name="my/loop"}
}
"""
    step, topology = LoweredStep("", 1, 10**9), parse_topology("v3:2x2")
    analysis = analyse(loop)
    found = estimates(step, analysis, topology)
    assert set(found.values()) == {None} and analysis.unknown_loops == ["my/loop"]
    kinds = ("argument", "output", "temporary", "code", "used", "hbm")
    result = {f"{kind}_bytes": 2**30 for kind in kinds} | found | {"model_flop": 10**9}
    result |= {"topology": "v3:2x2", "devices": 8, "images_per_device": 1, "fits": True}
    result |= {"seconds": 1.0, "flop": None, "longest": [], "collectives": analysis.collectives}
    result |= {"not_estimated": {}, "unknown_loops": analysis.unknown_loops}
    assert row(result).split().count("unknown") == 3
    assert "how often my/loop runs" in details(result) and "as compiled" not in details(result)


def test_what_would_fit_is_found_by_trying(monkeypatch, tmp_path):
    """The compiler refuses twice: the second remedy is the answer. The recipe stays."""
    programs = []

    def compile_program(self, stablehlo, topology):
        programs.append(stablehlo)
        if len(programs) < 3:
            return {"num_devices": 8, "versions": {}, "out_of_memory": "too much"}, None
        kinds = ("argument", "output", "temporary", "code", "aliased")
        said = {f"{kind}_bytes": 2**20 for kind in kinds} | {"seconds": 1.0, "flop": 1.0}
        return said | {"versions": {}}, analyse(PROGRAM)

    monkeypatch.setattr(TpuCompiler, "__call__", compile_program)
    jobs.load()
    small = ["pretrain.global_batch_size = 16", f"resnet.depth = {SMALL_DEPTH}"]
    config.load(["gin/quickstart.gin"], small)
    config.check({"quickstart", "preflight"})
    before = gin.config_str()
    result = preflight.preflight(
        jobs.Context(model_dir=str(tmp_path)),
        topologies=("v3:2x2",),
        compiler_python="python3",
        suggest=True,
    )
    assert result.record["numbers"][0]["what_would_fit"] == "resnet.remat = (1, 2, 3, 4)"
    barriers = [text.count("optimization_barrier") for text in programs]
    assert barriers[0] == 0 < barriers[1] < barriers[2]
    assert gin.config_str() == before
