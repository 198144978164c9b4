"""If this breaks, a bug is told as the person's fault, or the person's fault as a traceback."""

import os

import pytest
import tensorflow as tf

from simclr_tf import run
from simclr_tf.distribute.batch_norm import SyncBatchNormalization
from simclr_tf.errors import InvalidArgument, RequestError
from simclr_tf.models.resnet import resnet
from simclr_tf.training.failures import as_request_error


def refuse():
    raise InvalidArgument("The depth must be 50. Received: 49.")


def out_of_memory():
    raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (refuse, "Received: 49"),
        (lambda: os.stat("/no/such/file"), "/no/such/file"),
        (lambda: __import__("no_such_package"), "no_such_package"),
        (lambda: tf.io.gfile.stat("/no/such/file"), "/no/such/file"),
        (lambda: tf.io.gfile.stat("nosuch://bucket/file"), "nosuch"),
        (lambda: tf.io.gfile.listdir("/dev/null"), "/dev/null"),
        (out_of_memory, "OOM"),
    ],
)
def test_what_a_request_can_cause_is_its_fault(action, words):
    with pytest.raises(RequestError, match=words), as_request_error():
        action()


def unregistered():
    raise tf.errors.NotFoundError(None, None, "No registered 'Foo' OpKernel for CPU devices")


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        (lambda: int("many"), ValueError),
        (lambda: len(3), TypeError),
        (lambda: resnet(depth=50, sizes=32), TypeError),
        (lambda: {}["missing"], KeyError),
        (lambda: tf.zeros([2]) + tf.zeros([3]), tf.errors.InvalidArgumentError),
        (unregistered, tf.errors.NotFoundError),
    ],
)
def test_what_a_request_cannot_cause_stays_what_it_is(action, kind):
    with pytest.raises(kind) as raised, as_request_error():
        action()
    assert not isinstance(raised.value, RequestError)


def pretrain(evaluation, folder, *bindings, flags=()):
    """The exit code of the pretraining job, which must end before it trains."""
    small = ("resnet.width_multiplier = 0.01", "pretrain.global_batch_size = 4")
    return run.main(
        [
            f"--gin_file={evaluation.recipe}",
            *(f"--gin_bindings={binding}" for binding in (*small, *bindings)),
            f"--data_dir={evaluation.pictures}",
            f"--model_dir={folder}",
            "--tpu=none",
            *flags,
        ]
    )


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("resnet.depth = 19", "depth=19"),
        ("resnet.width_multiplier = 0.0", "width_multiplier=0.0"),
        ("resnet.sk_ratio = 0.1", "sk_ratio=0.1"),
        ("resnet.sk_ratio = 1e30", "sk_ratio=1e+30"),
        ("resnet.sk_ratio = 1e300", "resnet.sk_ratio must be float, finite and at most"),
        ("resnet.width_multiplier = 1e20", "width_multiplier=1e+20"),
        ("projection_head.num_layers = 9000000000", "num_layers=9000000000"),
        ("projection_head.output_dim = 9000000000", "output_dim=9000000000"),
        ("nt_xent.temperature = 1e300", "nt_xent.temperature must be float, finite and at most"),
        ("pretrain.epochs = 1e20", "of less than 2,147,483,648 steps. Received: epochs=1e+20"),
        ("data.image_size = 9000000000", "image_size=9000000000"),
        ("strategy.cpu_replicas = 9000000000", "Received: 9000000000"),
        ("pretrain.epochs = @resnet", "a @function of num_examples, as @epochs_by_count is"),
        ("pretrain.global_batch_size = 1", "A batch of SimCLR must have at least 2 images"),
        ("projection_head.kind = 'x'", "kind='x'"),
        ("lars.eta = 0.0", "eta=0.0"),
        ("learning_rate.scaling = 'x'", "scaling='x'"),
        ("nt_xent.temperature = 0.0", "temperature=0.0"),
        ("augmentation.policy = [('x', 0.5)]", "Received: 'x'"),
        ("pretrain.epochs = -1.0", "total_steps=-"),
        ("pretrain.epochs = 1e999", "epochs=inf"),
        ("pretrain.seed = -1", "pretrain.seed must be from 0"),
        ("pretrain.keep_checkpoints = 0", "pretrain.keep_checkpoints must be at least 1"),
        ("pretrain.encoder = @projection_head", "must be a @function of image_size, as @resnet is"),
    ],
)
def test_what_parts_refuse_is_the_fault_of_the_request(evaluation, tmp_path, capfd, binding, words):
    assert pretrain(evaluation, tmp_path, binding) == 2
    error = capfd.readouterr().err
    error = error[error.index("error: ") :]
    assert words in error and "Traceback" not in error and "In call to" not in error


def test_debug_shows_where_a_request_was_refused_and_why(evaluation, tmp_path, capfd):
    binding = "data.source = 'tfds:no_such_set'"
    assert pretrain(evaluation, tmp_path, binding, flags=["--debug"]) == 2
    trace, _, message = capfd.readouterr().err.partition("\nerror: ")
    assert "Traceback" in trace and "in open_tfds\n" in trace and "in main\n" in trace
    assert "DatasetNotFoundError: " in trace and "RequestError: The data set must" in trace
    assert message.startswith("The data set must be prepared") and message.count("\n") == 1


def test_a_bug_while_a_run_is_put_together_keeps_its_traceback(evaluation, tmp_path, monkeypatch):
    def build(self, shape):
        raise TypeError("a bug")

    monkeypatch.setattr(SyncBatchNormalization, "build", build)
    with pytest.raises(TypeError, match="a bug"):
        pretrain(evaluation, tmp_path)
