"""If this breaks, docs/reading-the-curves.md tells people of other numbers than a run reports."""

import contextlib
import io
import math
import pathlib
import re

import numpy as np
import pytest

from simclr_tf.objectives.nt_xent import NTXent
from simclr_tf.training.loss_scale import SCALE_METRICS

TEMPERATURES = (0.05, 0.1, 0.5, 1.0)
TEXT = (pathlib.Path(__file__).parents[2] / "docs/reading-the-curves.md").read_text()


@pytest.fixture(scope="module")
def program() -> tuple[str, dict]:
    """What the document's program prints, and its names."""
    [source] = re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    printed, names = io.StringIO(), {}
    with contextlib.redirect_stdout(printed):
        exec(source, names)
    return printed.getvalue(), names


def test_the_table_is_what_the_program_prints(program):
    assert program[0] in TEXT


def test_the_table_is_what_the_formulas_say():
    table = TEXT[: TEXT.index("## The numbers")]
    rows = re.findall(r"^\| (\d+) \| ([\d.| ]+) \|$", table, re.MULTILINE)
    assert [int(batch) for batch, _ in rows] == [64 * 2**i for i in range(7)]
    for batch, cells in rows:
        chance, *pairs = (float(cell) for cell in cells.split("|"))
        others = 2 * int(batch) - 2
        assert chance == pytest.approx(math.log(others + 1), abs=6e-4)
        floors = [-math.log(math.exp(1 / t) / (math.exp(1 / t) + others)) for t in TEMPERATURES]
        assert pairs[::2] == pytest.approx(floors, abs=6e-4)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_what_is_expected_is_the_loss_of_such_projections(program, temperature):
    rng = np.random.default_rng(0)
    one = rng.normal(size=(1024, 128))
    one /= np.linalg.norm(one, axis=1, keepdims=True)
    away = rng.normal(size=one.shape)
    away -= (away * one).sum(1, keepdims=True) * one
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    z = np.concatenate([one, 0.7 * one + math.sqrt(1 - 0.7**2) * away])
    loss, _ = NTXent(temperature)(z)
    expected = program[1]["expected_loss"](1024, temperature)
    assert float(loss) == pytest.approx(expected, rel=0.05, abs=0.002)


def test_every_number_is_explained(build_tiny):
    names = {*build_tiny(rate=0.1).names, *(metric.name for metric in SCALE_METRICS)}
    cells = " ".join(line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `"))
    cells = cells.replace("`_", "`trust_ratio_")
    assert names <= set(re.findall(r"`(\w+)`", cells))


def test_every_warning_is_explained(build_tiny):
    methods = [build_tiny(rate=0.1, loss=NTXent(t)).method for t in (0.01, 0.5)]
    kinds = {rule.kind for method in methods for chain in method.rules() for rule in chain}
    kinds |= {fault.kind for method in methods for fault in method.faults()}
    assert len(kinds) == 8
    for kind in (*kinds, "batch norm not synchronized"):
        assert f"\n| `{kind}` |" in TEXT
