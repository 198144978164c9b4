"""If this breaks, a model from other people runs code of theirs, or ends in a traceback."""

import json
import shutil
import struct

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simclr_tf.errors import RequestError
from simclr_tf.export import conversion, load_encoder, torchvision_format
from simclr_tf.export.encoder_json import build_encoder
from simclr_tf.export.loading import read_metadata, read_weights


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported.folder, tmp_path / "copy")


def quick(examples):
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


def layers_of(content):
    if isinstance(content, dict):
        yield from [content] if "class_name" in content else []
        content = list(content.values())
    if isinstance(content, list):
        for part in content:
            yield from layers_of(part)


HOSTILE = [
    {"module": "keras.layers", "class_name": "Lambda", "config": {"function": "print"}},
    {"module": "keras.layers", "class_name": "TorchModuleWrapper", "config": {"module": "gASV"}},
    {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/tmp/other"}},
    {
        "module": "builtins",
        "class_name": "function",
        "config": "eval",
        "registered_name": "function",
    },
    {"module": "os", "class_name": "system", "config": "true", "registered_name": "system"},
    {"module": "simclr_tf.run", "class_name": "main", "config": {}},
    {"class_name": "__lambda__", "config": {"value": "4wEA"}},
    {"module": ["keras.layers"], "class_name": "Dense", "config": {}},
    {"module": "keras.layers", "class_name": {"Dense": 1}, "config": {}},
    {"registered_name": "Lambda", "config": {}},
    {"class_name": "Lambda", "registered_name": "simclr_tf>Conv2D", "config": {"function": "id"}},
    {
        "module": "keras",
        "class_name": "function",
        "config": "utils.get_file",
        "registered_name": "simclr_tf>Conv2D",
    },
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda h: str(h.get("class_name")))
@pytest.mark.parametrize("place", ["itself", "layer", "initializer"])
def test_an_encoder_of_other_classes_is_refused(copy, hostile, place, monkeypatch):
    path = copy / "assets.extra/encoder.json"
    content = json.loads(path.read_text())
    if place == "itself":
        content = hostile
    elif place == "layer":
        content["config"]["layers"][1] = hostile
    else:
        next(x for x in layers_of(content) if x["class_name"] == "Ones")["config"] = {"x": hostile}
    path.write_text(json.dumps(content))
    monkeypatch.setattr(keras.models, "model_from_json", lambda text: pytest.fail("was built"))
    with pytest.raises(RequestError, match="architecture must be readable"):
        load_encoder(str(copy))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["class_name", "config", "module", "layers", "name", "step", "a"]),
            inner | st.sampled_from(["Functional", "keras.layers", "Dense", "simclr_tf>Conv2D"]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@quick(80)
@given(JSON.map(json.dumps) | st.text(max_size=30) | st.just("[" * 10**5))
def test_any_text_builds_an_encoder_or_is_a_value_error(text):
    with pytest.raises(ValueError):
        build_encoder(text)


def test_an_encoder_that_does_not_fit_its_weights_is_refused(copy):
    path = copy / "assets.extra/encoder.json"
    path.write_text(path.read_text().replace('"filters": 8', '"filters": 16'))
    with pytest.raises(RequestError):
        load_encoder(str(copy))


def test_an_encoder_without_weights_is_refused(copy):
    path = copy / "assets.extra/metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"networks": []}))
    with pytest.raises(RequestError):
        load_encoder(str(copy))


@quick(60)
@given(
    changes=st.dictionaries(st.sampled_from(["step", "image_size", "networks", "classes"]), JSON)
)
def test_metadata_of_other_types_are_refused(exported, tmp_path_factory, changes):
    copy = tmp_path_factory.getbasetemp() / "metadata"
    (copy / "assets.extra").mkdir(parents=True, exist_ok=True)
    (copy / "saved_model.pb").write_bytes(b"")
    written = read_metadata(exported.folder)
    (copy / "assets.extra/metadata.json").write_text(json.dumps(written | changes))
    try:
        found = read_metadata(str(copy))
    except RequestError:
        return
    assert isinstance(found["step"], int) and all(isinstance(n, str) for n in found["networks"])


@pytest.mark.parametrize("text", ["[]", "3", "[" * 10**5, '{"networks": [1]}', "\0", "{"])
def test_metadata_that_are_none_are_refused(copy, text):
    (copy / "assets.extra/metadata.json").write_text(text)
    for read in (read_metadata, read_weights, load_encoder):
        with pytest.raises(RequestError, match="one that simclr_tf exported"):
            read(str(copy))


def safetensors_file(header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(header)) + header + data


def tensor(shape, start=0, end=4, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


GARBAGE = [
    b"",
    b"\x80\x04\x95",  # as pickle begins
    struct.pack("<Q", 2**63) + b"{}",
    safetensors_file(b"[" * 10**5),
    safetensors_file({"conv1.weight": tensor([2**40])}),
    safetensors_file({"conv1.weight": tensor([1], 0, 4)}, bytes(4)),
    safetensors_file({"conv1.weight": tensor([1], 0, 2, "BF16")}, bytes(2)),
    safetensors_file({"conv1.weight": tensor([]), "layer4.0.conv1.weight": tensor([])}, bytes(4)),
    safetensors_file(
        {
            "conv1.weight": tensor([]),
            "layer1.0.conv3.weight": tensor([], 4, 8),
            "layer4.0.conv1.weight": tensor([], 8, 12),
        },
        bytes(12),
    ),
]


@pytest.mark.parametrize("content", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_converted_to_one_clear_error(content, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(RequestError):
        conversion.convert(str(tmp_path / "x.safetensors"), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, bytes(5000)])
@pytest.mark.parametrize("kind", ["checkpoint", "SavedModel"])
def test_garbage_in_place_of_a_checkpoint_is_refused(content, kind, tmp_path):
    source = tmp_path / "source"
    (source / "variables").mkdir(parents=True)
    if kind == "SavedModel":
        (source / "saved_model.pb").write_bytes(content)
    folder = source / "variables" if kind == "SavedModel" else source
    for name in ("variables.index", "variables.data-00000-of-00001"):
        (folder / name).write_bytes(content)
    with pytest.raises(RequestError):
        conversion.convert(str(source), str(tmp_path / "run"))


@quick(100)
@given(
    st.dictionaries(
        st.text(max_size=20) | st.from_regex(torchvision_format._THEIR_KEY, fullmatch=True),
        st.sampled_from([(), (3,), (2, 2), (1, 1, 1, 1), (0,)]).map(np.zeros),
        max_size=5,
    )
)
def test_any_state_dict_is_refused_or_placed(state):
    try:
        groups = torchvision_format.from_torchvision(state)
        conversion.infer({g: {p: v.shape for p, v in vs.items()} for g, vs in groups.items()})
    except RequestError:
        pass
