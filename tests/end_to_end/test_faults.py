"""If this breaks, something that happens to a run in the night loses what the run had saved."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import run

pytestmark = pytest.mark.slow
TOTAL = 31
# A folder of a checkpoint or of an export before its first file, between its files, before it
# counts, and while an old one goes.
MOMENTS = (
    "makedirs:step_00000000",
    "write:step_00000000",
    "open:config.gin",
    "open:step_00000004/manifest.json",
    "rename:step_00000008/manifest.json",
    "rmtree:step_00000000",
    "save:partial-31",
    "rename:partial-31",
)


def test_killed_between_any_two_files(tiny, undisturbed, injected):
    for moment in MOMENTS:
        code, output = tiny.run("moments", fault=f"kill@{moment}")
        assert code == -signal.SIGKILL, (moment, output)
    tiny.go_on("moments", undisturbed)
    assert tiny.steps("moments") == [24, 28, TOTAL]
    assert sorted(os.listdir(tiny.folder / "moments" / "saved_model")) == [str(TOTAL)]
    images = tf.constant(np.random.default_rng(0).random((2, 16, 16, 3), np.float32))
    encoders = [
        tf.saved_model.load(str(tiny.folder / d / "saved_model" / str(TOTAL)))
        for d in ("moments", "undisturbed")
    ]
    np.testing.assert_array_equal(*(encoder(images).numpy() for encoder in encoders))
    injected("killed while a checkpoint or an export was written", len(MOMENTS), "equal weights")


def test_a_second_run_is_refused_and_ctrl_c_saves(tiny, undisturbed, injected, capfd, tmp_path):
    stopped = tmp_path / "stopped"
    process = tiny.start("twice", fault=f"hold:6:{stopped}")
    tiny.wait_for_step("twice", 2, process)
    assert run.main(tiny.arguments("twice")) == 2
    error = capfd.readouterr().err
    assert f"process {process.pid} on" in error and "Traceback" not in error
    process.send_signal(signal.SIGINT)
    stopped.touch()
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 42, output
    tiny.go_on("twice", undisturbed)
    injected("a second run in the same folder", 1, "refused (2), the first unharmed")
    injected("SIGINT", 1, "saved (42), equal weights")


def test_damaged_checkpoints(tiny, undisturbed, injected):
    code, output = tiny.run("damaged", fault="kill@makedirs:step_00000020")
    assert code == -signal.SIGKILL, output
    folder = tiny.folder / "damaged" / "checkpoints"
    *_, third, second, newest = tiny.steps("damaged")
    data = next((folder / f"step_{newest:08d}").glob("variables.data*"))
    data.write_bytes(data.read_bytes()[:-100])
    data = next((folder / f"step_{second:08d}").glob("variables.data*"))
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    shutil.copytree(tiny.folder / "damaged", tiny.folder / "hopeless")
    output = tiny.go_on("damaged", undisturbed)
    assert output.count("damaged and passed over") >= 2
    assert f"going on from step {third}" in output
    injected("newest checkpoint cut short, the one before with a bit flipped", 1, "equal weights")

    hopeless = tiny.folder / "hopeless" / "checkpoints" / f"step_{third:08d}"
    (hopeless / "variables.index").unlink()
    before = {p: p.stat().st_mtime_ns for p in hopeless.parent.rglob("step_*/*")}
    tiny.stopped_by("hopeless", 2, "hold a readable checkpoint")
    assert {p: p.stat().st_mtime_ns for p in hopeless.parent.rglob("step_*/*")} == before
    injected("no checkpoint intact", 1, "refused (2), nothing overwritten")


def test_a_batch_that_is_not_a_number(tiny, undisturbed, injected):
    tiny.stopped_by("nan", 3, "not finite at step 11 of 31", fault="nan:10")
    assert tiny.steps("nan") == [0, 4, 8]
    tiny.go_on("nan", undisturbed)
    injected("a batch of NaN", 1, "stopped (3), equal weights from the checkpoint before it")


def test_a_clock_that_jumps(tiny, undisturbed, injected):
    tiny.go_on("clock", undisturbed, fault="clock")
    for line in (tiny.folder / "clock" / "metrics.jsonl").open():
        report = json.loads(line)
        assert 0 <= report["host_wait"] <= 1 and 0 < report["examples_per_second"] < 1e5
    injected("a clock that jumps by days at every look", TOTAL, "equal weights")


def test_a_source_that_stalls(tiny, undisturbed, injected):
    output = tiny.go_on("stalled", undisturbed, fault="stall:10:60")
    assert (
        output.index("step 10/31") < output.index("no step has ended for") < output.index("12/31")
    )
    injected("a source that stalls", 1, "a warning, equal weights")


def test_a_changed_recipe(tiny, undisturbed, injected, capfd):
    moved = shutil.copytree(tiny.photos, tiny.folder / "moved")
    harmless = [
        "pretrain.steps_per_loop = 5",
        "pretrain.checkpoint_every_steps = 10",
        f"data.source = 'folder:{moved}'",
    ]
    assert run.main(tiny.arguments("undisturbed", *harmless)) == 0
    output = capfd.readouterr().out
    assert "pretrain.steps_per_loop: 2 in the checkpoint, 5 now" in output
    assert f"data.source: 'folder:' in the checkpoint, 'folder:{moved}' now" in output
    (moved / os.listdir(moved)[0]).rename(moved / "another.png")
    assert run.main(tiny.arguments("undisturbed", *harmless)) == 2
    assert "source: '24 files, " in capfd.readouterr().err
    harmful = {
        "nt_xent.temperature = 0.4": "nt_xent.temperature: 0.5 in the checkpoint, 0.4 now",
        "augmentation.policy = [('flip', 0.5)]": "now",
        "lars.eta = 0.01": "lars.eta: 0.001 in the checkpoint, 0.01 now",
    }
    for binding, words in harmful.items():
        assert run.main(tiny.arguments("undisturbed", binding)) == 2
        assert words in capfd.readouterr().err
    tiny.check_weights("undisturbed", TOTAL, undisturbed)
    injected("a recipe changed without effect", len(harmless), "listed, goes on")
    injected("a recipe changed with effect", len(harmful), "refused (2) with the difference")
