"""If this breaks, a run says that it starts from weights, and starts from others."""

import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import save_file

from simclr_tf.augment.policy import augmentation
from simclr_tf.errors import RequestError
from simclr_tf.export.saved_model import export_networks
from simclr_tf.export.torchvision_format import to_torchvision
from simclr_tf.jobs.initial_weights import InitialWeights
from simclr_tf.methods.simclr import SimCLR, simclr
from simclr_tf.models.heads import linear_probe, projection_head
from simclr_tf.models.networks import Networks, copy_values
from simclr_tf.models.resnet import resnet
from simclr_tf.objectives.nt_xent import NTXent
from simclr_tf.training.checkpoints import Checkpoints, named_groups

encoder = functools.partial(resnet, depth=18, width_multiplier=0.125)


def build(output_dim: int = 8, encoder=encoder, image_size: int = 16) -> SimCLR:
    return simclr(
        augmentation=augmentation,
        projection_head=functools.partial(projection_head, output_dim=output_dim),
        loss=lambda: NTXent(0.5),
        encoder=encoder,
        image_size=image_size,
    )


def values(networks):
    return {n: {v.path: v.numpy() for v in model.variables} for n, model in networks.items()}


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value)


@dataclasses.dataclass
class Earlier:
    """What an earlier run wrote, with random values."""

    method: SimCLR
    values: dict
    folder: str


@pytest.fixture(scope="module")
def earlier(tmp_path_factory) -> Earlier:
    method, folder = build(), str(tmp_path_factory.mktemp("run"))
    probe, rng = Networks({"probe": linear_probe(3, input_dim=64)}), np.random.default_rng(0)
    for variable in method.networks.variables:
        variable.assign(rng.normal(size=variable.shape))
    for step in (3, 5):
        Checkpoints(folder, named_groups(method.networks | probe), {}).save(step)
    return Earlier(method, values(method.networks), folder)


def fill(path: str, method: SimCLR, *parts: str, is_new: bool = True) -> dict[str, str]:
    probe = Networks({"probe": linear_probe(4, input_dim=64)})
    return InitialWeights.of(path, parts).fill(method, probe, is_new)


@pytest.mark.parametrize("place", ["", "/checkpoints/step_00000003"])
def test_a_run_gives_encoder_and_head_and_says_what_starts_fresh(earlier, place):
    method = build()
    lines = fill(earlier.folder + place, method)
    for name, found in values(method.networks).items():
        assert_equal(found, earlier.values[name])
    assert lines == {
        "initial weights": f"{earlier.folder}, step {3 if place else 5}",
        "  loaded": "encoder (105 variables), projection_head (9 variables)",
        "  left fresh": "probe, optimizer",
    }


def test_a_head_that_is_not_there_is_left_fresh(earlier, tmp_path):
    encoder_alone = {"encoder": earlier.method.networks["encoder"]}
    Checkpoints(str(tmp_path), named_groups(encoder_alone), {}).save(1)
    method = build()
    before = values(method.networks)
    lines = fill(str(tmp_path), method)
    after = values(method.networks)
    assert_equal(after["encoder"], earlier.values["encoder"])
    assert_equal(after["projection_head"], before["projection_head"])
    assert lines["  left fresh"] == "projection_head (not there), probe, optimizer"


def test_a_head_that_does_not_fit_is_refused_and_can_be_left_out(earlier):
    method = build(output_dim=16)
    before = values(method.networks)
    with pytest.raises(RequestError) as error:
        fill(earlier.folder, method)
    assert "projection_2_dense/kernel is [64, 8] in the checkpoint, [64, 16] here" in str(
        error.value
    )
    assert "take only what fits: pretrain.initial_parts = ('encoder',)" in str(error.value)
    for name, found in values(method.networks).items():
        assert_equal(found, before[name])
    lines = fill(earlier.folder, method, "encoder")
    assert_equal(values(method.networks)["encoder"], earlier.values["encoder"])
    assert lines["  left fresh"] == "projection_head (not asked for), probe, optimizer"


def test_an_encoder_that_does_not_fit_has_its_first_differences_named(earlier):
    method = build(encoder=functools.partial(resnet, depth=34, width_multiplier=0.125))
    with pytest.raises(RequestError, match=r"no block_group1_block3_conv1/kernel(.|\n)*more"):
        fill(earlier.folder, method, "encoder")


def test_a_saved_model_is_read(earlier, tmp_path):
    folder = export_networks(
        str(tmp_path),
        7,
        {**earlier.method.networks, "classifier": linear_probe(3, input_dim=64)},
        lambda: {**build().networks, "classifier": linear_probe(3, input_dim=64)},
        image_size=16,
        recipe="",
    )
    method = build()
    lines = fill(folder, method)
    for name, found in values(method.networks).items():
        assert_equal(found, earlier.values[name])
    assert lines["initial weights"].endswith("step 7")
    assert lines["  not used"] == "classifier"


def test_a_file_in_torchvision_s_format_is_read(tmp_path):
    imagenet = functools.partial(resnet, depth=18, width_multiplier=0.125, stem="imagenet")
    written, method = build(encoder=imagenet), build(encoder=imagenet)
    path = str(tmp_path / "resnet.safetensors")
    source = written.networks["encoder"]
    state = to_torchvision({v.path: v.numpy() for v in source.variables})
    save_file(state | {"fc.weight": np.zeros([5, 64], np.float32)}, path)
    lines = fill(path, method)
    assert_equal(values(method.networks)["encoder"], values({"": source})[""])
    assert lines["initial weights"] == path
    with pytest.raises(RequestError, match=r"stem_conv/kernel is \[7, 7, 3, 8\]"):
        fill(path, build())


def test_a_run_that_resumes_reads_nothing():
    method = build()
    before = values(method.networks)
    lines = fill("/no/such/folder", method, is_new=False)
    assert lines == {"initial weights": "/no/such/folder, read when the run began"}
    for name, found in values(method.networks).items():
        assert_equal(found, before[name])


def test_a_follower_that_is_not_there_equals_its_network_again(earlier):
    """Otherwise a target network would start from random values beside a trained one."""
    method = build()
    follower = encoder(image_size=16)
    copy_values(Networks({"": method.networks["encoder"]}), Networks({"": follower}))
    method = dataclasses.replace(method, followers=Networks({"target": follower}))
    lines = fill(earlier.folder, method)
    assert_equal(values({"": follower})[""], earlier.values["encoder"])
    assert "target (equal to encoder)" in lines["  loaded"]


def test_every_replica_has_the_weights(earlier):
    devices = [f"CPU:{i}" for i in range(2)]
    with tf.distribute.MirroredStrategy(devices).scope():
        method = build()
    fill(earlier.folder, method)
    for variable in method.networks["encoder"].variables:
        for copy in variable.value.values:
            np.testing.assert_array_equal(copy, earlier.values["encoder"][variable.path])


def test_other_requests_are_refused(earlier, tmp_path):
    with pytest.raises(RequestError, match=r"set pretrain.initial_weights to a run's folder"):
        fill(str(tmp_path), build())
    with pytest.raises(RequestError, match=r"networks that both .*: encoder, projection_head\. Re"):
        fill(earlier.folder, build(), "encode")
    with pytest.raises(RequestError, match=r"must come with pretrain.initial_weights"):
        InitialWeights.of("", ("encoder",))
    probe = {"probe": linear_probe(3, input_dim=64)}
    Checkpoints(str(tmp_path), named_groups(probe), {}).save(1)
    with pytest.raises(RequestError, match=r"must hold a network of this run.*which has probe"):
        fill(str(tmp_path), build())
    broken = {"encoder": encoder(image_size=16)}
    broken["encoder"].variables[0].assign(np.full(broken["encoder"].variables[0].shape, np.nan))
    Checkpoints(str(tmp_path), named_groups(broken), {}).save(2)
    with pytest.raises(RequestError, match=r"must hold finite numbers.*whose encoder"):
        fill(str(tmp_path), build())
