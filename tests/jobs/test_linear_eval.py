"""If this breaks, `--job=linear_eval` hides that its penalty or its large classes mislead."""

import shutil

import pytest


@pytest.fixture
def unbalanced(evaluation, tmp_path):
    """The test split has 4, 4 and 2 pictures of its classes."""
    folder = tmp_path / "pictures"
    shutil.copytree(evaluation.pictures, folder)
    for name in ("0.png", "1.png"):
        (folder / "test" / "red" / name).unlink()
    return folder


@pytest.mark.parametrize("job", ["linear_eval", "knn"])
def test_unbalanced_classes_are_told(evaluation, unbalanced, tmp_path, capsys, job):
    bindings = ["knn.k = 7", "knn.table_ks = (1,)"] if job == "knn" else []
    result = evaluation.result(job, tmp_path / "out", *bindings, pictures=unbalanced)
    rows = result["per_class"]
    counts = [(row["class"], row["images"]) for row in rows]
    assert counts == [("blue", 4), ("green", 4), ("red", 2)]
    accuracies = [row["accuracy"] for row in rows]
    assert result["numbers"]["mean_per_class"] == pytest.approx(sum(accuracies) / 3)
    right = sum(row["accuracy"] * row["images"] for row in rows)
    assert result["numbers"]["top1"] == pytest.approx(right / 10)
    printed = capsys.readouterr().out
    assert f"balanced accuracy (mean per class) {sum(accuracies) / 3:.2%}" in printed
    assert f"red {accuracies[2]:.1%} of 2" in printed


def test_balanced_classes_and_an_end_of_the_penalties(evaluation, tmp_path, capsys):
    result = evaluation.result("linear_eval", tmp_path, "cached.penalties = (1e-12, 1.0)")
    assert len(result["per_class"]) == 3
    end = result["numbers"]["at_end"]
    assert end in ("strongest", "weakest")
    [warning] = result["warnings"]
    assert f"the {end} penalty of cached.penalties, {result['numbers']['penalty']:g}," in warning
    printed = capsys.readouterr().out
    assert warning in printed and "balanced accuracy" not in printed
