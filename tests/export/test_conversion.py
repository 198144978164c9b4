"""If this breaks, a published checkpoint becomes another network than it was."""

import importlib
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import config, jobs
from simclr_tf.errors import RequestError
from simclr_tf.export.conversion import convert
from simclr_tf.export.reference_format import places_of_keys, places_of_names
from simclr_tf.methods.simclr import simclr
from simclr_tf.models.heads import linear_probe, projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.training.checkpoints import complete_steps, named_groups, restore_groups
from simclr_tf.training.probe import online_probe

ROOT = pathlib.Path(__file__).resolve().parents[2]
NETWORKS = {
    "r18_cifar": "ResNet-18 (1x), cifar stem, projection head of 2 layers to 128",
    "r18_cifar_head3": "ResNet-18 (1x), cifar stem, projection head of 3 layers to 128",
    "r50_imagenet_stem_head3": "ResNet-50 (1x), imagenet stem, projection head of 3 layers to 128",
    "r50_2x_head2": "ResNet-50 (2x), imagenet stem, projection head of 2 layers to 128",
    "r50_sk_head3": "ResNet-50 (1x), imagenet stem, selective kernels (sk_ratio 0.0625), "
    "projection head of 3 layers to 128",
}
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
STEM_KERNEL = f"model/resnet_model/initial_conv_relu_max_pool/0/conv2d/kernel{VALUE}"
STEM_BETA = f"model/resnet_model/initial_conv_relu_max_pool/2/bn/beta{VALUE}"
NUMBERED = re.compile(r"(conv2d|padding|relu|block|dense|normalization)(?:_(\d+))?/")
LARGE = [pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS if "r50" in name]


def tool(*arguments: str) -> int:
    """The exit code of tools/convert_checkpoint.py."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        return importlib.import_module("convert_checkpoint").main(arguments)
    finally:
        sys.path.remove(str(ROOT / "tools"))


def object_tree(values: dict[str, np.ndarray], names: dict[str, str]) -> dict:
    """Nested objects whose attributes are those that the reference's keys spell."""
    tree: dict = {}
    for key, value in values.items():
        *parents, leaf = key.removesuffix(VALUE).split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = tf.Variable(value, name=names.get(key, leaf).removesuffix(":0"))
    return tree


def write_checkpoint(folder: pathlib.Path, values: dict[str, np.ndarray]) -> str:
    """As the reference's `Checkpoint(model=..., global_step=..., optimizer=...)` with momentum."""
    tree = object_tree(values, {})
    others, tree = {k: v for k, v in tree.items() if k != "model"}, tree["model"]
    optimizer = tf.compat.v1.train.MomentumOptimizer(0.1, 0.9)
    stem = tree["resnet_model"]["initial_conv_relu_max_pool"]["0"]["conv2d"]["kernel"]
    optimizer.apply_gradients([(tf.zeros_like(stem), stem)])
    stem.assign(values[STEM_KERNEL])
    step = tf.Variable(1234, dtype=tf.int64)
    checkpoint = tf.train.Checkpoint(model=tree, global_step=step, optimizer=optimizer, **others)
    prefix = checkpoint.save(str(folder / "ckpt"))
    keys = {key for key, _ in tf.train.list_variables(prefix)}
    assert set(values) < keys
    assert any(".OPTIMIZER_SLOT" in key for key in keys)
    return prefix


def write_saved_model(folder: pathlib.Path, golden) -> None:
    """As the reference exports: the model, and a list of its trainable variables."""
    names = {v["checkpoint_key"]: v["variable_name"] for v in golden.variables}
    trainable = {v["variable_name"] for v in golden.variables if v["trainable"]}
    module = tf.Module()
    module.model = object_tree(golden_values(golden), names)["model"]
    variables = [v for v in tf.nest.flatten(dict(module.model)) if v.name in trainable]
    module.trainable_variables_list = variables
    tf.saved_model.save(module, str(folder))
    keys = {k for k, _ in tf.train.list_variables(str(folder / "variables" / "variables"))}
    assert sum(key.startswith("trainable_variables_list/") for key in keys) == len(trainable)


def golden_values(golden) -> dict[str, np.ndarray]:
    return {variable["checkpoint_key"]: value for variable, value in golden.values()}


def assert_outputs(model_dir: pathlib.Path, golden) -> None:
    """What the model_dir's own recipe builds and its checkpoint fills gives the golden outputs."""
    jobs.load()
    config.load([str(model_dir / "config.gin")], [])
    config.check({"pretrain", "linear_eval"})
    method = simclr(encoder=resnet, image_size=golden.image_size)
    networks = method.networks | online_probe(10, method.networks["encoder"]).networks
    (step,) = complete_steps(str(model_dir))
    restore_groups(str(model_dir), step, named_groups(networks))
    found = method.embed({"images": golden.images()}, training=False)
    for name, value in found.items():
        expected = golden.outputs[f"inference_{name}"]
        scale = np.abs(value).max()
        for entries, part in ((np.ravel(value)[:8], "first"), (np.ravel(value)[-8:], "last")):
            np.testing.assert_allclose(entries, expected[part], rtol=0, atol=1e-5 * scale)
    row = golden.outputs["inference_representation_full_row0"]
    np.testing.assert_allclose(found["representation"][0], row, atol=1e-5 * np.abs(row).max())
    row = golden.outputs["inference_projection_row0"]
    np.testing.assert_allclose(found["projection"][0], row, atol=1e-5 * np.abs(row).max())


@pytest.mark.parametrize("network", ["r18_cifar", "r18_cifar_head3", *LARGE])
def test_a_checkpoint_gives_the_reference_s_outputs(golden, tmp_path, capsys, network):
    write_checkpoint(tmp_path / "theirs", golden_values(golden(network)))
    assert tool(str(tmp_path / "theirs"), f"--model_dir={tmp_path / 'ours'}") == 0
    assert f"{NETWORKS[network]}, linear classifier of 10 classes\n" in capsys.readouterr().out
    assert complete_steps(str(tmp_path / "ours")) == [1234]
    assert_outputs(tmp_path / "ours", golden(network))


@pytest.mark.parametrize("network", ["r18_cifar", *LARGE[-1:]])
def test_a_saved_model_gives_the_reference_s_outputs(golden, tmp_path, network):
    write_saved_model(tmp_path / "theirs", golden(network))
    assert tool(str(tmp_path / "theirs"), f"--model_dir={tmp_path / 'ours'}") == 0
    assert_outputs(tmp_path / "ours", golden(network))


@pytest.mark.parametrize("built_before", [0, 95])
@pytest.mark.parametrize("network", NETWORKS)
def test_keys_and_names_say_the_same(golden, network, built_before):
    """Each place once, also where the process had built as many layers of each class before."""

    def named(variable: dict) -> str:
        def later(match: re.Match) -> str:
            return f"{match[1]}_{int(match[2] or 0) + built_before}/"

        return NUMBERED.sub(later, variable["variable_name"])

    variables = golden(network).variables
    by_key = places_of_keys(v["checkpoint_key"] for v in variables)
    by_name = places_of_names(map(named, variables))
    assert len(set(by_key.values())) == len(variables)
    for variable in variables:
        place = by_key[variable["checkpoint_key"]]
        assert by_name[named(variable)] == place
        assert place[1].rpartition("/")[2] == variable["kind"]


@pytest.fixture
def tiny(golden) -> dict[str, np.ndarray]:
    """A ResNet-18 an eighth as wide with its heads, under the reference's keys."""
    encoder = resnet(18, 0.125, "cifar", image_size=32)
    models = {
        "encoder": encoder,
        "projection_head": projection_head(output_dim=16, input_dim=64),
        "probe": linear_probe(3, input_dim=64),
    }
    ours = {(g, v.path): v.numpy() for g, model in models.items() for v in model.variables}
    keys = [v["checkpoint_key"] for v in golden("r18_cifar").variables]
    return {key: ours[place] for key, place in places_of_keys(keys).items()}


@pytest.mark.slow
def test_jobs_run_on_what_was_converted(tiny, tmp_path):
    """Each in a process of its own, as a person starts them."""
    write_checkpoint(tmp_path / "theirs", tiny)
    model_dir = tmp_path / "ours"

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    source = str(tmp_path / "theirs" / "ckpt-1")
    run("tools/convert_checkpoint.py", source, f"--model_dir={model_dir}")
    recipe = [f"--gin_file={model_dir / 'config.gin'}", f"--model_dir={model_dir}"]
    assert f"{model_dir}/saved_model/1234" in run("-m", "simclr_tf.run", *recipe, "--job=export")
    manifest = json.loads((model_dir / "checkpoints/step_00001234/manifest.json").read_text())
    assert manifest["settings"] == {"converted_from": source}
    assert set(manifest["variables"]) == {"encoder", "projection_head", "probe"}


def head(values: dict, layer: int) -> list[str]:
    return [key for key in values if f"_projection_head/linear_layers/{layer}/" in key]


def without(values: dict, keys: list[str]) -> dict:
    return {key: value for key, value in values.items() if key not in keys}


def stretched(values: dict, part: str, shape: tuple[int, ...]) -> dict:
    return {key: np.zeros(shape) if part in key else value for key, value in values.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: without(v, [STEM_BETA]), "encoder: stem_bn/beta is missing"),
        (lambda v: without(v, head(v, 1)), "must end in a layer without an offset.*encoder_only"),
        (
            lambda v: v | {f"model/other/kernel{VALUE}": np.zeros(3)},
            "do not:\n  model/other/kernel",
        ),
        (
            lambda v: v | {f"other/{STEM_BETA}": np.zeros(8)},
            "several for stem_bn/beta of the encod",
        ),
        (
            lambda v: v | {f"model/supervised_head/linear_layer/dense/scale{VALUE}": np.zeros(3)},
            "probe: probe_dense/scale is left over",
        ),
        (
            lambda v: stretched(v, "block_groups/1/layers/1/conv2d_bn_layers/2", (3, 3, 16, 24)),
            r"block_group2_block2_conv2/kernel is \(3, 3, 16, 24\), not \(3, 3, 16, 16\)",
        ),
        (
            lambda v: stretched(v, "supervised_head/linear_layer/dense/kernel", (64, 1)),
            "at least 2 classes. Received: 1. Use --encoder_only",
        ),
        (
            lambda v: without(v, [k for k in v if "block_groups/2/layers/1" in k]),
            r"Received: basic blocks in groups of \(2, 2, 1, 2\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tiny, tmp_path, change, message):
    prefix = write_checkpoint(tmp_path / "theirs", change(tiny))
    with pytest.raises(RequestError, match=f"(?s){message}"):
        convert(prefix, str(tmp_path / "ours"))
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("missing", "options"),
    [([0, 1], []), ([1], ["--encoder_only"])],
    ids=["no head, as in SimCLRv1", "head cut off behind the layer that was fine-tuned from"],
)
def test_networks_without_a_whole_head(tiny, tmp_path, missing, options):
    values = without(tiny, [key for layer in missing for key in head(tiny, layer)])
    prefix = write_checkpoint(tmp_path / "theirs", values)
    assert tool(prefix, f"--model_dir={tmp_path / 'ours'}", *options) == 0
    encoder = resnet(18, 0.125, "cifar", image_size=32)
    restore_groups(str(tmp_path / "ours"), 1234, named_groups({"encoder": encoder}))
    np.testing.assert_array_equal(encoder.get_layer("stem_bn").beta, tiny[STEM_BETA])
    assert "projection_head" not in (tmp_path / "ours" / "config.gin").read_text()


def test_sources_that_are_none(tiny, tmp_path, capsys):
    def refused(source, *, model_dir="ours") -> str:
        assert tool(str(source), f"--model_dir={tmp_path / model_dir}") == 2
        return capsys.readouterr().err

    assert "which is not there" in refused(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    assert "which has none. Name the prefix" in refused(tmp_path / "empty")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        session.run(tf.compat.v1.get_variable("base_model/conv2d/kernel", [3]).initializer)
        saver = tf.compat.v1.train.Saver()
        first = saver.save(session, str(tmp_path / "tf1" / "model.ckpt-1"))
    assert "names no objects, as those of TensorFlow 1" in refused(first)
    assert "must be new or empty" in refused(first, model_dir="tf1")

    folder = tmp_path / "theirs"
    prefix = write_checkpoint(folder, tiny)
    data = pathlib.Path(f"{prefix}.data-00000-of-00001")
    whole = data.read_bytes()
    data.write_bytes(whole[:-9] + bytes(9))
    assert "cannot be read" in refused(prefix, model_dir="damaged")
    data.write_bytes(whole[:1000])
    assert "cannot be read" in refused(prefix)
    (folder / "checkpoint").unlink()
    (folder / "ckpt-2.index").write_bytes((folder / "ckpt-1.index").read_bytes())
    assert "several: ckpt-1.index, ckpt-2.index. Name the prefix of one" in refused(folder)


@pytest.mark.parametrize(
    "arguments", [[], ["--model_dir=a", "--to=torch"], ["--to=torch"], ["--output=a.safetensors"]]
)
def test_arguments_that_contradict(arguments, capsys):
    with pytest.raises(SystemExit) as exit:
        tool("source", *arguments)
    assert exit.value.code == 2
    assert "Give either --model_dir" in capsys.readouterr().err
