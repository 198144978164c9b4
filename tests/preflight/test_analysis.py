"""If this breaks, people rent the wrong TPU on the word of a wrong table."""

import numpy as np
import pytest

from simclr_tf.errors import RequestError
from simclr_tf.methods.simclr import simclr
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
    assert [(f.cycles, f.times, f.op) for f in analysis.fusions] == [
        (2000, 1, "encoder/stem_conv/Conv2D"),
        (30, 1, "encoder/Cast"),
    ]
    assert analysis.collectives == [Collective("all-reduce", 2, (32 * 4 + 16 * 2) + 4)]
    assert analysis.not_estimated == {"all-reduce": 2, "select-and-scatter": 1}
    assert analysis.loops == 0


# A loop of 4 iterations, which stands beside it, around one of 3, which follows from its counter.
LOOPS = """
%fused (p.0: f32[8]) -> f32[8] {
  %p.0 = f32[8]{0} parameter(0)
  ROOT %inside.1 = f32[8]{0} negate(%p.0), backend_config={"estimated_cycles":"77"}
}

%inner_body (p.1: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p.1 = (s32[]{:T(128)}, f32[8]{0:T(8)S(1)}) parameter(0)
  %i.1 = s32[]{:T(128)} get-tuple-element(%p.1), index=0
  %x.1 = f32[8]{0} get-tuple-element(%p.1), index=1
  %one.1 = s32[]{:T(128)} constant(1)
  %next.1 = s32[]{:T(128)} add(%i.1, %one.1)
  %reduced.1 = f32[8]{0} all-reduce(%x.1), replica_groups={{0,1}}
  %fusion.1 = f32[8]{0} fusion(%reduced.1), kind=kLoop, calls=%fused, backend_config={"window_config":{"estimated_cycles":"10"}}
  ROOT %state.1 = (s32[]{:T(128)}, /*index=1*/f32[8]{0}) tuple(%next.1, /*index=1*/%fusion.1)
}

%inner_test (p.2: (s32[], f32[8])) -> pred[] {
  %three.1 = s32[]{:T(128)} constant(3)
  %p.2 = (s32[]{:T(128)}, f32[8]{0:T(8)S(1)}) parameter(0)
  %i.2 = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  %waste.1 = f32[8]{0} copy(%x), backend_config={"estimated_cycles":"1000"}
  ROOT %less.1 = pred[]{:T(512)} compare(%i.2, %three.1), direction=LT
}

%outer_body (p.3: (f32[8])) -> (f32[8]) {
  %p.3 = (f32[8]{0}) parameter(0)
  %zero.1 = s32[]{:T(128)} constant(0)
  %zero.2 = s32[]{:T(128)} copy(%zero.1)
  %x.2 = f32[8]{0} get-tuple-element(%p.3), index=0
  %scatter.1 = f32[8]{0} select-and-scatter(%x.2, %x.2, %zero.1), select=%r
  %start.1 = (s32[]{:T(128)}, f32[8]{0}) tuple(%zero.2, %x.2)
  %while.1 = (s32[]{:T(128)}, f32[8]{0}) while(%start.1), condition=%inner_test, body=%inner_body
  %x.3 = f32[8]{0} get-tuple-element(%while.1), index=1
  ROOT %state.2 = (f32[8]{0}) tuple(%x.3), backend_config={"estimated_cycles":"100000"}
}

%outer_test (p.4: (f32[8])) -> pred[] {
  ROOT %true.1 = pred[] constant(true)
}

ENTRY %main.1 (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %start.2 = (f32[8]{0}) tuple(%a)
  %while.2 = (f32[8]{0}) while(%start.2), condition=%outer_test, body=%outer_body, metadata={op_name="steps"}, backend_config={"known_trip_count":{"n":"4"}}
  %called.1 = f32[8]{0} call(%a), to_apply=%fused
  ROOT %b = f32[8]{0} get-tuple-element(%while.2), index=0
}
"""


def test_a_loop_counts_as_often_as_it_runs():
    """A body n times and a condition n + 1 times; a fusion counts by its own estimate alone."""
    analysis = analyse(LOOPS)
    assert analysis.cycles == 4 * (3 * 10 + (3 + 1) * 1000 + 100000) + 77
    assert [(f.name, f.times) for f in analysis.fusions] == [
        ("state.2", 4),
        ("waste.1", 16),
        ("fusion.1", 12),
        ("inside.1", 1),
    ]
    assert analysis.collectives == [Collective("all-reduce", 12, 12 * 32)]
    assert analysis.not_estimated == {"all-reduce": 12, "select-and-scatter": 4}
    assert (analysis.loops, analysis.unknown_loops) == (2, [])


def test_a_loop_that_ends_nobody_knows_when_has_no_estimate():
    analysis = analyse(LOOPS.replace('"known_trip_count"', '"unknown"'))
    assert analysis.cycles is None and analysis.unknown_loops == ["steps"]
    assert [f.name for f in analysis.fusions] == ["inside.1"]
    assert analysis.collectives == [Collective("all-reduce", None, None)]
    assert analysis.not_estimated == {"all-reduce": None, "select-and-scatter": None}


def test_which_branch_runs_nobody_knows():
    either = "conditional(%p, %a, %a), true_computation=%fused, false_computation=%fused"
    analysis = analyse(LOOPS.replace("call(%a), to_apply=%fused", either))
    assert analysis.cycles is None and analysis.unknown_loops == ["called.1"]
    assert "inside.1" not in [f.name for f in analysis.fusions]


@pytest.mark.parametrize(
    ("old", "new", "times"),
    [
        ("constant(3)", "constant(0)", 0),
        ("direction=LT", "direction=LE", 4),
        ("s32[]{:T(128)} constant(1)", "s32[]{:T(128)} constant(2)", 2),
        ("copy(%zero.1)", "constant(-5)", 8),
        ("compare(%i.2, %three.1), direction=LT", "compare(%three.1, %i.2), direction=GT", 3),
        # An unknown number: of another comparison, start, step or limit.
        ("direction=LT", "direction=NE", None),
        ("copy(%zero.1)", "negate(%zero.1)", None),
        ("add(%i.1, %one.1)", "multiply(%i.1, %one.1)", None),
        ("constant(3)", "convert(%waste.1)", None),
        ("constant(1)", "constant(0)", None),
    ],
)
def test_count_of_a_loop_from_its_counter(old, new, times):
    assert LOOPS.count(old) == 1
    analysis = analyse(LOOPS.replace(old, new))
    found = {f.name: f.times for f in analysis.fusions}
    assert found.get("fusion.1") == (None if times is None else 4 * times)
    assert (analysis.cycles is None) == (times is None)


def test_limit_that_is_handed_on_from_iteration_to_iteration():
    """As the compiler does where it moves constants out of a loop and fuses the condition."""
    text = """
%sum (p.1: s32[], p.2: s32[]) -> s32[] {
  %p.1 = s32[] parameter(0)
  %p.2 = s32[] parameter(1)
  ROOT %sum.1 = s32[] add(%p.1, %p.2)
}
%body (p.3: (s32[], s32[], s32[])) -> (s32[], s32[], s32[]) {
  %p.3 = (s32[], s32[], s32[]) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.3), index=0
  %limit.1 = s32[] get-tuple-element(%p.3), index=1
  %step.1 = s32[] get-tuple-element(%p.3), index=2
  %next.1 = s32[] fusion(%step.1, %i.1), kind=kLoop, calls=%sum, backend_config={"estimated_cycles":"5"}
  ROOT %state.1 = (s32[], s32[], s32[]) tuple(%next.1, %limit.1, %step.1)
}
%test (p.4: (s32[], s32[], s32[])) -> pred[] {
  %p.4 = (s32[], s32[], s32[]) parameter(0)
  %i.2 = s32[] get-tuple-element(%p.4), index=0
  %limit.2 = s32[] get-tuple-element(%p.4), index=1
  ROOT %less.1 = pred[] compare(%i.2, %limit.2), direction=LT
}
ENTRY %main.1 () -> (s32[], s32[], s32[]) {
  %zero.1 = s32[] constant(0)
  %limit.3 = s32[] constant(9)
  %step.3 = s32[] constant(2)
  %start.1 = (s32[], s32[], s32[]) tuple(%zero.1, %limit.3, %step.3)
  ROOT %while.1 = (s32[], s32[], s32[]) while(%start.1), condition=%test, body=%body
}
"""
    assert analyse(text).cycles == 5 * len(range(0, 9, 2))


@pytest.mark.parametrize(
    ("name", "devices"),
    [("v2:2x2", 8), ("v3:8x8", 128), ("v4:4x4x4", 64), ("v5e:2x4", 8), ("v5e:1x1", 1)],
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


@pytest.mark.own_process
def test_flop_of_a_resnet_50():
    """4.09 G multiplications and additions a 224 px image (He et al., table 1: 3.8 without the
    shortcuts and the stride on the 3x3 convolution)."""
    method = simclr(encoder=resnet, image_size=224)
    flop = training_flop(method, images=1)
    head = 2048 * 2048 + 2048 * 128
    np.testing.assert_allclose(flop / (3 * 2 * 2), 4.089e9 + head, rtol=2e-3)
