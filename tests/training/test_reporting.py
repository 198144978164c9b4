"""If this breaks, a run that fails stays silent, or a resumed run's record contradicts itself."""

import functools
import json
import logging

from simclr_tf.methods.simclr import SimCLR
from simclr_tf.objectives.nt_xent import NTXent
from simclr_tf.training.reporting import (
    Reporter,
    duration,
    read_metrics,
    read_warnings,
)

WORDS = functools.partial(SimCLR.words, None)
HEALTHY = {
    "loss": 3.0,
    "contrastive_loss": 3.0,
    "loss_chance": NTXent().chance(128),
    "contrastive_top1": 0.6,
    "embedding_std": 0.95,
    "learning_rate": 0.1,
    "examples_per_second": 10.0,
    "host_wait": 0.0,
}


def report(reporter, step):
    reporter.report(step, step / 10, HEALTHY | {"loss": float(step)}, steps=1, seconds=1.0)


def test_going_on_drops_reports_that_will_be_made_again(tmp_path):
    first = Reporter(str(tmp_path), start_step=0, total_steps=9, words=WORDS)
    for step in (1, 2, 3):
        report(first, step)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # killed while writing
    second = Reporter(str(tmp_path), start_step=2, total_steps=9, words=WORDS)
    report(second, 3)
    assert [r["step"] for r in read_metrics(str(tmp_path))] == [1, 2, 3]
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [1.0, 2.0, 3.0]


def test_files_that_were_damaged_do_not_keep_a_run_from_going_on(tmp_path):
    good = '{"step": 1, "loss": 1.0, "kind": "collapse"}\n'
    for name in ("metrics.jsonl", "warnings.jsonl"):
        harm = b'{"step": 1, "lo\xff\n[]\n{"loss": 2}\n{"step": "x"}\n\x00\xfe'
        (tmp_path / name).write_bytes(good.encode() + harm)
    report(Reporter(str(tmp_path), start_step=1, total_steps=9, words=WORDS), 2)
    assert [r["step"] for r in read_metrics(str(tmp_path))] == [1, 2]
    assert (tmp_path / "warnings.jsonl").read_text() == good


def test_a_process_that_is_not_the_chief_writes_nothing(tmp_path):
    report(
        Reporter(str(tmp_path), start_step=0, total_steps=9, words=WORDS, is_chief=False),
        1,
    )
    assert not list(tmp_path.iterdir())


def test_each_kind_of_warning_is_said_once_a_run(tmp_path, caplog):
    """Restarts included; what came after the step of the restart has not been said."""

    def reporter(start_step):
        return Reporter(str(tmp_path), start_step=start_step, total_steps=9, words=WORDS)

    with caplog.at_level(logging.WARNING):
        first = reporter(0)
        for step, kind in ((1, "collapse"), (2, "collapse"), (4, "no learning")):
            first.warn(step, step / 10, kind, f"text of {kind}")
        again = reporter(3)
        assert [w["kind"] for w in read_warnings(str(tmp_path))] == ["collapse"]
        for step, kind in ((4, "no learning"), (5, "collapse")):
            again.warn(step, step / 10, kind, f"text of {kind}")
    assert read_warnings(str(tmp_path)) == [
        {"step": 1, "epoch": 0.1, "kind": "collapse", "text": "text of collapse"},
        {"step": 4, "epoch": 0.4, "kind": "no learning", "text": "text of no learning"},
    ]
    said = [r.getMessage() for r in caplog.records]
    assert said[0] == "WARNING, collapse: text of collapse" and len(said) == 3


def test_durations_read_as_people_say_them():
    assert [duration(s) for s in (5, 600, 11100)] == ["5 s", "10 min", "3 h 05 min"]
