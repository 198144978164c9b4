"""If this breaks, an evaluation judges other weights than those that were asked for."""

import os
import shutil

import numpy as np
import pytest

from simclr_tf.errors import RequestError
from simclr_tf.export.weights import UNTRAINED, pretrained
from simclr_tf.models.heads import projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.training.checkpoints import Checkpoints, named_groups
from tests.support.small_resnet import SMALL_DEPTH


def build():
    return {
        "encoder": resnet(SMALL_DEPTH, 0.125, image_size=16),
        "projection_head": projection_head(output_dim=8, input_dim=64),
    }


def values(networks):
    return {v.path: v.numpy() for network in networks.values() for v in network.variables}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with checkpoints 3 and 5 of random weights, and the values of each."""
    folder = str(tmp_path_factory.mktemp("run"))
    networks, rng, written = build(), np.random.default_rng(0), {}
    for step in (3, 5):
        for network in networks.values():
            network.set_weights([rng.normal(size=w.shape) for w in network.get_weights()])
        Checkpoints(folder, named_groups(networks), {}).save(step)
        written[step] = values(networks)
    return folder, written


@pytest.mark.parametrize(
    ("path", "step", "expected"),
    [
        ("{run}", None, 5),
        ("{run}/", 3, 3),
        ("{run}/checkpoints/step_00000003", None, 3),
        ("", None, 5),
    ],
)
def test_a_run_or_one_of_its_checkpoints(run, path, step, expected):
    folder, written = run
    weights = pretrained(path.format(run=folder), step, model_dir=folder)
    assert weights.record() == {"path": folder, "step": expected}
    networks = build()
    weights.restore(networks)
    for name, value in values(networks).items():
        np.testing.assert_array_equal(value, written[expected][name])


def test_untrained_leaves_the_initial_weights(run):
    networks = build()
    before = values(networks)
    pretrained(UNTRAINED, model_dir=run[0]).restore(networks)
    for name, value in values(networks).items():
        np.testing.assert_array_equal(value, before[name])


def test_an_encoder_alone_is_taken_of_a_whole_run(run):
    folder, written = run
    networks = {"encoder": build()["encoder"]}
    pretrained(model_dir=folder).restore(networks)
    for name, value in values(networks).items():
        np.testing.assert_array_equal(value, written[5][name])


def test_a_network_that_follows_another_is_chosen_by_its_prefix(tmp_path):
    """As BYOL saves an encoder and its target with variables of the same names."""
    rng, networks, written = np.random.default_rng(0), {}, {}
    for prefix in ("", "target_"):
        pair = build()
        for network in pair.values():
            network.set_weights([rng.normal(size=w.shape) for w in network.get_weights()])
        networks |= {prefix + name: network for name, network in pair.items()}
        written[prefix] = values(pair)
    Checkpoints(str(tmp_path), named_groups(networks), {}).save(3)
    for prefix, expected in written.items():
        found = pretrained(prefix=prefix, model_dir=str(tmp_path))
        assert found.record().get("prefix", "") == prefix
        restored = build()
        found.restore(restored)
        for name, value in values(restored).items():
            np.testing.assert_array_equal(value, expected[name])
    followed = pretrained(prefix="target_", model_dir=str(tmp_path), followed=True)
    assert followed.at(3).groups == ("encoder", "projection_head")
    with pytest.raises(RequestError, match=r"Received: 'key_' for step 3.*target_encoder"):
        pretrained(prefix="key_", model_dir=str(tmp_path))


def test_a_path_may_begin_with_the_home_folder(run, monkeypatch):
    folder, _ = run
    monkeypatch.setenv("HOME", os.path.dirname(folder))
    found = pretrained(f"~/{os.path.basename(folder)}", model_dir="elsewhere")
    assert (found.path, found.step) == (folder, 5)


def test_a_folder_of_any_name_is_read(run, tmp_path):
    """TensorFlow takes the path of a checkpoint as a pattern."""
    folder, written = run
    copy = str(shutil.copytree(folder, tmp_path / "r[18] \\a*?%s {x}\n'é"))
    networks = build()
    pretrained(copy, model_dir="elsewhere").restore(networks)
    for name, value in values(networks).items():
        np.testing.assert_array_equal(value, written[5][name])


def test_what_is_not_there_is_named(run, tmp_path):
    folder, _ = run
    with pytest.raises(RequestError, match=r"a complete checkpoint 4.*complete ones are 3, 5"):
        pretrained(step=4, model_dir=folder)
    with pytest.raises(RequestError, match="it has none"):
        pretrained(model_dir=str(tmp_path))
    with pytest.raises(RequestError, match="must have the part 'classifier'"):
        pretrained(model_dir=folder).restore({"classifier": build()["projection_head"]})
    with pytest.raises(RequestError, match="same architecture"):
        pretrained(model_dir=folder).restore({"encoder": resnet(34, 0.125, image_size=16)})


def test_a_partial_checkpoint_is_passed_over(run, tmp_path):
    networks = build()
    checkpoints = Checkpoints(str(tmp_path), named_groups(networks), {})
    for step in (1, 2):
        checkpoints.save(step)
    (tmp_path / "checkpoints" / "step_00000002" / "manifest.json").unlink()
    assert pretrained(model_dir=str(tmp_path)).step == 1


def test_a_checkpoint_that_cannot_be_read_is_one_clear_error(run, tmp_path):
    """Its files are as long as they were, so that only reading tells."""
    folder = shutil.copytree(run[0], tmp_path / "damaged")
    shutil.rmtree(folder / "checkpoints" / "step_00000003")
    for file in (folder / "checkpoints" / "step_00000005").glob("variables.*"):
        whole = file.read_bytes()
        file.write_bytes(bytes(len(whole)))
        with pytest.raises(RequestError, match=r"step 5 in .* must be intact.*pretrained\.step"):
            pretrained(model_dir=str(folder)).restore(build())
        file.write_bytes(whole)
    pretrained(model_dir=str(folder)).restore(build())
