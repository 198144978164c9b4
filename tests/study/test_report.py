"""If this breaks, a study's table, figure or correlation says other than its runs."""

import csv
import datetime
import itertools
import pathlib

import numpy as np
import pytest
from PIL import Image

from simclr_tf.errors import RequestError
from simclr_tf.evaluation.result import publish
from simclr_tf.report.page import write_page
from simclr_tf.report.reading import read_runs
from simclr_tf.study.record import Record, Status
from simclr_tf.study.report import report
from simclr_tf.study.table import tabulate
from tests.study.conftest import make_study, write_result

PUBLISHED = {"0.1": {"64": 62.8, "128": 64.0, "256": 64.8}, "0.5": {"64": 60.7, "128": 59.0}}


def filled(folder, values=lambda cell: 0.5, skip=(), **changes):
    study = make_study(folder, published=PUBLISHED, seeds=(0, 1, 2), **changes)
    for number, cell in enumerate(study.cells()):
        if number not in skip:
            write_result(study, cell, values(cell))
    return study


def test_rows_are_means_and_spreads_over_the_seeds_in_the_order_of_the_axes(tmp_path):
    rng = np.random.default_rng(0)
    drawn = {}

    def draw(cell):
        drawn.setdefault(cell.labels, []).append(rng.uniform())
        return drawn[cell.labels][-1]

    table = tabulate(filled(tmp_path, draw))
    assert [row.labels for row in table.rows] == list(
        itertools.product(("0.1", "0.5"), ("64", "128", "256"))
    )
    for row in table.rows:
        numbers = 100 * np.array(drawn[row.labels])
        assert row.mean == pytest.approx(numbers.sum() / 3)
        assert row.spread == pytest.approx(np.sqrt(((numbers - numbers.mean()) ** 2).sum() / 2))
    header, first, *_ = table.text()
    assert header == [
        "temperature",
        "batch",
        "linear_eval top1 [%]",
        "± over seeds",
        "seeds",
        "published",
    ]
    assert first[:2] == ["0.1", "64"] and first[-2:] == ["3 of 3", "62.8"]
    assert table.text()[-1][-1] == ""


def ranks(numbers):
    return [sorted(numbers).index(n) for n in numbers]


def test_the_rank_correlation_is_that_of_the_ranks(tmp_path):
    means = {("0.1", "64"): 0.3, ("0.1", "128"): 0.9, ("0.1", "256"): 0.5, ("0.5", "64"): 0.4}
    means |= {("0.5", "128"): 0.1, ("0.5", "256"): 1.0}  # the last one has no published number
    table = tabulate(filled(tmp_path, lambda cell: means[cell.labels]))
    pairs = [(means[(t, b)], PUBLISHED[t][b]) for t in PUBLISHED for b in PUBLISHED[t]]
    ours, theirs = (ranks(side) for side in zip(*pairs, strict=True))
    squares = sum((a - b) ** 2 for a, b in zip(ours, theirs, strict=True))
    wanted = 1 - 6 * squares / (5 * (25 - 1))
    assert table.correlation() == pytest.approx(wanted)
    assert f"over 5 rows: {wanted:.3f}" in table.lines()


@pytest.mark.parametrize("figure", ["heat_map", "bars", "lines"])
def test_a_report_is_written_at_any_time(tmp_path, figure):
    """Half of the cells are missing, and one has failed."""
    study = filled(tmp_path / "study", skip=(0, 3, 5, 6, 9, 10, 14, 16, 17), figure=figure)
    record = Record(study)
    record.open()
    record.note(study.cells()[0], Status(1.0, 1, "failed in pretrain: no"))
    publish(report(study), study.folder)
    folder = pathlib.Path(study.folder)
    with Image.open(folder / "figures" / "study.png") as picture:
        assert np.asarray(picture).std() > 5
    rows = list(csv.reader((folder / "results" / "study.csv").open()))
    assert len(rows) == 7 and rows[1][4] == "1 of 3, 1 failed"
    markdown = (folder / "results" / "study.md").read_text()
    assert "| 0.1" in markdown and "Spearman" in markdown
    page = write_page(read_runs([folder]), datetime.datetime.now(datetime.timezone.utc)).decode()
    assert "0.1, 64" in page and "62.80 %" in page and "figures/study.png" in page
    assert "Spearman" in page


def test_a_report_of_nothing_is_a_report(study):
    Record(study).open()
    assert "No numbers were published" in report(study).text


def test_a_heat_map_of_a_symmetric_study_is_symmetric(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    shown = []
    draw = Axes.imshow
    monkeypatch.setattr(
        Axes, "imshow", lambda axis, grid, **kw: (shown.append(grid), draw(axis, grid, **kw))[1]
    )
    labels = {name: [f"a.b = '{name}'"] for name in ("crop", "colour", "blur")}
    study = make_study(
        tmp_path,
        axes={"first": labels, "second": labels},
        symmetric=True,
        figure="heat_map",
    )
    for number, cell in enumerate(study.cells()):
        write_result(study, cell, number / 10)
    report(study)
    np.testing.assert_allclose(shown[0], [[0, 10, 20], [10, 30, 40], [20, 40, 50]])


def test_cells_with_different_numbers_are_not_compared(tmp_path):
    study = filled(tmp_path)
    cell = study.cells()[0]
    path = tmp_path / "cells" / cell.name / "results" / "linear_eval.json"
    path.write_text('{"numbers": {"top1": 0.5}, "preset": "sgd"}')
    with pytest.raises(RequestError, match="same number in every cell"):
        tabulate(study)
