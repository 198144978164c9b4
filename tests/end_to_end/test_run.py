"""If this breaks, the command line does not do what README promises of it."""

import json
import random
import signal

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import run

pytestmark = pytest.mark.slow
TOTAL = 31


def test_a_folder_without_labels_becomes_an_encoder(tiny, resnet_18):
    folder = tiny.folder / "resnet_18"
    assert len(resnet_18) > 100
    reports = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in reports] == [*range(2, 31, 2), 31]
    assert reports[-1]["loss_chance"] == pytest.approx(np.log(15))
    assert (folder / "figures" / "views.png").stat().st_size > 1000
    assert (folder / "figures" / "curves.png").stat().st_size > 1000
    assert list((folder / "tensorboard").iterdir())
    loaded = tf.saved_model.load(str(folder / "saved_model" / str(TOTAL)))
    assert loaded(tf.zeros([2, 16, 16, 3])).shape == (2, 64)


def test_the_recorded_configuration_gives_the_same_run(tiny, resnet_18):
    recipe = tiny.folder / "resnet_18" / "config.gin"
    assert "nt_xent.temperature = 0.5" in recipe.read_text()
    code, output = tiny.run_as_a_person_does("again", recipe=recipe)
    assert code == 0, output
    tiny.check_weights("again", TOTAL, resnet_18)


def test_sigterm_saves_and_the_same_command_goes_on_bit_for_bit(tiny, undisturbed, injected):
    code, output = tiny.run("stopped", fault="TERM@makedirs:step_00000008")
    assert code == 42, output
    assert "goes on from there" in output
    code, output = tiny.run("stopped")
    assert code == 0 and "going on from step" in output
    tiny.check_weights("stopped", TOTAL, undisturbed)
    injected("SIGTERM", 1, "saved (42), equal weights")


def test_microbatches_go_on_bit_for_bit(tiny):
    bindings = "pretrain.microbatch_size = 4", "pretrain.epochs = 3.0"  # 10 steps
    code, output = tiny.run("microbatches", *bindings)
    assert code == 0 and "14 negatives per anchor" in output, output
    assert "in micro-batches of 4" in output
    code, output = tiny.run("microbatches_stopped", *bindings, fault="TERM@makedirs:step_00000004")
    assert code == 42, output
    code, output = tiny.run("microbatches_stopped", *bindings)
    assert code == 0 and "going on from step" in output
    tiny.check_weights("microbatches_stopped", 10, tiny.weights("microbatches", 10))


def test_killed_ten_times_the_run_ends_as_if_it_had_not_been(tiny, injected):
    """Before there is a checkpoint, in its first moments, and at eight instants of training."""
    long = "pretrain.epochs = 80.0"  # 241 steps
    code, output = tiny.run("long", long)
    assert code == 0, output
    rng = random.Random(0)
    # The write of a checkpoint, beside which steps go on: some of them within 50 ms.
    instants = [
        f"kill={rng.uniform(0, 0.05):.3f}@makedirs:step_{step:08}" for step in range(24, 193, 24)
    ]
    for instant in ("kill@makedirs:step_00000000", "kill@write:step_00000000", *instants):
        code, output = tiny.run("killed", long, fault=instant)
        assert code == -signal.SIGKILL, (instant, output)
    code, output = tiny.run("killed", long)
    assert code == 0, output
    tiny.check_weights("killed", 241, tiny.weights("long", 241))
    metrics = tiny.folder / "killed" / "metrics.jsonl"
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert steps == [*range(2, 241, 2), 241]
    injected("SIGKILL at a random instant", 10, "equal weights, each step reported once")


def test_two_workers_train_as_one_does(tiny):
    short = ("pretrain.epochs = 0.25", "learning_rate.warmup_epochs = 0.0")  # one step
    workers = tiny.start_pair("workers", *short, recipe=tiny.resnet_18)
    for worker in workers:
        output, _ = worker.communicate(timeout=900)
        assert worker.returncode == 0, output
    code, output = tiny.run("alone", *short, recipe=tiny.resnet_18)
    assert code == 0, output
    found, expected = tiny.weights("workers", 1), tiny.weights("alone", 1)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        # Offsets and last scales start at zero: they are now their velocities, compared below.
        if not any(part in name for part in ("velocity", "beta", "gamma")):
            error = np.linalg.norm(found[name] - value) / (np.linalg.norm(value) + 1e-6)
            assert error < 1e-5, f"{name}: relative error {error:.1e}"
    # The velocities are the gradient, whose parts near zero have only the whole's precision.
    gradients = [
        np.concatenate([w[n].reshape(-1) for n in sorted(w) if "velocity" in n])
        for w in (found, expected)
    ]
    error = np.linalg.norm(np.subtract(*gradients)) / np.linalg.norm(gradients[1])
    assert error < 1e-5, f"gradient: relative error {error:.1e}"
    losses = [
        [json.loads(x)["loss"] for x in (tiny.folder / d / "metrics.jsonl").open()]
        for d in ("workers", "alone")
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize(
    ("bindings", "words"),
    [
        (["resnet.dept = 50"], "dept"),
        (["data.source = 'tfds:no_such_set'"], "must be prepared before training"),
        (["pretrain.global_batch_size = 9", "strategy.cpu_replicas = 2"], "Nearest valid: 8, 10."),
        (["pretrain.microbatch_size = 3"], "Nearest valid: 2, 4."),
        (["pretrain.microbatch_size = 4"], "microbatch_size: None in the checkpoint, 4 now"),
        (["resnet.depth = 34"], "must be of the same architecture"),
        (["pretrain.epochs = 11.0"], "total_steps: 31 in the checkpoint, 34 now"),
        (["resnet.depth = 19"], "Received: depth=19"),
    ],
)
def test_a_wrong_request_ends_with_2_and_one_clear_message(tiny, resnet_18, capfd, bindings, words):
    arguments = tiny.arguments("resnet_18", *bindings, recipe=tiny.resnet_18)
    assert run.main(arguments) == 2
    captured = capfd.readouterr()
    error = captured.err[captured.err.index("error: ") :]
    assert words in error and "Traceback" not in error and "In call to" not in error
    assert "step 2/" not in captured.out
    tiny.check_weights("resnet_18", TOTAL, resnet_18)


def test_a_loss_that_is_not_finite_ends_with_3_and_says_where(tiny):
    code, output = tiny.run(
        "diverged",
        "pretrain.optimizer = @momentum",
        "learning_rate.base = 1e30",
        "learning_rate.warmup_epochs = 0.0",
    )
    assert code == 3, output
    assert "not finite at step" in output
    reader = tiny.weights("diverged", 0)
    assert all(np.isfinite(v).all() for v in reader.values() if v.dtype == np.float32)


def test_the_export_job_writes_what_the_run_wrote(tiny, resnet_18):
    folder = str(tiny.folder / "resnet_18" / "saved_model" / str(TOTAL))
    images = np.random.default_rng(0).random((2, 16, 16, 3)).astype(np.float32)
    before = tf.saved_model.load(folder)(images).numpy()
    code, output = tiny.run("resnet_18", job="export", recipe=tiny.resnet_18)
    assert code == 0, output
    np.testing.assert_array_equal(tf.saved_model.load(folder)(images).numpy(), before)
