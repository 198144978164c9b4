"""If this breaks, people rent the wrong TPU on the word of a wrong table."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.errors import RequestError
from simclr_tf.jobs.building import build_simclr
from simclr_tf.models.heads import projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.preflight.analysis import Collective, analyse
from simclr_tf.preflight.chips import CHIPS, parse_topology
from simclr_tf.preflight.flop import training_flop

# Lines as the compiler writes them, shortened.
# ruff: noqa: E501
HLO = """
ENTRY %main.1 (XLA_Args.0: f32[64,16]) -> f32[] {
  %XLA_Args.0 = f32[64,16]{1,0:T(8,128)} parameter(0)
  %fusion.1 = (f32[64]{0:T(256)}, bf16[64,56,28,512]{3,0,2,1:T(8,128)(2,1)}) fusion(%a), kind=kOutput, metadata={op_name="encoder/stem_conv/Conv2D" source_line=1}, backend_config={"window_config":{"estimated_cycles":"2000"}}
  %copy.2 = bf16[8]{0} copy(%b), metadata={op_name="encoder/Cast"}, backend_config={"estimated_cycles":"30"}
  %all-reduce.3 = (f32[8,4]{1,0:T(8,128)}, bf16[16]{0}) all-reduce(%c, %d), replica_groups={{0,1}}
  %all-reduce-start.4 = f32[]{:T(256)} all-reduce-start(%e), replica_groups={{0,1}}
  %select-and-scatter.5 = bf16[4]{0} select-and-scatter(%f, %g, %h), select=%r
  ROOT %bitcast.6 = f32[]{:T(256)} bitcast(%all-reduce-start.4)
}
"""


def test_analysis_of_a_program():
    analysis = analyse(HLO)
    assert analysis.cycles == 2030
    assert [(f.cycles, f.op) for f in analysis.fusions] == [
        (2000, "encoder/stem_conv/Conv2D"),
        (30, "encoder/Cast"),
    ]
    assert analysis.collectives == [Collective("all-reduce", 2, (32 * 4 + 16 * 2) + 4)]
    assert analysis.not_estimated == {"all-reduce": 2, "select-and-scatter": 1}


@pytest.mark.parametrize(
    ("name", "devices"), [("v2:2x2", 8), ("v3:8x8", 128), ("v4:4x4x4", 64), ("v5e:2x4", 8)]
)
def test_devices_of_a_topology(name, devices):
    assert parse_topology(name).num_devices == devices


@pytest.mark.parametrize("name", ["v3", "v9:2x2", "v3:2", "8x8", "v3:2xtwo"])
def test_topologies_that_are_none(name):
    with pytest.raises(RequestError, match="topology must be"):
        parse_topology(name)


def test_clocks_and_peaks_belong_together():
    """Peak / (2 * clock) counts the cells of the matrix units: 128^2 each, in v6e 256^2."""
    for name, chip in CHIPS.items():
        units = chip.peak_flops / (2 * chip.clock_hz) / (256**2 if name == "v6e" else 128**2)
        assert abs(units - round(units)) < 0.03, name
        assert round(units) in (1, 2, 4, 8)


def test_flop_of_a_resnet_50():
    """4.09 G multiplications and additions a 224 px image (He et al., table 1: 3.8 without the
    shortcuts and the stride on the 3x3 convolution)."""
    simclr = build_simclr(
        resnet, projection_head, image_size=224, num_classes=None, precision="float32", seed=0
    )
    flop = training_flop(simclr, tf.TensorSpec([2, 224, 224, 3]))
    head = 2048 * 2048 + 2048 * 128
    np.testing.assert_allclose(flop / (3 * 2 * 2), 4.089e9 + head, rtol=2e-3)
