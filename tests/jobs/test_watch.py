"""If this breaks, a watched run's curve has gaps, numbers of other weights, or harms the run."""

import json
import shutil
import signal
import types

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.evaluation import checkpoint_follower as following
from simclr_tf.models.resnet import resnet
from simclr_tf.training.checkpoints import Checkpoints, named_groups
from tests.support.small_resnet import SMALL_DEPTH

pytestmark = pytest.mark.slow
TOTAL = 9


class Run:
    """A run's folder, into which a test writes the checkpoints of random encoders."""

    def __init__(self, folder, keep=10):
        self.folder = folder
        self.encoder = resnet(SMALL_DEPTH, 0.125, image_size=16)
        groups = named_groups({"encoder": self.encoder})
        self.checkpoints = Checkpoints(str(folder), groups, {"total_steps": TOTAL}, keep=keep)

    def save(self, *steps):
        for step in steps:
            rng = np.random.default_rng(step)
            for variable in self.encoder.variables:
                if variable.path.endswith("kernel"):
                    scale = np.sqrt(2 / np.prod(variable.shape[:-1]))
                    variable.assign(scale * rng.normal(size=variable.shape))
            self.checkpoints.save(step)

    def files(self):
        """Path -> time of the last change, of all that is no result of the watch."""
        found = (f for f in self.folder.rglob("*") if f.is_file())
        return {f: f.stat().st_mtime_ns for f in found if "watch" not in str(f)}

    def data(self, step):
        [file] = self.folder.glob(f"checkpoints/step_{step:08d}/variables.data*")
        return file


def lines(model_dir):
    return [json.loads(x) for x in (model_dir / "results" / "watch.jsonl").read_text().splitlines()]


def looked_at(model_dir):
    return [(line["step"], line["job"]) for line in lines(model_dir)]


def both(*steps):
    return [(step, job) for step in steps for job in ("knn", "linear_eval")]


@pytest.fixture(scope="module")
def dim(tmp_path_factory):
    """Pictures whose classes differ by little, so that not every encoder tells them."""
    folder = tmp_path_factory.mktemp("dim")
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 9)):
        for level, name in enumerate(("a", "b", "c")):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 240, (16, 16, 3)) + 4 * level
                encoded = tf.io.encode_png(pixels.astype(np.uint8)).numpy()
                (folder / split / name / f"{i}.png").write_bytes(encoded)
    return folder


@pytest.fixture(scope="module")
def watch(evaluation, dim):
    """Runs the job on a folder whose numbers go into it as well; returns its exit code."""

    def start(folder, *bindings):
        options = {"weights": folder, "pictures": dim}
        return evaluation.job("watch", folder, "knn.k = 7", *bindings, **options)

    return start


@pytest.fixture
def meanwhile(monkeypatch):
    """Gives what is done, one thing for each time that the watch sleeps; a minute passes then."""

    def do(*actions):
        waiting, clock = iter(actions), [0.0]

        def sleep(seconds):
            clock[0] += 60
            next(waiting)()

        fake = types.SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0])
        monkeypatch.setattr(following, "time", fake)
        return clock

    return do


@pytest.fixture(scope="module")
def watched(watch, tmp_path_factory):
    """A run with three checkpoints that was watched, and what its own files were before."""
    run = Run(tmp_path_factory.mktemp("watched"))
    run.save(0, 4, TOTAL)
    before = run.files()
    assert watch(run.folder) == 0
    return run, before


def test_the_numbers_are_those_of_the_jobs(evaluation, watched, dim, tmp_path):
    run, _ = watched
    assert looked_at(run.folder) == both(0, 4, TOTAL)
    for step, job in both(4, TOTAL):
        bindings = [f"pretrained.step = {step}", *(["knn.k = 7"] if job == "knn" else [])]
        result = evaluation.result(job, tmp_path, *bindings, weights=run.folder, pictures=dim)
        [found] = (x for x in lines(run.folder) if (x["step"], x["job"]) == (step, job))
        assert found["numbers"] == result["numbers"]
        assert result["checkpoint"]["step"] == step
    assert len({line["numbers"]["top1"] for line in lines(run.folder)}) > 2


def test_the_curves_are_in_tensorboard(watched):
    run, _ = watched
    [file] = (run.folder / "tensorboard" / "watch").iterdir()
    found = {
        (event.step, *value.tag.split("/")): tf.make_ndarray(value.tensor).item()
        for event in tf.compat.v1.train.summary_iterator(str(file))
        for value in event.summary.value
    }
    assert found == {
        (line["step"], line["job"], name): pytest.approx(line["numbers"][name])
        for line in lines(run.folder)
        for name in ("top1", "top5", "mean_per_class")
    }


def test_nothing_else_is_written(watched):
    run, before = watched
    assert run.files() == before
    assert {f.name for f in run.folder.iterdir()} == {"checkpoints", "results", "tensorboard"}


def test_a_restart_evaluates_nothing_twice(watched, watch, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(watched[0].folder, folder)
    history = folder / "results" / "watch.jsonl"
    whole = history.read_text()
    assert watch(folder) == 0
    assert history.read_text() == whole and "top-1" not in capsys.readouterr().out
    history.write_text(whole[:-20])  # as a kill leaves it
    assert watch(folder) == 0
    assert history.read_text() == whole
    assert capsys.readouterr().out.count("top-1") == 2  # one line, of step 9


def test_one_evaluation_and_then_the_other(watch, tmp_path):
    run = Run(tmp_path / "run")
    run.save(TOTAL)
    assert watch(run.folder, "watch.evaluations = ['linear_eval']") == 0
    assert looked_at(run.folder) == [(TOTAL, "linear_eval")]
    assert watch(run.folder) == 0
    assert looked_at(run.folder)[1:] == [(TOTAL, "knn")]


def test_other_evaluations_are_made_as_by_their_jobs(watch, evaluation, dim, tmp_path, capfd):
    run = Run(tmp_path / "run")
    run.save(TOTAL)
    asked = ("watch.evaluations = ['lbfgs', 'embed']", "embed.map = 'none'")
    assert watch(run.folder, *asked) == 0
    transfer, embedded = lines(run.folder)
    options = {"weights": run.folder, "pictures": dim}
    result = evaluation.result("lbfgs", tmp_path / "alone", **options)
    assert transfer["job"] == "lbfgs" and transfer["numbers"] == result["numbers"]
    assert embedded["numbers"] == {} and (run.folder / "embeddings" / "train").is_dir()
    assert watch(run.folder, "watch.evaluations = ['probe_invariance']") == 2
    assert "Bind frozen_encoder.layer = 'projection'" in capfd.readouterr().err


def test_a_run_that_starts_later(watch, meanwhile, tmp_path):
    run = Run(tmp_path / "run", keep=2)

    def nothing_but_the_run():
        assert not run.folder.exists()

    def half_written():
        run.save(3)
        (run.data(3).parent / "manifest.json").rename(tmp_path / "manifest.json")

    def written():
        assert looked_at(run.folder) == both(0)
        (tmp_path / "manifest.json").rename(run.data(3).parent / "manifest.json")

    meanwhile(
        nothing_but_the_run,
        lambda: run.save(0),
        half_written,
        written,
        lambda: run.save(4, 5, 6),  # 4 comes and goes unseen
        lambda: run.save(TOTAL),
    )
    assert watch(run.folder) == 0
    assert looked_at(run.folder) == both(0, 3, 5, 6, TOTAL)


def test_a_checkpoint_that_vanishes_while_it_is_read(
    watch, meanwhile, tmp_path, monkeypatch, capsys
):
    run = Run(tmp_path / "run")
    run.save(2, 4)
    intact = following.is_intact

    def vanishing(model_dir, step):
        answer = intact(model_dir, step)
        if step == 4:
            shutil.rmtree(run.data(4).parent)
        return answer

    monkeypatch.setattr(following, "is_intact", vanishing)
    meanwhile(lambda: run.save(TOTAL))
    assert watch(run.folder) == 0
    assert looked_at(run.folder) == both(2, TOTAL)
    captured = capsys.readouterr()
    assert captured.out.count("step 4 is passed over: the run let go of it") == 1
    assert "damaged" not in captured.err


@pytest.mark.parametrize("harm", ["cut", "flipped", "manifest"])
def test_a_damaged_checkpoint_that_the_resumed_run_writes_anew(
    watch, meanwhile, tmp_path, capsys, harm
):
    run = Run(tmp_path / "run")
    run.save(TOTAL)
    content = run.data(TOTAL).read_bytes()
    if harm == "cut":
        run.data(TOTAL).write_bytes(content[:-5])
    elif harm == "flipped":
        run.data(TOTAL).write_bytes(bytes(b ^ 1 for b in content[:4096]) + content[4096:])
    else:
        (run.data(TOTAL).parent / "manifest.json").write_text("{}")

    def written_anew():
        assert not (run.folder / "results").exists()
        run.save(TOTAL)

    meanwhile(lambda: None, lambda: None, written_anew)
    assert watch(run.folder) == 0
    assert looked_at(run.folder) == both(TOTAL)
    assert capsys.readouterr().err.count("checkpoint of step 9 is damaged") == 1


def test_patience_ends_where_there_is_no_sign_of_life(watch, meanwhile, tmp_path, capfd):
    run = Run(tmp_path / "run")
    run.save(4)
    report = run.folder / "metrics.jsonl"
    clock = meanwhile(
        *(3 * [lambda: None]),
        lambda: report.write_text("{}\n"),  # the run is alive, if slow
        *(9 * [lambda: None]),
    )
    assert watch(run.folder, "watch.patience_minutes = 4.5") == 2
    assert clock == [4 * 60 + 5 * 60]
    error = capfd.readouterr().err
    assert "watch.patience_minutes, 4 min. Received" in error
    assert "newest checkpoint is that of step 4" in error and "Traceback" not in error
    assert looked_at(run.folder) == both(4)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_42_and_the_same_command_goes_on(
    watch, meanwhile, tmp_path, capfd, number
):
    run = Run(tmp_path / "run")
    run.save(4)
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    meanwhile(lambda: signal.raise_signal(number))
    assert watch(run.folder) == 42
    assert "the same command goes on from there" in capfd.readouterr().err
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    run.save(TOTAL)
    assert watch(run.folder) == 0
    assert looked_at(run.folder) == both(4, TOTAL)


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("pretrained.step = 4", "must be a run, by its folder"),
        ("pretrained.path = 'untrained'", "must be a run, by its folder"),
        ("watch.evaluations = ['colours']", "must hold some of knn, linear_eval"),
        ("watch.poll_seconds = 0", "watch.poll_seconds must be positive"),
        ("watch.poll_seconds = 1e30", "watch.poll_seconds must be positive, and at most 1e+09"),
        ("resnet.depth = 34", "same architecture"),
        ("knn.k = 31", "at most the number of training images"),
    ],
)
def test_wrong_requests(refused, binding, words):
    assert words in refused("watch", "knn.k = 7", binding)
