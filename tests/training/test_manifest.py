"""If this breaks, a damaged or foreign manifest ends a run with a traceback."""

import copy
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simclr_tf.training.checkpoints import complete_steps
from simclr_tf.training.manifest import is_manifest
from simclr_tf.training.reporting import read_metrics

GOOD = {
    "step": 3,
    "settings": {"total_steps": 9},
    "variables": {"encoder": {"dense/kernel": [[2, 3], "float32"]}},
    "files": {"variables.index": 4, "variables.data-00000-of-00001": 5},
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def changed(*path, value=None):
    content = copy.deepcopy(GOOD)
    place = content
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return content


def test_what_is_written_is_a_manifest():
    assert is_manifest(GOOD)


@pytest.mark.parametrize(
    "content",
    [
        *(changed(name) for name in GOOD),
        changed("step", value=True),
        changed("step", value=-1),
        changed("variables", "encoder", value=[]),
        changed("variables", "encoder", "dense/kernel", value=[[2, 3]]),
        changed("variables", "encoder", "dense/kernel", value=[["2"], "float32"]),
        changed("variables", "encoder", "dense/kernel", value=[[2], None]),
        changed("files", "../../secret", value=3),
        changed("files", "/etc/passwd", value=3),
        changed("files", "variables.index", value="4"),
    ],
)
def test_of_other_types_it_is_none(content):
    assert not is_manifest(content)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    JSON | st.builds(lambda name, value: {**GOOD, name: value}, st.sampled_from(list(GOOD)), JSON)
)
def test_any_json_is_one_or_none(content):
    if is_manifest(content):
        assert all(isinstance(group, dict) for group in content["variables"].values())
        assert set(content) >= set(GOOD)


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    text=JSON.map(json.dumps)
    | st.text(max_size=40)
    | st.sampled_from(["[" * 10**5, '{"files": ' * 10**4, json.dumps(GOOD), "9" * 5000])
)
def test_a_checkpoint_of_any_manifest_is_passed_over(tmp_path_factory, text):
    model_dir = tmp_path_factory.getbasetemp() / "run"
    folder = model_dir / "checkpoints" / "step_00000003"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(text, errors="replace")
    assert complete_steps(str(model_dir)) == []


@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    lines=st.lists(JSON.map(json.dumps) | st.text(max_size=20) | st.just("[" * 10**5), max_size=4)
)
def test_reports_are_read_and_what_is_none_is_left_out(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "metrics.jsonl"
    path.write_text("\n".join([*lines, '{"step": 1}']), errors="replace")
    reports = read_metrics(str(path.parent))
    assert reports[-1] == {"step": 1} and all(isinstance(r, dict) for r in reports)
