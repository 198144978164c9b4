"""If this breaks, a TPU gets the runtime that it cannot run, or the process ends without a word."""

import os
import types

import pytest

from simclr_tf.distribute import environment, tpu_runtime
from simclr_tf.errors import RequestError

LIBRARY, C_API = tpu_runtime.LIBRARY, tpu_runtime.C_API
ACCEL, VFIO = ("dev/accel0",), ("dev/vfio/0",)


@pytest.fixture(autouse=True)
def variables(monkeypatch):
    """No variable of a TPU is set, and what is set is forgotten."""
    names = (LIBRARY, C_API, "TPU_LOAD_LIBRARY", "TPU_NAME", "TPU_ACCELERATOR_TYPE")
    for name in (*names, "ACCELERATOR_TYPE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def libtpu(monkeypatch, tmp_path):
    """tensorflow-tpu and libtpu are installed; returns the path of libtpu.so."""
    path = tmp_path / "libtpu" / "libtpu.so"
    path.parent.mkdir()
    path.touch()
    spec = types.SimpleNamespace(origin=str(path.with_name("__init__.py")))
    monkeypatch.setattr(tpu_runtime.importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(environment, "installed", lambda name: "1")
    return str(path)


@pytest.fixture
def host(monkeypatch, make_host):
    """Makes the host, also for those who do not name a root."""

    def make(*cards, files=()):
        root = make_host(*cards, files=files)
        real = environment.has_tpu_devices
        monkeypatch.setattr(environment, "has_tpu_devices", lambda there=root: real(there))
        return root

    return make


def chosen():
    return os.environ.get(LIBRARY), os.environ.get(C_API)


@pytest.mark.parametrize(
    ("card", "files", "plugin", "words"),
    [
        ("v3", ACCEL, False, "StreamExecutor, for TPU v2 or v3"),
        ("v4", ACCEL, False, "StreamExecutor, for TPU v4"),
        ("v5e", VFIO, True, "PJRT plug-in, for TPU v5e"),
        ("v5e", ACCEL, True, "PJRT plug-in, for TPU v5e"),
        ("v5p", VFIO, True, "PJRT plug-in, for TPU v5p"),
        ("v6e", VFIO, True, "PJRT plug-in, for TPU v6e"),
        ("later", VFIO, False, "StreamExecutor, for a TPU of unknown generation; v5e and later"),
    ],
)
@pytest.mark.parametrize("tpu", ["auto", "local"])
def test_auto_goes_by_the_generation(host, libtpu, card, files, plugin, words, tpu):
    said = tpu_runtime.choose("auto", tpu, host(card, files=files))
    assert said.startswith(words)
    assert chosen() == ((libtpu, "true") if plugin else (None, None))


@pytest.mark.parametrize(
    ("tpu", "card", "words"),
    [
        ("none", "v6e", None),
        ("auto", None, None),
        ("grpc://10.0.0.2:8470", "v6e", "that of the workers' servers"),
    ],
)
def test_what_is_not_this_process_to_drive_is_left_alone(host, libtpu, tpu, card, words):
    root = host(card, files=VFIO) if card else host()
    assert tpu_runtime.choose("auto", tpu, root) == words
    assert chosen() == (None, None)


def test_flags_are_stronger_than_the_generation(host, libtpu):
    root = host("v6e", files=VFIO)
    said = tpu_runtime.choose("stream_executor", "auto", root)
    assert said == "StreamExecutor, by --tpu_runtime" and chosen() == (None, None)
    said = tpu_runtime.choose("pjrt", "auto", root)
    assert said == "PJRT plug-in, by --tpu_runtime" and chosen() == (libtpu, "true")


def test_the_persons_own_variables_win_and_are_told(host, libtpu, monkeypatch, tmp_path):
    other = tmp_path / "libtpu_nightly.so"
    other.touch()
    monkeypatch.setenv(LIBRARY, str(other))
    monkeypatch.setenv(C_API, "false")
    said = tpu_runtime.choose("auto", "auto", host("v4", files=ACCEL))
    assert said == f"PJRT plug-in, by {LIBRARY}={other}" and chosen() == (str(other), "false")


def test_a_plugin_for_another_device_is_none_of_ours(host, libtpu, monkeypatch):
    monkeypatch.setenv(LIBRARY, "/opt/intel/libitex.so")
    monkeypatch.setenv("TPU_LOAD_LIBRARY", "0")
    assert tpu_runtime.choose("auto", "auto", host()) is None


@pytest.mark.parametrize("missing", ["TPU_LOAD_LIBRARY", "tensorflow-tpu", "libtpu"])
def test_auto_does_not_load_what_would_end_the_process(host, libtpu, monkeypatch, missing):
    if missing == "TPU_LOAD_LIBRARY":
        monkeypatch.setenv(missing, "0")
    elif missing == "libtpu":
        os.remove(libtpu)
    else:
        monkeypatch.setattr(environment, "installed", lambda name: None)
    tpu_runtime.choose("auto", "auto", host("v6e", files=VFIO))
    assert chosen() == (None, None)


@pytest.mark.parametrize(
    ("asked", "tpu", "variables", "words"),
    [
        ("pjrt", "auto", {"TPU_LOAD_LIBRARY": "0"}, "--tpu_runtime=pjrt. Unset one of them"),
        ("auto", "auto", {"TPU_LOAD_LIBRARY": "0", LIBRARY: None}, f"{LIBRARY}=.*Unset one of"),
        ("auto", "none", {"TPU_LOAD_LIBRARY": "0", LIBRARY: None}, f"{LIBRARY}=.*Unset one of"),
        ("auto", "auto", {LIBRARY: "/no/libtpu.so"}, "Received: /no/libtpu.so, which is no file"),
        ("stream_executor", "auto", {LIBRARY: None}, f"Unset {LIBRARY} and {C_API}"),
        ("pjrt", "none", {}, "Received: --tpu=none. Leave --tpu_runtime out"),
        ("pjrt", "grpc://10.0.0.2:8470", {}, "this host's own TPU.*docs/tpu.md"),
    ],
)
def test_what_would_end_the_process_is_refused(
    host, libtpu, monkeypatch, asked, tpu, variables, words
):
    for name, value in variables.items():
        monkeypatch.setenv(name, libtpu if value is None else value)
    before = chosen()
    with pytest.raises(RequestError, match=words):
        tpu_runtime.choose(asked, tpu, host("v6e", files=VFIO))
    assert chosen() == before


@pytest.mark.parametrize("missing", ["tensorflow-tpu", "libtpu"])
def test_a_plugin_without_its_wheels_is_refused(host, libtpu, monkeypatch, missing):
    if missing == "libtpu":
        os.remove(libtpu)
    else:
        monkeypatch.setattr(environment, "installed", lambda name: None)
    with pytest.raises(RequestError, match=f"without {missing}. To mend it, in a fresh virtual"):
        tpu_runtime.choose("pjrt", "auto", host("v6e", files=VFIO))


def test_a_plugin_without_a_tpu_is_refused(host, libtpu):
    with pytest.raises(RequestError, match="on a machine without one"):
        tpu_runtime.choose("pjrt", "local", host())
