"""If this breaks, a profile shows other steps than asked for, or TensorBoard finds none."""

import pathlib

import pytest
import tensorflow as tf

from simclr_tf.errors import RequestError
from simclr_tf.training.profile import Profile, check_profile_steps

xplane_pb2 = pytest.importorskip("tensorflow.tsl.profiler.protobuf.xplane_pb2")


def profiled(folder: pathlib.Path) -> tuple[set[int], set[str]]:
    """The numbers of the steps in a run's profiles, and the names of all events on its host."""
    steps, names = set(), set()
    # Where TensorBoard's plug-in looks.
    for path in (folder / "tensorboard" / "plugins" / "profile").glob("*/*.xplane.pb"):
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
        for plane in (plane for plane in space.planes if "CPU" in plane.name):
            stats = {i: metadata.name for i, metadata in plane.stat_metadata.items()}
            for event in (event for line in plane.lines for event in line.events):
                name = plane.event_metadata[event.metadata_id].name
                names.add(name)
                if name == "train":
                    steps |= {
                        s.int64_value for s in event.stats if stats[s.metadata_id] == "step_num"
                    }
    return steps, names


def take(folder, start, stop, *, goal, until=None):
    """Takes steps from `start`, as the calls of the inner loop do."""
    square = tf.function(lambda x: tf.matmul(x, x))
    step = start
    with Profile(str(folder), stop, is_chief=True) as profile:
        while step < (until or goal):
            steps = profile.most(step, goal - step)
            with profile.around(step):
                square(tf.ones([8, 8])).numpy()
            step += steps


def test_the_profile_holds_exactly_the_steps(tmp_path):
    take(tmp_path, 0, (3, 6), goal=9)
    steps, names = profiled(tmp_path)
    assert steps == {3, 4, 5}
    assert any("MatMul" in name for name in names), names


def test_a_run_that_is_stopped_amid_them_keeps_what_there_is(tmp_path):
    take(tmp_path, 0, (3, 6), goal=9, until=5)
    assert profiled(tmp_path)[0] == {3, 4}


def test_a_run_that_is_past_them_writes_none(tmp_path):
    take(tmp_path, 6, (3, 6), goal=9)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("steps", [None, (0, 1), [3, 10]])
def test_steps_of_the_run_are_accepted(steps):
    check_profile_steps(steps, 10)


@pytest.mark.parametrize(
    "steps", [(3, 3), (-1, 2), (3, 11), (3,), 7, (1.0, 2), (False, True), "ab"]
)
def test_other_steps_are_refused(steps):
    with pytest.raises(
        RequestError, match=r"profile_steps must be(.|\n)*<= 10, the number of steps"
    ):
        check_profile_steps(steps, 10)
