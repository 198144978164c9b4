"""If this breaks, what someone else wrote into a file runs as a script in the reader's browser."""

import itertools
import json
import math
import re

import hypothesis
import pytest
from hypothesis import strategies as st

from simclr_tf.report import curves, files, markup

ATTACKS = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "\"><svg onload='alert(1)'>",
    "</style></title></textarea><iframe src=//evil.example>",
    "]]>&lt;&#60;script&#62;",
    "javascript:alert(1)",
    "\ud800 \u2028 \u202e \x00 \x1b",
]
TAGS = re.findall(
    r"\w+",
    """html head meta title style body header main nav aside section article div p h1 h2 h3 h4 a ul
    li span strong code pre dl dt dd table thead tbody tr th td details summary noscript script
    figure figcaption img svg path button""",
)
COUNT = itertools.count()
texts = st.one_of(st.sampled_from(ATTACKS), st.text(max_size=40))
numbers = st.one_of(
    st.floats(), st.integers(), st.sampled_from([10**400, -(10**400)]), st.booleans(), st.none()
)
values = st.recursive(
    st.one_of(texts, numbers),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)


def written(value):
    shown = re.sub("[\x00-\x08\x0b-\x1f\x7f]", "\ufffd", value)
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", shown)


def check_harmless(parsed):
    assert {tag for tag, _ in parsed.elements} <= set(TAGS)
    for tag, attrs in parsed.elements:
        assert not any(name.startswith("on") or name == "style" for name in attrs)
        assert attrs.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert attrs.get("href", "#").startswith("#")
        assert tag != "script" or attrs in ({"type": "application/json", "id": "data"}, {})
    assert len(parsed.scripts) == 2
    json.loads(parsed.scripts[0], parse_constant=pytest.fail)


@pytest.mark.parametrize("attack", ATTACKS)
def test_text_from_files_is_shown_and_has_no_effect(folder, report, attack):
    run = folder().complete()
    start = {"time": attack, "step": attack, "command": attack, "environment": {attack: attack}}
    run.write(
        "run.json", {"plan": {attack: attack}, "starts": [start, start], "total_steps": attack}
    )
    run.write("warnings.jsonl", [{"step": attack, "kind": attack, "text": attack}])
    run.write("metrics.jsonl", [{"step": 1, "epoch": 0.1, attack: 1.0, "loss": attack}])
    run.write("results/knn.json", {"protocol": attack, "numbers": {attack: 0.5}, attack: attack})
    run.write("results/watch.jsonl", [{"step": 1, "job": attack, "numbers": {"top1": 0.5}}])
    parsed = report(run)
    check_harmless(parsed)
    for part in ("recipe", "curves", "evaluation", "environment"):
        assert written(attack) in parsed.sections[part], part
    assert parsed.text.index(written(attack)) < parsed.text.index("Plan and recipe")


@pytest.mark.parametrize("attack", [a for a in ATTACKS if not set(a) & {"\x00", "/", "\ud800"}])
def test_paths_and_recipes_have_no_effect(folder, report, attack):
    run, other = folder(attack).complete(), folder(attack + "2").complete()
    run.write("config.gin", f"a.b = {attack}\n{attack} = 1\n")
    run.write(f"figures/{attack}.png", (run.path / "figures/extra.png").read_bytes())
    for parsed in (report(run), report(run, other)):
        check_harmless(parsed)
        assert attack in parsed.text and attack in parsed.sections["figures"]


@pytest.mark.slow
@hypothesis.settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(
    record=values,
    starts=st.lists(st.dictionaries(st.sampled_from(["time", "step", "environment"]), values)),
    lines=st.lists(st.dictionaries(texts | st.sampled_from(["step", "epoch", "loss"]), values)),
    result=st.dictionaries(texts | st.sampled_from(["numbers", "table", "versions"]), values),
    recipe=texts,
)
def test_whatever_the_files_hold_a_harmless_page_comes_out(
    folder, report, record, starts, lines, result, recipe
):
    run = folder(f"run{next(COUNT)}")
    run.write("run.json", record if isinstance(record, dict) and record else {"starts": starts})
    for name in ("metrics.jsonl", "warnings.jsonl", "results/watch.jsonl"):
        run.write(name, lines)
    run.write("results/knn.json", result)
    run.path.joinpath("config.gin").write_bytes(recipe.encode("utf-8", "replace"))
    check_harmless(report(run, run))


@hypothesis.settings(deadline=None)
@hypothesis.given(value=st.lists(st.floats() | st.none(), min_size=1, max_size=300))
def test_thinning_keeps_ends_extremes_and_order(value):
    curve = curves.Curve(list(range(len(value))), [math.nan if v is None else v for v in value])
    thin = curves.thin(curve, buckets=5)
    assert len(thin.steps) <= 3 * 5 + 2
    assert thin.steps == sorted(set(thin.steps)) and {0, len(value) - 1} <= set(thin.steps)
    finite = curve.finite()
    assert not finite or {min(finite), max(finite)} <= set(thin.values)


@hypothesis.settings(deadline=None)
@hypothesis.given(text=st.text())
def test_lines_that_are_no_json_objects_are_left_out(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("lines") / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + text.encode("utf-8", "replace") + b'\n{"step": 2}\n')
    found = list(files.read_lines(path))
    assert found[0] == {"step": 1} and found[-1] == {"step": 2}
    assert all(isinstance(line, dict) for line in found)


def test_a_report_reads_metrics_as_training_does(folder):
    from simclr_tf.training.reporting import read_metrics

    run = folder().complete()
    lines = (run.path / "metrics.jsonl").read_text()
    run.write("metrics.jsonl", lines + '{"step": 41, "lo')
    assert list(files.read_lines(run.path / "metrics.jsonl")) == read_metrics(str(run.path))


@pytest.mark.parametrize("levels", [25, 300, 900, 100_000])
def test_deep_nesting_is_left_out(folder, report, levels):
    run = folder().complete()
    deep = '{"plan":' * levels + "1" + "}" * levels
    run.write("run.json", deep).write("warnings.jsonl", deep + "\n").write("results/knn.json", deep)
    assert "Finished at step 40" in report(run).text


def test_json_in_a_script_is_that_json():
    value = {"a": "</script><!-- & \u2028", "b": [1.5, None]}
    text = markup.script_json(value)
    assert json.loads(text) == value and not set(text) & set("<>&\u2028")
