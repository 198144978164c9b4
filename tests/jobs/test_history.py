"""If this breaks, a restart of the watch loses numbers, or counts what a kill cut short."""

import json

import pytest

from simclr_tf.errors import RequestError
from simclr_tf.evaluation.history import History
from simclr_tf.evaluation.result import Result


def found(top1: float, top5: float) -> Result:
    numbers = {"top1": top1, "top5": top5}
    return Result(job="knn", text="", record={"numbers": numbers}, curves=numbers)


@pytest.fixture
def file(tmp_path):
    history = History(str(tmp_path), str(tmp_path))
    assert not list(tmp_path.iterdir())
    history.add(1, "knn", found(0.25, 0.5))
    history.add(2, "knn", found(0.5, 1.0))
    return tmp_path / "results" / "watch.jsonl"


def test_what_is_added_is_known_to_the_next_process(file, tmp_path):
    first, second = map(json.loads, file.read_text().splitlines())
    assert first == {
        "step": 1,
        "job": "knn",
        "run": ".",
        "numbers": {"top1": 0.25, "top5": 0.5},
        "splits": {},
    }
    known = History(str(tmp_path), str(tmp_path))
    assert known.numbers(2, "knn") == second["numbers"]
    assert known.numbers(2, "linear_eval") is None and known.numbers(3, "knn") is None


@pytest.mark.parametrize("end", ['{"step": 3, "jo', "7\n", '{"step": 3}\n', "\0" * 9, "\udcff{"])
def test_a_line_that_is_not_whole_is_dropped(file, tmp_path, end):
    whole = file.read_bytes()
    file.write_bytes(whole + end.encode(errors="surrogateescape"))
    History(str(tmp_path), str(tmp_path)).add(3, "knn", found(0.75, 1.0))
    assert file.read_bytes().startswith(whole)
    steps = [json.loads(line)["step"] for line in file.read_bytes().splitlines()]
    assert steps == [1, 2, 3]


def test_numbers_of_another_run_are_not_taken_for_this_ones(file, tmp_path):
    whole = file.read_text()
    with pytest.raises(RequestError, match=r"those of \., .* and \.\./other"):
        History(str(tmp_path), str(tmp_path.parent / "other"))
    assert file.read_text() == whole


def test_a_last_line_without_its_end_is_kept(file, tmp_path):
    whole = file.read_text()
    file.write_text(whole[:-1])
    assert History(str(tmp_path), str(tmp_path)).numbers(2, "knn")
    assert file.read_text() == whole
