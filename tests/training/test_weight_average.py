"""If this breaks, the averaged weights are not the average, or averaging changes what is learnt."""

import functools

import numpy as np
import pytest

from simclr_tf.distribute.strategy import simulated_replicas
from simclr_tf.errors import RequestError
from simclr_tf.export.weights import pretrained
from simclr_tf.methods.simclr import simclr
from simclr_tf.models.heads import projection_head
from simclr_tf.models.networks import Networks
from simclr_tf.training.checkpoints import Checkpoints
from tests.methods import conformance

METHOD = functools.partial(
    simclr,
    augmentation=conformance.AUGMENTATION,
    projection_head=functools.partial(projection_head, output_dim=5),
)
DECAY = 0.25


@pytest.mark.parametrize("replicas", [1, 2])
def test_it_is_the_average_of_all_weights(replicas):
    run = conformance.assemble(METHOD, simulated_replicas(replicas), average_decay=DECAY)
    weights = conformance.values(run)
    names = [n for n in weights if n.split("/")[0] in ("encoder", "projection_head")]
    expected = {name: weights[name].astype(np.float64) for name in names}
    for step in range(3):
        conformance.train(run, range(step, step + 1))
        weights = conformance.values(run)
        decay = min(DECAY, (2 + step) / (11 + step))  # 2/11, 3/12, then 0.25
        for name in names:
            expected[name] = decay * expected[name] + (1 - decay) * weights[name]
    assert any("moving_mean" in name for name in names)
    for name in names:
        group, _, path = name.partition("/")
        found = weights[f"{group}_average/{path}"]
        np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_training_is_as_without_and_resumes_with_it(tmp_path):
    plain, averaged = (conformance.assemble(METHOD, average_decay=d) for d in (None, DECAY))
    conformance.train(plain, range(4))
    conformance.train(averaged, range(2))
    Checkpoints(str(tmp_path), averaged.groups(), {}).save(2)
    resumed = conformance.assemble(METHOD, average_decay=DECAY, seed=1)
    assert Checkpoints(str(tmp_path), resumed.groups(), {}).restore() == 2
    for run in (averaged, resumed):
        conformance.train(run, range(2, 4))
    expected = conformance.values(averaged)
    for name, value in conformance.values(resumed).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    for name, value in conformance.values(plain).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_an_evaluation_may_take_it(tmp_path):
    run = conformance.assemble(METHOD, average_decay=DECAY)
    conformance.train(run, range(2))
    Checkpoints(str(tmp_path), run.groups(), {}).save(2)
    encoder = conformance.tiny_encoder(image_size=conformance.IMAGE_SIZE)
    weights = pretrained(model_dir=str(tmp_path), average=True)
    assert weights.record() == {"path": str(tmp_path), "step": 2, "average": True}
    assert weights.groups == ("encoder", "projection_head")
    weights.restore(Networks({"encoder": encoder}))
    kept = run.average.networks["encoder_average"].variables
    for variable, average in zip(encoder.variables, kept, strict=True):
        np.testing.assert_array_equal(variable, average)


def test_there_must_be_one(tmp_path):
    run = conformance.assemble(METHOD)
    Checkpoints(str(tmp_path), run.groups(), {}).save(0)
    with pytest.raises(RequestError, match=r"average needs .* which has none"):
        pretrained(model_dir=str(tmp_path), average=True)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_is_a_share(decay):
    with pytest.raises(RequestError, match="average_decay must be None, or from 0 to below 1"):
        conformance.assemble(METHOD, average_decay=decay)
