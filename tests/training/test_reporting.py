"""If this breaks, a run that fails stays silent, or a resumed run's record contradicts itself."""

import json
import logging

import pytest

from simclr_tf.objectives.nt_xent import loss_chance
from simclr_tf.training.reporting import (
    Reporter,
    Watch,
    contrastive_words,
    duration,
    read_metrics,
)

HEALTHY = {
    "loss": 3.0,
    "contrastive_loss": 3.0,
    "loss_chance": loss_chance(128),
    "contrastive_top1": 0.6,
    "embedding_std": 0.95,
    "learning_rate": 0.1,
    "examples_per_second": 10.0,
    "host_wait": 0.0,
}


def report(reporter, step):
    reporter.report(step, step / 10, HEALTHY | {"loss": float(step)}, steps=1, seconds=1.0)


def test_going_on_drops_reports_that_will_be_made_again(tmp_path):
    first = Reporter(str(tmp_path), start_step=0, total_steps=9, words=contrastive_words)
    for step in (1, 2, 3):
        report(first, step)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    second = Reporter(str(tmp_path), start_step=2, total_steps=9, words=contrastive_words)
    report(second, 3)
    assert [r["step"] for r in read_metrics(str(tmp_path))] == [1, 2, 3]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [1.0, 2.0, 3.0]


def test_a_process_that_is_not_the_chief_writes_nothing(tmp_path):
    report(
        Reporter(
            str(tmp_path), start_step=0, total_steps=9, words=contrastive_words, is_chief=False
        ),
        1,
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fault", "epoch", "words"),
    [
        ({}, 5, None),
        ({"contrastive_loss": loss_chance(128)}, 5, "no better than by guessing"),
        ({"embedding_std": 0.02}, 5, "collapsed"),
        ({"contrastive_top1": 1.0}, 0.5, "may be identical"),
        ({"contrastive_top1": 1.0}, 5, None),
    ],
)
def test_each_fault_is_named_once(caplog, fault, epoch, words):
    watch = Watch(loss_chance(128), warmup_steps=10)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            watch.look(100, epoch, HEALTHY | fault)
    found = [r.getMessage() for r in caplog.records]
    assert len(found) == (words is not None)
    assert words is None or words in found[0]


def test_durations_read_as_people_say_them():
    assert [duration(s) for s in (5, 600, 11100)] == ["5 s", "10 min", "3 h 05 min"]
