"""If this breaks, a published table shows one run's numbers as another's."""

import csv
import json
import os
import pathlib
import subprocess
import sys

import pytest

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "tools/results_table.py"


def write(folder, job, numbers, **record):
    (folder / "results").mkdir(parents=True, exist_ok=True)
    (folder / "results" / f"{job}.json").write_text(json.dumps({"numbers": numbers, **record}))


def run(*arguments):
    return subprocess.run(
        [sys.executable, PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def runs(tmp_path):
    simclr, untrained = tmp_path / "simclr", tmp_path / "untrained"
    write(simclr, "linear_eval", {"top1": 0.6533, "top5": 0.969, "penalty": 0.01}, preset="cached")
    write(simclr, "finetune", {"top1": 0.5}, label_share=0.01)
    write(
        simclr,
        "probe_invariance",
        {"rotation": {"chance": 0.25, "representation": 0.7, "untrained_representation": 0.6}},
    )
    write(untrained, "linear_eval", {"top1": 0.3843, "top5": 0.9}, preset="cached")
    return simclr, untrained


def test_numbers_stand_in_their_run_s_column(tmp_path):
    simclr, untrained = runs(tmp_path)
    done = run(simclr, untrained, "--format=csv")
    assert done.returncode == 0, done.stderr
    header, *rows = csv.reader(done.stdout.splitlines())
    assert header == ["", str(simclr), str(untrained)]
    assert {row[0]: row[1:] for row in rows} == {
        "linear_eval cached top1": ["65.33 %", "38.43 %"],
        "linear_eval cached top5": ["96.90 %", "90.00 %"],
        "finetune 0.01 of labels top1": ["50.00 %", ""],
        "probe_invariance rotation chance": ["25.00 %", ""],
        "probe_invariance rotation representation": ["70.00 %", ""],
        "probe_invariance rotation untrained_representation": ["60.00 %", ""],
    }


def test_markdown_has_the_same_cells(tmp_path):
    folders = runs(tmp_path)
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in run(*folders).stdout.splitlines()
    ]
    assert set(cells[1][0]) == {"-"} and cells[1][1].endswith("-:")
    del cells[1]
    assert cells == list(csv.reader(run(*folders, "--format=csv").stdout.splitlines()))


def test_each_result_tells_what_it_was_trained_and_tested_on(tmp_path):
    def split(name, images):
        return {"source": f"folder:/photos/{name}", "split": name, "images": images}

    splits = {"train": split("train", 40), "test": split("test", 8)}
    write(tmp_path, "knn", {"top1": 0.5}, splits=splits)
    write(tmp_path, "lbfgs", {"top1": 0.5}, splits={"train": 3})
    write(tmp_path, "embed", {"top1": 0.5}, splits=[1])
    _, *rows = csv.reader(run(tmp_path, "--format=csv").stdout.splitlines())
    assert [row for row in rows if "top1" not in row[0]] == [
        ["knn train", "folder:/photos/train, train, 40 images"],
        ["knn test", "folder:/photos/test, test, 8 images"],
    ]


def test_a_folder_whose_name_is_no_text_is_shown(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    write(folder, "knn", {"top1": 0.5})
    done = run(folder)
    assert done.returncode == 0 and r"caf\udce9" in done.stdout and "50.00 %" in done.stdout


def test_a_folder_without_results_is_named(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "text", ["[]", "3", '{"numbers": []}', "{", "[" * 10**5, '{"numbers": {"top1": 9' + "9" * 5000]
)
def test_a_result_that_is_none_is_one_clear_error(tmp_path, text):
    write(tmp_path, "knn", {})
    (tmp_path / "results" / "knn.json").write_text(text)
    done = run(tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and "knn.json" in done.stderr


def test_what_is_no_number_is_left_out(tmp_path):
    numbers = {"top1": "x", "top5": [1], "chance": 0.1, "deep": {"top1": None}}
    write(tmp_path, "knn", numbers, preset=3, label_share="y")
    done = run(tmp_path)
    assert done.returncode == 0 and "10.00 %" in done.stdout and "top1" not in done.stdout


def measured(tmp_path, *pairs):
    """Runs with these numbers of RankMe and top-1."""
    folders = [tmp_path / f"run{i}" for i in range(len(pairs))]
    for folder, (rankme, top1) in zip(folders, pairs, strict=True):
        write(folder, "label_free", {"rankme": rankme, "alpha_req": None, "uniformity": -2.34567})
        write(folder, "linear_eval", {"top1": top1, "top5": 1 - top1}, preset="cached")
    return folders


def test_runs_are_sorted_by_a_row(tmp_path):
    folders = [*measured(tmp_path, (12.5, 0.5), (50.25, 0.4)), tmp_path / "other"]
    write(folders[2], "knn", {"top1": 0.9})
    for row, order in (("rankme", (1, 0, 2)), ("label_free rankme", (1, 0, 2)), ("knn", (2, 0, 1))):
        done = run(*folders, f"--sort={row}", "--format=csv")
        header, *rows = csv.reader(done.stdout.splitlines())
        assert header[1:] == [str(folders[i]) for i in order]
        wanted = ["12.5", "50.25", ""]
        assert ["label_free rankme", *(wanted[i] for i in order)] in rows
    assert [r[1:3] for r in rows if r[0] == "label_free uniformity"] == [["", "-2.346"]]
    done = run(*folders, "--sort=top7")
    assert done.returncode == 2 and "'top7'. There are: label_free rankme, " in done.stderr


def test_the_rank_correlation_of_two_rows(tmp_path):
    """By the ranks: x = 1 2 3 4, y = 2 1 4 3, so 1 - 6 * (1 + 1 + 1 + 1) / (4 * 15) = 0.6."""
    folders = measured(tmp_path, (1.0, 0.2), (2.0, 0.1), (30.0, 0.9), (31.0, 0.8))
    write(tmp_path / "other", "knn", {"top1": 0.9})
    done = run(*folders, tmp_path / "other", "--correlate=rankme,linear_eval")
    assert done.stdout == (
        "Spearman's rank correlation of label_free rankme and linear_eval cached top1 over 4 runs: "
        "0.600\n"
    )
    ties = measured(tmp_path / "ties", (1.0, 0.1), (1.0, 0.2), (2.0, 0.3))
    assert "over 3 runs: 0.866" in run(*ties, "--correlate=rankme,top1").stdout


@pytest.mark.parametrize("pairs", [[(1, 0.5), (2, 0.4)], [(1, 0.5), (2, 0.5), (3, 0.5)]])
def test_too_few_runs_or_equal_numbers_have_no_correlation(tmp_path, pairs):
    done = run(*measured(tmp_path, *pairs), "--correlate=rankme,top1")
    assert done.returncode == 2 and "needs at least 3 runs with both numbers" in done.stderr
    done = run(*measured(tmp_path / "again", *pairs), "--correlate=rankme")
    assert done.returncode == 2 and "two rows with a comma between them" in done.stderr
