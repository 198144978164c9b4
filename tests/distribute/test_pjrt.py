"""If this breaks, PJRT devices compute something else than the replica function says."""

import json
import pathlib
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

jax = pytest.importorskip("jax", reason="needs the extra [pjrt]")
# ruff: noqa: E402

from simclr_tf.distribute import collectives, environment
from simclr_tf.distribute import strategy as strategies
from simclr_tf.distribute.lowering import lower
from simclr_tf.distribute.pjrt import client
from simclr_tf.distribute.pjrt.feed import Feed
from simclr_tf.distribute.pjrt.program import DeviceProgram, DeviceVariables, translated_errors
from simclr_tf.distribute.strategy import create_strategy
from simclr_tf.errors import RequestError

pytestmark = pytest.mark.usefixtures("virtual_devices")
REPLICAS = 3


@pytest.fixture
def replicas():
    return create_strategy(cpu_replicas=REPLICAS, tpu="none", runtime="pjrt")


@pytest.fixture
def counting(replicas):
    """A program that adds a batch's sum over all replicas to a variable, and its variables."""
    with replicas.scope():
        total = tf.Variable([0.0, 0.0])
        steps = tf.Variable(2**40, dtype=tf.int64)
        factor = tf.Variable(2.0)

    def step(x):
        total.assign_add(factor * collectives.all_reduce_sum(tf.reduce_sum(x, axis=0)))
        steps.assign_add(1)
        return total[0], steps

    program = lower(replicas, step, tf.TensorSpec([4, 2]))
    held = DeviceVariables(replicas.devices)
    return DeviceProgram(program, replicas.devices, held), held, (total, steps, factor)


def batch(number: int) -> np.ndarray:
    """The parts of all replicas: [R, 4, 2]."""
    return np.random.default_rng(number).random((REPLICAS, 4, 2), np.float32)


def test_variables_stay_on_the_devices_until_they_are_brought_home(replicas, counting):
    program, held, (total, steps, factor) = counting
    for number in range(3):
        placed = held.values([total])[0]
        results = program([replicas.devices.parts(list(batch(number)))])
    expected = 2 * sum(batch(n).astype(np.float64).sum(axis=(0, 1)) for n in range(3))
    np.testing.assert_allclose(client.value_of(results[0]), expected[0], rtol=1e-6)
    assert placed.is_deleted(), "its memory was not taken over"
    assert (total.numpy() == 0).all() and steps.numpy() == 2**40
    held.bring_home()
    np.testing.assert_allclose(total.numpy(), expected, rtol=1e-6)
    assert (steps.numpy(), factor.numpy()) == (2**40 + 3, 2.0)


def test_a_program_is_compiled_once_for_all_starts(replicas, virtual_devices):
    events = []
    virtual_devices.monitoring.register_event_listener(lambda name, **_: events.append(name))
    virtual_devices.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    program = lower(replicas, lambda x: tf.cos(x) + 3.0, tf.TensorSpec([4, 2]))
    results = [((4, 2), np.dtype(np.float32))]
    found = []
    for _ in range(2):
        executable = replicas.devices.compile(program.stablehlo, results)
        (result,) = executable([replicas.devices.parts(list(batch(0)))])
        found.append([np.asarray(shard.data) for shard in result.addressable_shards])
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], np.cos(batch(0)) + 3.0, rtol=1e-6)
    assert events.count("/jax/compilation_cache/cache_hits") == 1
    assert list(pathlib.Path(virtual_devices.config.jax_compilation_cache_dir).iterdir())


def test_batches_are_on_the_devices_two_at_a_time(replicas):
    made = []

    def batches():
        for number in range(4):
            made.append(number)
            yield [list(batch(number))]

    feed = Feed(batches(), replicas.devices)
    for number in range(3):
        (found,), _ = feed.take(running=None)
        np.testing.assert_array_equal(np.asarray(found), batch(number).reshape(-1, 2))
        shards = {s.device.id: np.asarray(s.data) for s in found.addressable_shards}
        assert all(np.array_equal(shards[r], batch(number)[r]) for r in range(REPLICAS))
        assert len(made) <= number + 3
        feed.release()
    feed.close()


def test_an_error_of_the_source_comes_after_the_batches_before_it(replicas):
    def batches():
        yield [list(batch(0))]
        raise tf.errors.NotFoundError(None, None, "gone")

    feed = Feed(batches(), replicas.devices)
    feed.take(running=None)
    with pytest.raises(tf.errors.NotFoundError, match="gone"):
        feed.take(running=None)
    feed.close()
    assert not any(t.name.endswith("(_place)") for t in threading.enumerate())


def test_errors_of_devices_are_those_of_tensorflow():
    full = pytest.raises(tf.errors.ResourceExhaustedError, match="out of memory")
    with full, translated_errors():
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
    with pytest.raises(jax.errors.JaxRuntimeError), translated_errors():
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")


def test_the_present_version_of_jax_was_tried():
    assert environment.is_supported("jax", jax.__version__)


@pytest.mark.parametrize(("version", "said"), [(None, "no jax"), ("0.11.0", "jax 0.11.0")])
def test_other_versions_of_jax_are_refused(monkeypatch, version, said):
    monkeypatch.setattr(environment, "installed", lambda name: version)
    with pytest.raises(RequestError, match=rf"jax from 0\.10\.2 to below 0\.11.*Received: {said}"):
        create_strategy(tpu="none", runtime="pjrt")


def test_devices_are_counted_once_jax_has_started(replicas):
    assert create_strategy(tpu="none", runtime="pjrt").num_replicas_in_sync == 1
    with pytest.raises(RequestError, match=r"before jax starts\. Received: 99"):
        create_strategy(cpu_replicas=99, tpu="none", runtime="pjrt")


def test_devices_that_do_not_start_are_told(monkeypatch):
    def devices():
        raise RuntimeError("Unable to initialize backend 'tpu'.")

    monkeypatch.setattr(jax, "devices", devices)
    with pytest.raises(RequestError, match=r"Received: Unable to initialize backend 'tpu'\."):
        create_strategy(tpu="none", runtime="pjrt")


def test_several_hosts_are_refused(monkeypatch):
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(RequestError, match=r"one host\. Received: TF_CONFIG with 2 workers"):
        create_strategy(tpu="none", runtime="pjrt")
    monkeypatch.delenv("TF_CONFIG")
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(RequestError, match=r"one host\. Received: devices of 4 hosts"):
        create_strategy(tpu="none", runtime="pjrt")


def test_the_cpu_does_not_stand_for_an_accelerator(monkeypatch):
    monkeypatch.setattr(environment, "has_tpu_devices", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(RequestError, match=r"jax must see .* Received: a TPU, but"):
        create_strategy(tpu="none", runtime="pjrt")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert create_strategy(tpu="none", runtime="pjrt").num_replicas_in_sync == 1


@pytest.mark.parametrize(
    ("platform", "capability", "precision"),
    [
        ("tpu", None, "mixed_bfloat16"),
        ("gpu", "9.0", "mixed_bfloat16"),
        ("gpu", "7.5", "mixed_float16"),
        ("gpu", "gfx90a", "float32"),
        ("cpu", None, "float32"),
    ],
)
def test_the_precision_is_that_of_the_devices(
    monkeypatch, replicas, platform, capability, precision
):
    device = SimpleNamespace(platform=platform, compute_capability=capability)
    monkeypatch.setattr(replicas.devices, "_devices", [device])
    monkeypatch.setattr(strategies, "_cpu_flags", set)
    assert strategies.fast_precision(replicas) == precision
