"""If this breaks, a full disk or a damaged record ends a run with a traceback, or as no fault."""

import errno
import functools
import os

import pytest
import tensorflow as tf

from simclr_tf.errors import PreemptedError, RequestError
from simclr_tf.training.mishaps import (
    OTHER_HOST,
    OWN_TPU,
    TPU_WORKER,
    peers_checked,
    steps_checked,
    writes_checked,
)

steps = functools.partial(steps_checked, when_out_of_memory="Set a smaller batch.")


def read(dataset):
    """Reads in a tf.function, as the training loop does."""
    iterator = iter(dataset)
    tf.function(lambda: [next(iterator) for _ in range(3)])()


def records(tmp_path, harm):
    path = tmp_path / "some.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for _ in range(3):
            writer.write(b"x" * 100)
    content = bytearray(path.read_bytes())
    harm(content)
    path.write_bytes(content)
    return tf.data.TFRecordDataset(str(path))


def flip(content):
    content[150] ^= 1


def cut(content):
    del content[250:]


def end(content):
    del content[116:]


@pytest.mark.parametrize(
    ("harm", "words"),
    [(flip, "corrupted record"), (cut, "truncated record"), (end, "End of sequence")],
)
def test_data_that_cannot_be_read_are_the_requests_fault(tmp_path, harm, words):
    with (
        pytest.raises(RequestError, match="as they were when the run began") as error,
        steps("runs/x", peer=None),
    ):
        read(records(tmp_path, harm))
    assert words in str(error.value) and "runs/x" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_host_that_is_gone_is_no_fault_of_this_one():
    error = tf.errors.UnavailableError(None, None, "Connection reset by peer\nmore")
    with (
        pytest.raises(
            PreemptedError, match=r"Another host of this run is gone \(Connection reset by peer"
        ),
        steps("runs/x", peer=OTHER_HOST),
    ):
        raise error
    with pytest.raises(tf.errors.UnavailableError), steps("runs/x", peer=None):
        raise error


def test_a_step_that_does_not_fit_says_what_to_do():
    with (
        pytest.raises(RequestError, match=r"OOM when allocating tensor\. Set a smaller batch\.$"),
        steps("runs/x", peer=None),
    ):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_what_the_system_says_of_a_write_is_said(number):
    with (
        pytest.raises(RequestError, match=os.strerror(number)),
        writes_checked("runs/x"),
    ):
        raise OSError(number, os.strerror(number))


def test_a_write_of_tensorflow_that_fails_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="must be writable"), writes_checked("runs/x"):
        tf.io.gfile.GFile(str(tmp_path / "file" / "below"), "w").write("x")


def test_a_mistake_of_this_program_keeps_its_traceback():
    wrong = tf.errors.InvalidArgumentError(None, None, "shapes differ")
    with pytest.raises(tf.errors.InvalidArgumentError), writes_checked("runs/x"):
        raise wrong
    with (
        pytest.raises(tf.errors.InvalidArgumentError),
        steps("runs/x", peer=OTHER_HOST),
    ):
        raise wrong


@pytest.mark.parametrize("peer", [OTHER_HOST, TPU_WORKER, OWN_TPU])
@pytest.mark.parametrize(
    "error",
    [
        tf.errors.AbortedError(None, None, "RecvTensor expects a different device incarnation"),
        tf.errors.CancelledError(None, None, "RPC Request was cancelled"),
        tf.errors.DeadlineExceededError(None, None, "Deadline Exceeded"),
        # Said by what was lost and is there again, under classes that else mean other things.
        tf.errors.FailedPreconditionError(None, None, "The TPU system has not been initialized."),
        tf.errors.InvalidArgumentError(
            None, None, "Unable to find the relevant tensor remote_handle: Op ID: 7"
        ),
    ],
)
def test_what_is_gone_or_has_forgotten_all_ends_the_run_as_preempted(peer, error):
    with pytest.raises(PreemptedError, match=peer.name), steps("runs/x", peer=peer):
        raise error


def test_an_internal_error_of_this_hosts_tpu_may_be_the_programs_fault():
    halted = tf.errors.InternalError(None, None, "Core halted unexpectedly")
    with pytest.raises(tf.errors.InternalError), peers_checked("runs/x", OWN_TPU):
        raise halted
    with pytest.raises(PreemptedError), peers_checked("runs/x", TPU_WORKER):
        raise halted
