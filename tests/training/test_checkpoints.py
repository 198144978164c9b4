"""If this breaks, days of training are lost, or a run goes on from weights that are not its own."""

import json
import os
import pathlib
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.errors import RequestError
from simclr_tf.training.checkpoints import Checkpoints, complete_steps, named_groups
from simclr_tf.training.host_copy import checkpoint_of, copy_to_host


def model(width=3, value=0.0):
    inputs = keras.Input((2,))
    outputs = keras.layers.Dense(width, name="dense")(inputs)
    built = keras.Model(inputs, outputs, name="encoder")
    built.set_weights([np.full_like(w, value) for w in built.get_weights()])
    return built


def checkpoints(folder, built, keep=2, **settings):
    return Checkpoints(str(folder), named_groups({"encoder": built}), settings, keep=keep)


def value(built):
    return built.get_weights()[0].flat[0]


def saved(folder, *steps):
    for step in steps:
        checkpoints(folder, model(value=step), keep=10, steps=9).save(step)


def test_the_newest_is_restored_and_the_oldest_go(tmp_path):
    for step in (1, 2, 3):
        checkpoints(tmp_path, model(value=step)).save(step)
    assert complete_steps(str(tmp_path)) == [2, 3]
    other = model()
    assert checkpoints(tmp_path, other).restore() == 3
    assert value(other) == 3


def test_what_was_just_saved_stays_beside_a_newer_one_that_is_damaged(tmp_path):
    saved(tmp_path, 1, 2, 3)
    data = next((tmp_path / "checkpoints" / "step_00000003").glob("variables.data*"))
    data.write_bytes(bytes(data.stat().st_size))
    again = checkpoints(tmp_path, model(), keep=1, steps=9)
    assert again.restore() == 2
    again.save(2)
    assert checkpoints(tmp_path, model(), steps=9).restore() == 2


def test_a_new_folder_starts_afresh(tmp_path):
    assert checkpoints(tmp_path / "none", model()).restore() is None
    assert checkpoints(tmp_path, model()).restore() is None


def test_an_interrupted_first_save_starts_afresh(tmp_path):
    (tmp_path / "checkpoints" / "step_00000000").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step_00000000" / "variables.index").write_bytes(b"half")
    assert checkpoints(tmp_path, model()).restore() is None


@pytest.mark.parametrize("harm", ["no manifest", "cut manifest", "cut data", "flipped", "missing"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, harm):
    saved(tmp_path, 1, 2)
    folder = tmp_path / "checkpoints" / "step_00000002"
    data = next(folder.glob("variables.data*"))
    content = data.read_bytes()
    if harm == "no manifest":
        (folder / "manifest.json").unlink()
    elif harm == "cut manifest":
        (folder / "manifest.json").write_text('{"step": 2, "var')
    elif harm == "cut data":
        data.write_bytes(content[:-3])
    elif harm == "flipped":
        data.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    else:
        data.unlink()
    other = model()
    assert checkpoints(tmp_path, other, steps=9).restore() == 1
    assert value(other) == 1


def test_nothing_readable_is_an_error_and_nothing_is_overwritten(tmp_path):
    saved(tmp_path, 1)
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    data = next((tmp_path / "checkpoints" / "step_00000001").glob("variables.data*"))
    data.write_bytes(b"")
    before = sorted(os.walk(tmp_path))
    with pytest.raises(RequestError, match="must be new, or hold a readable checkpoint"):
        checkpoints(tmp_path, model(), steps=9).restore()
    assert sorted(os.walk(tmp_path)) == before


def test_a_folder_of_something_else_is_an_error(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(RequestError, match=r"thesis\.tex"):
        checkpoints(tmp_path, model()).restore()
    assert [p.name for p in pathlib.Path(tmp_path).iterdir()] == ["thesis.tex"]


def test_another_architecture_is_an_error_that_names_the_difference(tmp_path):
    saved(tmp_path, 1)
    with pytest.raises(RequestError, match=r"dense/kernel is \[2, 3\] in the checkpoint, \[2, 4\]"):
        checkpoints(tmp_path, model(width=4), steps=9).restore()


def test_other_settings_are_an_error_that_names_them(tmp_path):
    saved(tmp_path, 1)
    with pytest.raises(RequestError, match="steps: 9 in the checkpoint, 10 now"):
        checkpoints(tmp_path, model(), steps=10).restore()


def with_recipe(folder, built, **recipe):
    return Checkpoints(str(folder), named_groups({"encoder": built}), {}, recipe=recipe)


def test_a_recipe_may_change_where_nothing_is_learnt_otherwise(tmp_path, capsys):
    before = {"pretrain.steps_per_loop": "2", "nt_xent.temperature": "0.1"}
    with_recipe(tmp_path, model(value=1), **before).save(1)
    harmless = before | {"pretrain.steps_per_loop": "4", "data.cache": "'encoded'"}
    harmless["nt_xent.temperature"] = "1e-1"  # the same number
    assert with_recipe(tmp_path, model(), **harmless).restore() == 1
    assert "pretrain.steps_per_loop: 2 in the checkpoint, 4 now" in capsys.readouterr().out
    for now in (before | {"nt_xent.temperature": "0.2"}, before | {"lars.eta": "0.1"}):
        with pytest.raises(RequestError, match="other settings") as error:
            with_recipe(tmp_path, model(), **now).restore()
        assert "steps_per_loop" not in str(error.value)


def test_a_parameter_that_is_newer_than_the_checkpoint_is_unchanged_at_its_default(tmp_path):
    with_recipe(tmp_path, model(value=1), **{"lars.eta": "0.001"}).save(1)
    now = {"lars.eta": "0.001", "lars.clip": "1.0", "pretrain.method": "@simclr"}
    groups = named_groups({"encoder": model()})
    known = {"lars.clip": "1.0", "pretrain.method": "@simclr"}
    assert Checkpoints(str(tmp_path), groups, {}, recipe=now, defaults=known).restore() == 1
    known["lars.clip"] = "2.0"
    with pytest.raises(RequestError, match=r"lars\.clip: not set in the checkpoint, 1\.0 now"):
        Checkpoints(str(tmp_path), groups, {}, recipe=now, defaults=known).restore()


def test_a_checkpoint_from_before_recipes_were_kept_goes_on(tmp_path):
    saved(tmp_path, 1)
    manifest = tmp_path / "checkpoints" / "step_00000001" / "manifest.json"
    text = json.loads(manifest.read_text())
    del text["recipe"]
    manifest.write_text(json.dumps(text))
    assert with_recipe(tmp_path, model(), **{"lars.eta": "0.1"}).restore() == 1


def test_what_a_kill_leaves_of_an_old_checkpoint_goes_with_the_next_save(tmp_path):
    saved(tmp_path, 1, 2, 3)
    (tmp_path / "checkpoints" / "step_00000001" / "manifest.json").unlink()
    checkpoints(tmp_path, model(), keep=2, steps=9).save(4)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["step_00000003", "step_00000004"]


def test_optimizers_keep_their_names_however_many_were_built():
    def names():
        built = model()
        optimizer = keras.optimizers.Adam()
        optimizer.build(built.trainable_variables)
        return set(named_groups({"encoder": built}, optimizer)["optimizer"])

    assert names() == names()


@pytest.fixture
def held_write(monkeypatch):
    """Lets TensorFlow write only once the event `go` is set; `begun` says that it wants to."""
    go, begun, real = threading.Event(), threading.Event(), tf.train.Checkpoint.write

    def write(self, path):
        begun.set()
        assert go.wait(60)
        return real(self, path)

    monkeypatch.setattr(tf.train.Checkpoint, "write", write)
    return go, begun


def trained():
    """A model and an optimizer on two replicas, and a step that changes all but the rate."""
    strategy = tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    with strategy.scope():
        built = model(value=1.0)
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        optimizer.build(built.trainable_variables)

    @tf.function
    def step():
        def replica():
            gradients = [tf.ones(v.shape) for v in built.trainable_variables]
            optimizer.apply_gradients(zip(gradients, built.trainable_variables, strict=True))

        strategy.run(replica)

    return named_groups({"encoder": built}, optimizer), step


def values(groups):
    return {f"{g}/{p}": v.numpy() for g, group in groups.items() for p, v in group.items()}


def test_steps_that_go_on_while_it_is_written_do_not_touch_a_checkpoint(tmp_path, held_write):
    go, begun = held_write
    groups, step = trained()
    saver = Checkpoints(str(tmp_path), groups, {})
    step()
    expected = values(groups)
    saver.begin(1, saver.copy())
    assert begun.wait(60)
    step()
    step()
    assert not complete_steps(str(tmp_path)), "the manifest came before the variables"
    now = values(groups)
    kept = [name for name, value in expected.items() if (now[name] == value).all()]
    assert kept == ["optimizer/learning_rate"]
    go.set()
    saver.wait()
    assert Checkpoints(str(tmp_path), groups, {}).restore() == 1
    for name, value in values(groups).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)


def test_a_copy_is_written_to_the_files_of_the_variables_themselves(tmp_path):
    groups, step = trained()
    step()
    variables = {name: {p: v.value for p, v in group.items()} for name, group in groups.items()}
    tf.train.Checkpoint(**variables).write(str(tmp_path / "themselves" / "variables"))
    checkpoint_of(copy_to_host(groups), groups).write(str(tmp_path / "copy" / "variables"))
    files = sorted(os.listdir(tmp_path / "themselves"))
    assert files == sorted(os.listdir(tmp_path / "copy")) and len(files) == 2
    for name in files:
        assert (tmp_path / "copy" / name).read_bytes() == (
            tmp_path / "themselves" / name
        ).read_bytes()


def test_old_ones_go_only_once_the_new_one_counts(tmp_path, held_write):
    go, begun = held_write
    go.set()
    saved(tmp_path, 1, 2)
    go.clear()
    begun.clear()
    saver = checkpoints(tmp_path, model(), keep=1, steps=9)
    saver.begin(3, saver.copy())
    assert begun.wait(60)
    assert complete_steps(str(tmp_path)) == [1, 2]
    go.set()
    saver.wait()
    assert complete_steps(str(tmp_path)) == [3]


def test_a_write_that_fails_is_raised_by_the_next_look_and_leaves_no_manifest(
    tmp_path, monkeypatch
):
    def write(self, path):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    saver = checkpoints(tmp_path, model())
    with monkeypatch.context() as patched:
        patched.setattr(tf.train.Checkpoint, "write", write)
        saver.begin(1, saver.copy())
        with pytest.raises(tf.errors.ResourceExhaustedError, match="No space left"):
            saver.wait()
    assert not complete_steps(str(tmp_path))
    saver.save(1)
    assert complete_steps(str(tmp_path)) == [1]


def test_a_folder_that_is_no_longer_ours_gets_no_manifest(tmp_path):
    looks = iter([None, RequestError("another run trains here")])

    def still_ours():
        found = next(looks)
        if found:
            raise found

    saver = Checkpoints(
        str(tmp_path), named_groups({"encoder": model()}), {}, still_ours=still_ours
    )
    with pytest.raises(RequestError, match="another run"):
        saver.save(1)
    assert not complete_steps(str(tmp_path))


def test_a_store_that_cannot_be_reached_is_no_damage(tmp_path, monkeypatch):
    """To go on from an older checkpoint would throw good steps away."""
    saved(tmp_path, 1, 2)

    def read(self, path):
        raise tf.errors.UnavailableError(None, None, "Socket closed")

    monkeypatch.setattr(tf.train.Checkpoint, "read", read)
    with pytest.raises(tf.errors.UnavailableError):
        checkpoints(tmp_path, model(), steps=9).restore()
