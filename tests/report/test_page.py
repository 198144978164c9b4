"""If this breaks, a report leaves out what a run has written, or says it of another run."""

import base64
import hashlib
import json
import math

import pytest

from simclr_tf.errors import RequestError
from simclr_tf.report import pictures


def chart(parsed, title):
    """The data of the chart of this title."""
    names = [attrs["aria-label"] for tag, attrs in parsed.elements if attrs.get("role") == "img"]
    [number] = [i for i, name in enumerate(names) if name.startswith(f"Chart of {title},")]
    return parsed.data["charts"][number]


def pngs(parsed):
    return [attrs for tag, attrs in parsed.elements if tag == "img"]


def test_a_complete_run_shows_all_it_has(folder, report):
    parsed = report(folder().complete())
    assert list(parsed.sections) == [
        *("recipe", "curves", "evaluation", "views", "map", "neighbours", "figures", "speed"),
        "environment",
    ]
    for text in ("Finished at step 40", "1 warning", "collapse", "embeddings collapsed"):
        assert text in parsed.text
    assert "shapes, 10,000 images" in parsed.sections["recipe"]
    assert "('grayscale', 0.2)" in parsed.sections["recipe"]
    assert "77.31 %" in parsed.sections["evaluation"]
    assert "320" in parsed.sections["speed"] and "2.00 %" in parsed.sections["speed"]
    assert "16 s" in parsed.sections["speed"]  # 40 steps of 128 images at 320 a second
    assert "tensorflow: 2.21.0 → 2.20.0" in parsed.sections["environment"]
    assert len(pngs(parsed)) == 4  # all but curves.png
    assert all(attrs["src"].startswith("data:image/png;base64,") for attrs in pngs(parsed))


def test_the_policy_names_the_style_and_the_script_that_are_there(folder, report):
    parsed = report(folder().complete())
    [policy] = [a["content"] for _, a in parsed.elements if a.get("http-equiv")]
    for kind, text in (("style", parsed.style), ("script", parsed.scripts[1])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_every_number_has_a_curve_and_new_ones_come_last(folder, report):
    run = folder().complete()
    parsed = report(run)
    reports = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    drawn = [(line["x"], line["y"]) for made in parsed.data["charts"] for line in made["lines"]]
    steps = [r["step"] for r in reports]
    for name in set(reports[0]) - {"step", "epoch"}:
        values = [r[name] for r in reports]
        assert any(x == steps and y == pytest.approx(values, rel=1e-5) for x, y in drawn), name
    headings = parsed.sections["curves"]
    assert headings.index("Machine") < headings.index("Other") < headings.index("queue length")


def test_the_loss_of_any_method_stands_beside_chance(folder, report):
    run = folder().complete()
    metrics = run.path / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace("contrastive_loss", "byol_loss"))
    parsed = report(run)
    loss, chance = chart(parsed, "Loss")["lines"]
    assert loss["y"][:2] == pytest.approx([5.8, 5.6]) and chance["y"][0] == pytest.approx(
        5.54, 0.01
    )
    assert "byol loss" in parsed.text.partition("online probe")[0]


def test_several_runs_stand_side_by_side(folder, report):
    cold, warm = folder("cold").complete("0.1"), folder("warm").complete("0.5")
    warm.write("results/knn.json", {"numbers": {"top1": 0.8124}})
    parsed = report(cold, warm)
    differences = parsed.sections["recipe"].split("Plan\n")[0].split()
    assert differences[-5:] == ["cold", "warm", "nt_xent.temperature", "0.1", "0.5"]
    knn = parsed.sections["evaluation"].partition("weighted neighbours")[2].split("\n")
    row = knn.index("top-1")
    assert [cell for cell in knn[row + 1 :] if cell][:2] == ["77.31 %", "81.24 %"]
    loss = chart(parsed, "Loss")["lines"]
    assert [line["run"] for line in loss] == [0, 1, 0]
    assert [line["style"] for line in loss] == ["c0 d0", "c1 d0", "reference"]
    assert "cold: 1 warning" in parsed.text and "warm: 1 warning" in parsed.text


def test_runs_of_one_name_are_told_apart(folder, report):
    parsed = report(folder("a/run").complete(), folder("b/run").complete())
    assert "a/run" in parsed.text and "b/run" in parsed.text
    same = folder("same").complete()
    assert "same (2)" in report(same, same).text


def test_an_unfinished_run_is_shown_as_far_as_it_came(folder, report):
    run = folder().complete()
    text = (run.path / "metrics.jsonl").read_text().splitlines(keepends=True)
    run.write("metrics.jsonl", "".join(text[:5]) + text[5][:30])
    parsed = report(run)
    assert "Unfinished: step 10 of 40" in parsed.text
    assert chart(parsed, "Total loss")["lines"][0]["x"] == [2, 4, 6, 8, 10]


@pytest.mark.parametrize(
    "missing",
    [
        "run.json",
        "metrics.jsonl",
        "warnings.jsonl",
        "config.gin",
        "results/knn.json",
        "results/watch.jsonl",
        "checkpoints/step_00000040/manifest.json",
        "figures/views.png",
        "embeddings/train/map.png",
    ],
)
@pytest.mark.parametrize("how", ["missing", "empty", "cut", "wrong", "binary"])
def test_any_file_may_be_missing_or_broken(folder, report, missing, how):
    run = folder().complete()
    path = run.path / missing
    content = path.read_bytes()
    path.unlink()
    if how != "missing":
        damaged = {
            "empty": b"",
            "cut": content[:-5],
            "wrong": b"[[1, null]]\n",
            "binary": b"\xff\0",
        }
        run.write(missing, damaged[how])
    parsed = report(run)
    assert "320" in parsed.text or missing == "metrics.jsonl"
    assert "simclr_tf report" in parsed.text


def test_an_older_run_says_what_it_did_not_record(folder, report):
    run = folder().complete()
    for name in ("run.json", "warnings.jsonl"):
        (run.path / name).unlink()
    parsed = report(run)
    assert "Warnings were not recorded" in parsed.text
    assert "Finished at step 40" in parsed.text  # by the checkpoint
    assert "global batch size" in parsed.sections["recipe"]
    assert "No warnings" in report(folder("new").write("run.json", {"total_steps": 4})).text


def test_a_run_without_reports_is_a_run(folder, report):
    parsed = report(folder().write("config.gin", "a.b = 1\n").write("metrics.jsonl", ""))
    assert "No report yet" in parsed.text and parsed.data["charts"] == []
    assert "Evaluation only" in report(folder("e").write("results/knn.json", {})).text


def test_what_is_no_run_is_refused(folder, report, tmp_path):
    with pytest.raises(RequestError, match=f"{tmp_path / 'no'}, which is no folder"):
        report(type("Gone", (), {"path": tmp_path / "no"}))
    with pytest.raises(RequestError, match="which has none"):
        report(folder().write("notes.txt", "x"))


def test_numbers_that_are_not_finite_leave_gaps_and_are_named(folder, report):
    run = folder().write(
        "metrics.jsonl",
        '{"step": 1, "loss": 1.0}\n{"step": 2, "loss": NaN}\n{"step": 3, "loss": -Infinity}\n'
        '{"step": 4, "loss": 1e999}\n{"step": 5, "loss": 2.5, "huge": 1' + "0" * 400 + "}\n"
        '{"step": NaN, "loss": 7}\n{"step": "six", "loss": 8}\n{"step": 7, "loss": "nine"}\n',
    )
    parsed = report(run)
    assert chart(parsed, "Total loss")["lines"][0] == {
        "run": 0,
        "style": "c0 d0",
        "x": [1, 2, 3, 4, 5],
        "y": [1, None, None, None, 2.5],
    }
    assert "not finite at step 2" in parsed.text


def test_a_long_run_keeps_its_extremes_in_a_small_page(folder, report):
    count = 20_000
    values = [math.sin(i / 900) for i in range(count)]
    values[7777], values[12_345] = 9.0, -9.0
    run = folder().write("metrics.jsonl", [{"step": i, "loss": v} for i, v in enumerate(values)])
    parsed = report(run)
    [line] = chart(parsed, "Total loss")["lines"]
    assert len(line["x"]) <= 752 and line["x"][0] == 0 and line["x"][-1] == count - 1
    assert line["y"][line["x"].index(7777)] == 9 and line["y"][line["x"].index(12_345)] == -9
    assert all(
        values[x] == pytest.approx(y, abs=1e-5) for x, y in zip(line["x"], line["y"], strict=True)
    )
    assert len(parsed.scripts[0]) < 20_000


def test_pictures_have_an_end(folder, report, monkeypatch):
    run = folder().complete()
    run.write("figures/large.png", b"\x89PNG\r\n\x1a\n" + bytes(pictures.MAX_ONE))
    run.write("figures/page.png", "<script>alert(1)</script>")
    parsed = report(run)
    assert "It has 4.0 MiB" in parsed.text and "It is not a PNG." in parsed.text
    assert len(pngs(parsed)) == 4
    monkeypatch.setattr(pictures.Album.__init__, "__defaults__", (100,))
    assert len(pngs(report(run))) == 1


def test_measures_without_labels_and_accuracies_by_class(folder, report):
    run = folder().complete()
    numbers = {"rankme": 41.26, "alpha_req": 1.125, "alignment": 0.25, "uniformity": -2.5}
    steps = [
        {"step": step, "job": "label_free", "numbers": {"rankme": float(step), "alpha_req": None}}
        for step in (10, 20, 40)
    ]
    cat = {"class": "cat", "images": 12, "accuracy": 0.25}
    run.write("results/label_free.json", {"numbers": numbers, "dimensions": 64})
    run.write("results/knn.json", {"numbers": {"top1": 0.5}, "per_class": [cat]})
    run.write("results/watch.jsonl", steps)
    parsed = report(run)
    for said in ("41.26", "1.125", "-2.5", "knn: per class", "25.00 %"):
        assert said in parsed.text, said
    [line] = chart(parsed, "RankMe")["lines"]
    assert (line["x"], line["y"]) == ([10, 20, 40], [10, 20, 40])
    with pytest.raises(ValueError, match="not enough values"):
        chart(parsed, "alpha-ReQ")  # nowhere a number
