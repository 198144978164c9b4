"""If this breaks, two runs seem to have the same settings, or to differ where they do not."""

import ast

import gin
import pytest

from simclr_tf.report.recipe import differences, settings


@pytest.fixture
def recorded():
    """Values -> what gin writes of them, and what it makes of that again."""

    def record(**values):
        gin.parse_config("\n".join(f"{name} = {value!r}" for name, value in values.items()))
        return gin.config_str()

    return record


def test_values_are_those_that_gin_wrote(recorded):
    values = {
        "short": 0.1,
        "text": "a = b  # not a comment",
        "policy": [("flip", 0.5), ("color_jitter", 0.8, 0.5), ("grayscale", 0.2)] * 8,
        "nested": {"key": [1, 2, {"inner": tuple(range(40))}]},
        "none": None,
    }
    found = settings(recorded(**values))
    assert {name: ast.literal_eval(value) for name, value in found.items()} == values


def test_scopes_references_and_comments():
    text = "# a.b = 1\n\ntrain/nt_xent.loss = @nt_xent\npretrain.seed = %SEED\n# None.\n"
    assert settings(text) == {"train/nt_xent.loss": "@nt_xent", "pretrain.seed": "%SEED"}


def test_only_what_differs_is_told():
    first, second = {"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "4", "d": "5"}
    assert differences([first, second]) == [
        ("b", ["2", "4"]),
        ("c", ["3", None]),
        ("d", [None, "5"]),
    ]
    assert differences([first, dict(first)]) == []
