"""If this breaks, PyTorch gets an encoder whose numbers are not those of the one trained here."""

import pathlib

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from simclr_tf.errors import RequestError
from simclr_tf.export.conversion import convert
from simclr_tf.export.torchvision_format import (
    export_torchvision,
    from_torchvision,
    our_path,
    to_torchvision,
    torchvision_key,
)
from simclr_tf.models.heads import linear_probe
from simclr_tf.models.networks import representation_dim
from simclr_tf.models.resnet import resnet
from simclr_tf.training.checkpoints import Checkpoints, named_groups, read_manifest


def resnet_50_of_torchvision() -> dict[str, tuple[int, ...]]:
    """Keys and shapes of torchvision.models.resnet50().state_dict(), written down from its code."""

    def norm(name: str, channels: int) -> dict:
        leaves = ("weight", "bias", "running_mean", "running_var")
        return {f"{name}.{leaf}": (channels,) for leaf in leaves} | {
            f"{name}.num_batches_tracked": ()
        }

    shapes = {"conv1.weight": (64, 3, 7, 7), **norm("bn1", 64)}
    inputs = 64
    for layer, (planes, blocks) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True)):
        for block in range(blocks):
            name = f"layer{layer + 1}.{block}"
            shapes |= {
                f"{name}.conv1.weight": (planes, inputs, 1, 1),
                **norm(f"{name}.bn1", planes),
            }
            shapes |= {
                f"{name}.conv2.weight": (planes, planes, 3, 3),
                **norm(f"{name}.bn2", planes),
            }
            shapes |= {f"{name}.conv3.weight": (4 * planes, planes, 1, 1)}
            shapes |= norm(f"{name}.bn3", 4 * planes)
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (4 * planes, inputs, 1, 1)
                shapes |= norm(f"{name}.downsample.1", 4 * planes)
            inputs = 4 * planes
    return shapes | {"fc.weight": (1000, 2048), "fc.bias": (1000,)}


def test_keys_and_shapes_are_those_of_resnet_50():
    variables = [
        *resnet(50, image_size=224).variables,
        *linear_probe(1000, input_dim=2048).variables,
    ]
    state = to_torchvision({v.path: v.numpy() for v in variables})
    expected = resnet_50_of_torchvision()
    assert len(expected) == 320  # as torchvision counts
    assert {key: value.shape for key, value in state.items()} == expected
    assert all(value.flags["C_CONTIGUOUS"] for value in state.values())


@pytest.mark.parametrize("depth", [18, 50])
def test_each_key_leads_back(depth):
    encoder = resnet(depth, 0.125, image_size=224)
    keys = {v.path: torchvision_key(v.path) for v in encoder.variables}
    assert len(set(keys.values())) == len(keys)
    assert all(our_path(key) == path for path, key in keys.items())


@pytest.mark.parametrize(
    "key", ["conv2.weight", "conv1.bias", "downsample.0.weight", "layer1.0.se.weight", "fc.gamma"]
)
def test_keys_of_other_networks_are_known_as_such(key):
    assert our_path(key) is None


def forward_of_torchvision(state: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """torchvision's bottleneck ResNet in inference, by its keys, in float64 [N, C, H, W]."""

    def windows(x, size, stride):
        return np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))[
            :, :, ::stride, ::stride
        ]

    def conv(x, name, stride=1):
        kernel = state[f"{name}.weight"].astype(np.float64)
        pad = kernel.shape[-1] // 2
        x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
        return np.einsum("nchwij,fcij->nfhw", windows(x, kernel.shape[-1], stride), kernel)

    def norm(x, name):
        leaves = ("weight", "bias", "running_mean", "running_var")
        w, b, mean, var = (state[f"{name}.{v}"].reshape(-1, 1, 1).astype(float) for v in leaves)
        return (x - mean) / np.sqrt(var + 1e-5) * w + b

    x = np.maximum(norm(conv(x, "conv1", 2), "bn1"), 0)
    x = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], constant_values=-np.inf)
    x = windows(x, 3, 2).max((-2, -1))
    for layer in range(1, 5):
        block = 0
        while f"layer{layer}.{block}.conv1.weight" in state:
            name = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            shortcut = x
            if block == 0:
                shortcut = norm(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
            x = np.maximum(norm(conv(x, f"{name}.conv1"), f"{name}.bn1"), 0)
            x = np.maximum(norm(conv(x, f"{name}.conv2", stride), f"{name}.bn2"), 0)
            x = np.maximum(norm(conv(x, f"{name}.conv3"), f"{name}.bn3") + shortcut, 0)
            block += 1
    return x.mean((2, 3)) @ state["fc.weight"].T + state["fc.bias"]


def random_models(depth: int = 50, **kwargs) -> dict[str, keras.Model]:
    """An encoder and its probe, none of whose weights is an initial one."""
    encoder = resnet(depth, 0.125, image_size=224, **kwargs)
    models = {"encoder": encoder, "probe": linear_probe(3, input_dim=representation_dim(encoder))}
    rng = np.random.default_rng(0)
    for variable in (v for model in models.values() for v in model.variables):
        value = variable.numpy() + rng.normal(0, 0.1, variable.shape)
        variable.assign(np.abs(value) + 0.1 if variable.name == "moving_variance" else value)
    return models


def write_run(model_dir: pathlib.Path, models: dict[str, keras.Model]) -> str:
    Checkpoints(str(model_dir), named_groups(models), {}).save(3)
    return str(model_dir)


def test_torchvision_s_network_gives_our_outputs(tmp_path):
    """At 33 pixels, where TensorFlow pads the pool at both ends, as PyTorch always does."""
    models = random_models()
    output = str(tmp_path / "files" / "encoder.safetensors")
    export_torchvision(write_run(tmp_path / "run", models), output)
    images = np.random.default_rng(1).random((2, 33, 33, 3)).astype(np.float32)
    expected = models["probe"](models["encoder"](images)["final_avg_pool"])
    found = forward_of_torchvision(load_file(output), images.transpose(0, 3, 1, 2).astype(float))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("depth", [18, 50])
def test_there_and_back(tmp_path, depth):
    models = random_models(depth)
    first, again = (str(tmp_path / f"{name}.safetensors") for name in ("first", "again"))
    export_torchvision(write_run(tmp_path / "run", models), first)
    convert(first, str(tmp_path / "converted"))
    saved = read_manifest(str(tmp_path / "converted"), 0)["variables"]
    assert saved == read_manifest(str(tmp_path / "run"), 3)["variables"]
    export_torchvision(str(tmp_path / "converted"), again)
    there, back = load_file(first), load_file(again)
    assert there.keys() == back.keys()
    for key, value in there.items():
        np.testing.assert_array_equal(back[key], value)


def test_half_precision_is_read(tmp_path):
    state = to_torchvision({v.path: v.numpy() for v in random_models()["encoder"].variables})
    half = {k: v.astype(np.float16) if v.ndim else v for k, v in state.items()}
    save_file(half, str(tmp_path / "half.safetensors"))
    architecture = convert(str(tmp_path / "half.safetensors"), str(tmp_path / "run"))
    assert str(architecture) == "ResNet-50 (0.125x), imagenet stem"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: s[k] for k in s if "layer1.0.downs" not in k}, "without layer1.0.downsam"),
        (lambda s: s | {"layer1.0.se.weight": np.zeros(3)}, "Received 1 of .* layer1.0.se.weight"),
        (lambda s: {}, "must hold a ResNet"),
    ],
)
def test_other_networks_are_refused(change, message):
    models = random_models(18)
    state = to_torchvision({v.path: v.numpy() for m in models.values() for v in m.variables})
    with pytest.raises(RequestError, match=message):
        from_torchvision(change(state))


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "text.safetensors").write_text("nothing of the kind")
    for name in ("text", "missing"):
        with pytest.raises(RequestError, match="SOURCE must be a"):
            convert(str(tmp_path / f"{name}.safetensors"), str(tmp_path / "run"))


@pytest.mark.parametrize("kwargs", [{"stem": "cifar"}, {"sk_ratio": 0.0625}])
def test_networks_that_torchvision_has_not(tmp_path, kwargs):
    run = write_run(tmp_path / "run", {"encoder": resnet(50, 0.125, image_size=224, **kwargs)})
    with pytest.raises(RequestError, match="torchvision has only ResNets with the ImageNet stem"):
        export_torchvision(run, str(tmp_path / "out.safetensors"))


def test_outputs_that_are_there_stay(tmp_path):
    (tmp_path / "there.safetensors").write_text("mine")
    run = write_run(tmp_path / "run", {"encoder": resnet(18, 0.125, image_size=224)})
    with pytest.raises(RequestError, match="must be a new file"):
        export_torchvision(run, str(tmp_path / "there.safetensors"))
    with pytest.raises(RequestError, match="must hold a checkpoint"):
        export_torchvision(str(tmp_path / "nothing"), str(tmp_path / "new.safetensors"))
