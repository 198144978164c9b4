"""If this breaks, a broken installation looks sound, or a sound one broken, before a costly run."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "tools/doctor.py"


@pytest.fixture
def doctor(monkeypatch):
    spec = importlib.util.spec_from_file_location("doctor", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "doctor", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.environment, "has_tpu_devices", lambda: False)
    return module


@pytest.fixture
def site(monkeypatch, tmp_path):
    """Installs distributions in an environment that is empty but for them."""
    monkeypatch.setattr(
        sys, "path", [str(tmp_path), *(p for p in sys.path if "site-packages" not in p)]
    )

    def install(**distributions):
        for name, version in distributions.items():
            info = tmp_path / f"{name}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            )
            stock = name in ("tensorflow", "tensorflow_cpu", "tensorflow_tpu", "tf_nightly")
            module = "tensorflow" if stock else name
            (info / "RECORD").write_text(
                f"{name}-{version}.dist-info/METADATA,,\n{module}/__init__.py,sha256=x,1\n"
            )

    return install


def run(*arguments, **env):
    return subprocess.run(
        [sys.executable, *(arguments or [PROGRAM])],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | env,
        timeout=900,
    )


def errors(findings):
    return [str(f) for f in findings if f.level == "ERROR"]


@pytest.mark.parametrize(
    "wheels",
    [
        {"tensorflow": "2.21.0", "tensorflow_datasets": "4.9.10", "tensorflow_metadata": "1.17.0"},
        {"tensorflow": "2.19.0"},
        {"tensorflow_cpu": "2.20.0"},
        {"tensorflow_tpu": "2.20.0", "tensorflow_io_gcs_filesystem": "0.37.1"},
        {"tf_nightly": "2.21.0.dev20260101"},
    ],
)
def test_one_supported_tensorflow_is_sound(doctor, site, wheels):
    site(**wheels)
    [finding] = doctor.tensorflow_wheel()
    assert finding.level == "ok" and next(iter(wheels.values())) in finding.text


@pytest.mark.parametrize(
    ("wheels", "extra"),
    [
        ({"tensorflow": "2.21.0", "tensorflow_cpu": "2.20.0"}, "cpu"),
        ({"tensorflow": "2.20.0", "tensorflow_tpu": "2.20.0", "tf_keras": "2.20.1"}, "tpu"),
        ({"tensorflow": "2.18.1"}, "cpu"),
        ({"tensorflow": "2.22.0rc0"}, "cpu"),
        ({"tensorflow_tpu": "2.19.1"}, "tpu"),
        ({"numpy": "2.0.0"}, "cpu"),
    ],
)
def test_two_tensorflows_none_or_an_unsupported_one_are_errors(
    doctor, site, monkeypatch, wheels, extra
):
    monkeypatch.setattr(doctor.environment, "nvidia_card", lambda: None)
    site(**wheels)
    [error] = errors(doctor.tensorflow_wheel())
    assert error.endswith(f'in a fresh virtual environment: pip install -e ".[{extra}]"')
    for name, version in wheels.items():
        if name.startswith("tensorflow"):
            assert f"{name.replace('_', '-')} {version}" in error


@pytest.mark.parametrize(
    ("wheels", "received"),
    [
        ({"tensorflow_tpu": "2.20.0", "libtpu": "0.0.52"}, "libtpu 0.0.52"),
        ({"tensorflow_tpu": "2.20.0", "libtpu": "0.0.32.1"}, "libtpu 0.0.32.1"),
        ({"tensorflow_tpu": "2.20.0", "libtpu": "0.0.9"}, "libtpu 0.0.9"),
        ({"tensorflow_tpu": "2.20.0"}, "none"),
        ({"tensorflow_tpu": "2.20.0", "libtpu": "0.0.30"}, None),
        ({"tensorflow_tpu": "2.20.0", "libtpu": "0.0.14"}, None),
        ({"tensorflow": "2.21.0", "libtpu": "0.0.52", "jax": "0.10.0"}, None),
    ],
)
def test_libtpu_must_fit_tensorflow_tpu(doctor, site, wheels, received):
    site(**wheels)
    found = errors(doctor.tpu_wheel())
    if received is None:
        assert found == []
    else:
        assert f"Received: {received}." in found[0] and 'pip install -e ".[tpu]"' in found[0]


def test_a_tpu_host_with_plain_tensorflow_is_warned_of(doctor, site, monkeypatch):
    monkeypatch.setattr(doctor.environment, "has_tpu_devices", lambda: True)
    site(tensorflow="2.21.0")
    [finding] = doctor.tpu_wheel()
    assert finding.level == "warn" and 'pip install -e ".[tpu]"' in finding.mend


def test_a_missing_package_is_an_error(doctor, site):
    site(keras="3.15.1", numpy="2.4.6", gin_config="0.5.0")
    [error] = errors(doctor.packages())
    assert "tensorflow-datasets must be installed" in error and "pip install -e" in error


def test_supported_versions_are_those_of_setup_py(doctor):
    text = (ROOT / "setup.py").read_text()
    supported = doctor.environment.SUPPORTED
    written_as = {"tensorflow": "tensorflow", "tensorflow-tpu": "[gcs-filesystem]", "jax": "jax"}
    for wheel, written in written_as.items():
        low, below = supported[wheel]
        assert f"{written}>={low},<{below}" in text
    assert f'"libtpu<{supported["libtpu"][1]}"' in text


def test_variables_of_a_tpu_are_shown(doctor, monkeypatch):
    for name in [n for n in os.environ if n.startswith(("TPU_", "CLOUD_TPU_", "LIBTPU_"))]:
        monkeypatch.delenv(name)
    assert [f.text for f in doctor.variables()] == ["no TPU variable is set"]
    monkeypatch.setenv("TPU_NAME", "grpc://10.0.0.2:8470")
    monkeypatch.setenv("TPU_PROCESS_ADDRESSES", "local")
    monkeypatch.setenv("TPU_LIBRARY_PATH", "/lib/libtpu.so")
    library, named, layout = doctor.variables()
    assert (named.level, named.text) == ("ok", "TPU_NAME=grpc://10.0.0.2:8470")
    assert (layout.level, layout.mend) == ("warn", "unset TPU_PROCESS_ADDRESSES")
    assert (library.level, library.mend) == ("warn", "unset TPU_LIBRARY_PATH")


def test_a_named_tpu_needs_the_client_of_the_cloud_api(doctor, monkeypatch, site):
    monkeypatch.setenv("TPU_NAME", "mine")
    [error] = errors(doctor.variables())
    assert "pip install google-api-python-client oauth2client" in error


def test_a_tensorflow_that_ends_its_process_is_a_finding(doctor, monkeypatch, tmp_path):
    (tmp_path / "tensorflow.py").write_text(
        "import os, sys\n"
        "sys.stderr.write('F tpu_library_init_fns.inc:12] not in this library.')\n"
        "sys.stderr.flush()\n"
        "os.abort()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = doctor.start_probe()
    assert finding.level == "ERROR" and "pip install -e" in finding.mend
    assert "ended by SIGABRT" in finding.text and "not in this library." in finding.text


REST = {"bf16": [], "precision": "x", "unseen_gpu": ""}
SOUND = dict(tensorflow="2.20.0", keras="3.15.1", devices={"CPU": 1}, schemes=["gs"]) | REST


def test_a_card_that_tensorflow_does_not_see_is_an_error(doctor, monkeypatch):
    monkeypatch.setattr(doctor, "start_probe", lambda: SOUND | {"unseen_gpu": "Cause: a driver."})
    assert errors(doctor.tensorflow_started()) == ["ERROR  Cause: a driver."]


def test_the_runtime_of_a_tpu_is_told_and_its_faults(doctor, monkeypatch):
    from simclr_tf.distribute import tpu_runtime

    monkeypatch.setattr(tpu_runtime, "choose", lambda *asked: "PJRT plug-in, for TPU v6e")
    [finding] = doctor.tpu_runtime()
    assert (finding.level, finding.text) == ("ok", "TPU runtime: PJRT plug-in, for TPU v6e")
    monkeypatch.undo()
    monkeypatch.setenv("TF_PLUGGABLE_DEVICE_LIBRARY_PATH", "/no/libtpu.so")
    [error] = errors(doctor.tpu_runtime())
    assert "/no/libtpu.so" in error


@pytest.mark.parametrize(
    ("devices", "kinds"), [({"CPU": 1}, ["CPU"]), ({"TPU": 8, "CPU": 1}, ["CPU", "TPU"])]
)
def test_steps_are_taken_on_each_kind_of_device(doctor, monkeypatch, devices, kinds):
    asked = []
    monkeypatch.setattr(doctor, "start_probe", lambda: SOUND | {"devices": devices})
    monkeypatch.setattr(doctor, "step_taken", lambda kind: asked.append(kind) or ())
    list(doctor.tensorflow_started(step=False))
    assert asked == []
    list(doctor.tensorflow_started(step=True))
    assert asked == kinds


@pytest.mark.parametrize(
    ("kind", "tpu", "cuda", "libtpu"),
    [("CPU", "none", "", "0"), ("GPU", "none", "3", "0"), ("TPU", "local", "", None)],
)
def test_steps_see_the_devices_of_their_kind_alone(
    doctor, monkeypatch, tmp_path, kind, tpu, cuda, libtpu
):
    monkeypatch.setattr(doctor.environment, "has_tpu_devices", lambda: True)
    monkeypatch.setenv("TF_PLUGGABLE_DEVICE_LIBRARY_PATH", "/lib/libtpu.so")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    seen = {}

    def elsewhere(arguments, seconds, what, env):
        seen.update(env, arguments=arguments)
        return {"host": ["ok", "5 steps/s"], "device": ["ERROR", "a kernel is missing"]}

    monkeypatch.setattr(doctor, "_elsewhere", elsewhere)
    host, device = doctor.step_taken(kind)
    assert (host.level, host.text) == ("ok", f"{kind}, augmented on the host: 5 steps/s")
    assert device.level == "ERROR" and device.text.endswith("device: a kernel is missing")
    assert seen["arguments"][-1] == tpu and seen["CUDA_VISIBLE_DEVICES"] == cuda
    assert seen.get("TPU_LOAD_LIBRARY") == libtpu
    assert ("TF_PLUGGABLE_DEVICE_LIBRARY_PATH" in seen) == (kind == "TPU")


def test_a_step_that_ends_its_process_is_a_finding(doctor, monkeypatch, tmp_path):
    (tmp_path / "tensorflow.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    [finding] = doctor.step_taken("CPU")
    assert finding.level == "ERROR"
    assert "step must run on the CPU. Received: ended by SIGABRT" in finding.text


def test_a_tensorflow_without_gs_is_warned_of(doctor, monkeypatch):
    result = dict(tensorflow="2.20.0", keras="3.15.1", devices={"CPU": 1}, schemes=["", "file"])
    monkeypatch.setattr(doctor, "start_probe", lambda: result | REST)
    [warning] = [f for f in doctor.tensorflow_started() if f.level != "ok"]
    assert "gs://" in warning.text and warning.mend.startswith("pip install ")


@pytest.mark.parametrize(
    "env", [{"TF_USE_LEGACY_KERAS": "1"}, {"KERAS_BACKEND": "jax"}], ids=lambda env: next(iter(env))
)
def test_another_keras_is_an_error(env):
    done = run(**env)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("ERROR")]
    assert done.returncode == 1 and next(iter(env)) in line
    assert "TensorFlow was not started" in done.stdout


@pytest.mark.slow
def test_this_environment_is_sound_and_tensorflow_stays_outside_the_program():
    done = run(
        "-c",
        f"import runpy, sys\nsys.argv = ['doctor']\n"
        f"try:\n    runpy.run_path({str(PROGRAM)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n    print('tensorflow' in sys.modules, end.code)\n",
    )
    assert done.stdout.splitlines()[-1] == "False 0", done.stdout + done.stderr
    assert "devices: " in done.stdout and "precision 'auto' means " in done.stdout
