"""If this breaks, a TPU stays unused in silence, or a failure of it is a riddle."""

import contextlib
import importlib.util
import socket

import pytest
import tensorflow as tf

from simclr_tf.distribute import environment
from simclr_tf.distribute.strategy import create_strategy
from simclr_tf.errors import RequestError

REINSTALL = 'in a fresh virtual environment: pip install -e ".[tpu]"'
# Seen with TensorFlow 2.21, with tensorflow-tpu 2.20 and no TPU, or in public reports.
NO_KERNEL = (
    "TPUs not found in the cluster. Failed in initialization: No OpKernel was registered to "
    "support Op 'ConfigureDistributedTPU' used by {{node ConfigureDistributedTPU}} with these "
    "attrs: [is_global_init=false]\nRegistered devices: [CPU]"
)
NO_DEVICE = (
    "TPUs not found in the cluster. Failed in initialization: No matching devices found for "
    "'/device:TPU_SYSTEM:0' [Op:__inference__tpu_init_fn_4]"
)
NO_WORKER_DEVICE = "/job:worker/replica:0/task:0/device:TPU_SYSTEM:0 unknown device."
LAYOUT = (
    "TPU initialization failed: Invalid --2a886c8_slice_builder_worker_addresses specified. "
    "Expected 4 worker addresses, got 1."
)
IN_USE = "The TPU is already in use by process with pid 42. Not attempting to load libtpu.so"
NO_CLIENT = (
    "Missing runtime dependency on the Google API client. "
    "Run `pip install cloud-tpu-client` to fix."
)
NO_NAME = "Could not lookup TPU metadata from name 'mine'. Please doublecheck the tpu argument"
NOT_READY = 'TPU "mine" is not yet ready; state: "CREATING"'
OUTSIDE = "<urlopen error [Errno -2] Name or service not known>"


class FakeTpu:
    """TensorFlow's TPU API: notes the calls, and fails at one of them if told to."""

    def __init__(self, workers=()):
        self.calls = []
        self.workers = list(workers)
        self.failing = {}

    def call(self, name, result=None):
        def called(*args, **kwargs):
            self.calls.append((name, *args, *kwargs.values()))
            if name in self.failing:
                raise self.failing[name]
            return result

        return called

    def cluster_spec(self):
        return tf.train.ClusterSpec({"worker": self.workers})


@pytest.fixture
def api(monkeypatch):
    fake = FakeTpu()
    for owner, name, result in (
        (tf.distribute.cluster_resolver, "TPUClusterResolver", fake),
        (tf.config, "experimental_connect_to_cluster", None),
        (tf.tpu.experimental, "initialize_tpu_system", None),
        (tf.distribute, "TPUStrategy", "the strategy"),
    ):
        monkeypatch.setattr(owner, name, fake.call(name, result))
    return fake


@pytest.fixture
def no_tpu_variables(monkeypatch):
    for name in ("TPU_NAME", "TF_CONFIG", "TPU_LOAD_LIBRARY", *environment.LAYOUT_VARIABLES):
        monkeypatch.delenv(name, raising=False)


pytestmark = pytest.mark.usefixtures("no_tpu_variables")


@contextlib.contextmanager
def workers(count):
    """Addresses at which something listens, as TPU workers would."""
    with contextlib.ExitStack() as stack:
        servers = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        yield [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]


def install(folder, monkeypatch, **versions):
    for name, version in versions.items():
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(folder)


def devices(monkeypatch, there):
    monkeypatch.setattr(environment, "has_tpu_devices", lambda: there)


def test_a_local_tpu_is_initialized_without_connecting(api):
    assert create_strategy(tpu="local") == "the strategy"
    assert api.calls == [
        ("TPUClusterResolver", "local"),
        ("initialize_tpu_system", api),
        ("TPUStrategy", api),
    ]


def test_a_named_tpu_is_connected_to_before_it_is_initialized(api):
    with workers(2) as api.workers:
        assert create_strategy(tpu="mine") == "the strategy"
    assert api.calls == [
        ("TPUClusterResolver", "mine"),
        ("experimental_connect_to_cluster", api),
        ("initialize_tpu_system", api),
        ("TPUStrategy", api),
    ]


def test_a_worker_that_does_not_listen_is_not_waited_for(api):
    with workers(1) as listening, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        api.workers = [*listening, address]
        with pytest.raises(RequestError, match=f"start it on every worker.*listens at {address}"):
            create_strategy(tpu="mine")
    assert api.calls == [("TPUClusterResolver", "mine")]


def test_auto_takes_the_tpu_of_the_environment(api, monkeypatch):
    monkeypatch.setenv("TPU_NAME", "mine")
    with workers(1) as api.workers:
        create_strategy(tpu="auto")
    assert api.calls[0] == ("TPUClusterResolver", "mine")


@pytest.mark.parametrize("libtpu", ["0.0.30", None])
def test_auto_takes_this_hosts_tpu_whatever_is_installed(api, monkeypatch, libtpu):
    devices(monkeypatch, True)
    monkeypatch.setattr(environment, "installed", lambda name: libtpu)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: libtpu)
    create_strategy(tpu="auto")
    assert api.calls[0] == ("TPUClusterResolver", "local")


def test_the_cpu_beside_a_tpu_is_had_by_asking(api, monkeypatch):
    devices(monkeypatch, True)
    assert create_strategy(tpu="none").num_replicas_in_sync == 1
    assert api.calls == []


def test_a_tpu_that_tensorflow_cannot_use_is_an_error_by_itself(monkeypatch):
    devices(monkeypatch, True)
    with pytest.raises(
        RequestError, match=r"To mend it, .* To train without a TPU, say --tpu=none"
    ):
        create_strategy(tpu="auto")


def test_auto_takes_no_tpu_where_there_is_none(api, monkeypatch):
    devices(monkeypatch, False)
    assert create_strategy(tpu="auto").num_replicas_in_sync == 1
    assert api.calls == []


@pytest.mark.parametrize(
    ("call", "error", "cause", "mend"),
    [
        ("initialize_tpu_system", NO_KERNEL, "this TensorFlow has no TPU kernels", REINSTALL),
        ("initialize_tpu_system", NO_DEVICE, "another process holds the TPU", "sudo lsof -w"),
        ("initialize_tpu_system", IN_USE, "another process holds the TPU", "sudo lsof -w"),
        ("initialize_tpu_system", LAYOUT, "another layout of TPU hosts", "TPU_PROCESS_ADDRESSES"),
        ("initialize_tpu_system", "surprise", "unknown to this program", "tools/doctor.py"),
        ("initialize_tpu_system", NO_WORKER_DEVICE, "servers have no TPU", "docs/tpu.md"),
        (
            "TPUClusterResolver",
            NO_CLIENT,
            "whose client is not installed",
            "pip install google-api-python-client oauth2client",
        ),
        ("TPUClusterResolver", NO_NAME, "have no TPU of this name", "gcloud compute tpus tpu-vm"),
        ("TPUClusterResolver", NOT_READY, "being made, or was preempted", "says READY"),
        ("TPUClusterResolver", OUTSIDE, "this machine is outside", "the TPU's worker 0"),
    ],
)
@pytest.mark.parametrize("kind", [ValueError, lambda m: tf.errors.NotFoundError(None, None, m)])
def test_a_failure_is_one_error_with_cause_and_cure(
    api, monkeypatch, tmp_path, call, error, cause, mend, kind
):
    devices(monkeypatch, True)
    install(tmp_path, monkeypatch, libtpu="0.0.30")
    api.failing = {call: kind(error)}
    with pytest.raises(RequestError) as raised:
        create_strategy(tpu="local")
    said = str(raised.value)
    assert said.startswith("The TPU must be reachable. Received: --tpu=local, with libtpu 0.0.30, ")
    assert cause in said.partition("Cause: ")[2].partition("To mend it")[0]
    assert mend in said.partition("To mend it, ")[2].partition("TensorFlow says: ")[0]
    assert "runtime: StreamExecutor. Cause: " in said
    assert error[:60].splitlines()[0] in said.partition("TensorFlow says: ")[2]


@pytest.mark.parametrize(
    ("there", "variable", "libtpu", "cause", "mend"),
    [
        (False, None, "0.0.30", "this machine has no TPU", "a TPU VM"),
        (True, "0", "0.0.30", "TPU_LOAD_LIBRARY=0 forbids", "unset TPU_LOAD_LIBRARY"),
        (True, None, None, "libtpu is not installed", REINSTALL),
    ],
)
def test_why_libtpu_was_not_loaded(api, monkeypatch, there, variable, libtpu, cause, mend):
    devices(monkeypatch, there)
    if variable:
        monkeypatch.setenv("TPU_LOAD_LIBRARY", variable)
    monkeypatch.setattr(environment, "installed", lambda name: libtpu)
    api.failing = {"initialize_tpu_system": ValueError(NO_DEVICE)}
    with pytest.raises(RequestError, match=f"Cause: {cause}") as raised:
        create_strategy(tpu="local")
    assert mend in str(raised.value)


def test_stale_variables_are_named(api, monkeypatch):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "a,b,c,d")
    api.failing = {"initialize_tpu_system": RuntimeError(LAYOUT)}
    with pytest.raises(RequestError, match="unset TPU_WORKER_HOSTNAMES"):
        create_strategy(tpu="local")


def test_an_error_of_the_cloud_client_is_told_too(api):
    api.failing = {"TPUClusterResolver": type("ClientError", (Exception,), {})("no credentials")}
    with pytest.raises(RequestError, match="TensorFlow says: no credentials"):
        create_strategy(tpu="mine")


def test_a_libtpu_that_would_end_the_process_is_refused_first(api, monkeypatch, tmp_path):
    install(tmp_path, monkeypatch, tensorflow_tpu="2.20.0", libtpu="0.0.52")
    with pytest.raises(RequestError) as raised:
        create_strategy(tpu="local")
    assert "Received: libtpu 0.0.52" in str(raised.value) and REINSTALL in str(raised.value)
    assert api.calls == []


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_is_refused(api, name):
    with pytest.raises(RequestError, match="Received: an empty name"):
        create_strategy(tpu=name)
    assert api.calls == []


def test_a_tpu_of_the_environment_that_fails_is_not_replaced_by_the_cpu(api, monkeypatch):
    monkeypatch.setenv("TPU_NAME", "mine")
    api.failing = {"TPUClusterResolver": ValueError(NO_NAME)}
    with pytest.raises(RequestError, match="Received: --tpu=mine"):
        create_strategy(tpu="auto")


@pytest.mark.parametrize("tpu", ["local", "no-such-tpu", "grpc://127.0.0.1:1"])
def test_tensorflow_itself_without_a_tpu_is_an_error(tpu):
    with pytest.raises(RequestError, match=f"TPU must be reachable. Received: --tpu={tpu}"):
        create_strategy(tpu=tpu)
