"""The report of a study: table, figure and rank correlation, from the cells finished so far."""

from __future__ import annotations

import os

import tensorflow as tf

from simclr_tf.evaluation.numbers import as_csv, as_markdown
from simclr_tf.evaluation.result import Result
from simclr_tf.files import write_text
from simclr_tf.study.cells import Study
from simclr_tf.study.figures import draw
from simclr_tf.study.table import tabulate
from simclr_tf.training.failures import explain_write_errors


def report(study: Study) -> Result:
    """Writes table and figure, and returns the numbers for results/study.json."""
    table = tabulate(study)
    text = table.text()
    folder = os.path.join(study.folder, "results")
    with explain_write_errors(study.folder):
        tf.io.gfile.makedirs(folder)
        write_text(os.path.join(folder, "study.csv"), as_csv(text) + "\n")
        write_text(os.path.join(folder, "study.md"), f"{as_markdown(text)}\n\n{table.lines()}\n")
        figure = draw(study, table)
    return Result(
        job="study",
        text=f"\n{as_markdown(text)}\n\n{table.lines()}\n\ntable: {folder}/study.md and "
        f"study.csv\nfigure: {figure}",
        record={
            "protocol": f"{table.measure}: mean and sample standard deviation over seeds; axes "
            f"{', '.join(study.axes)}. {table.lines()}",
            "numbers": table.record(),
            "rank_correlation": table.correlation(),
        },
    )
