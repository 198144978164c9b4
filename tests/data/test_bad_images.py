"""If this breaks, one bad photo stops a run, or a person repairs bad photos one by one."""

import pytest
import tensorflow as tf
from absl import logging

from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.folder_source import open_folder
from simclr_tf.data.plain_images import plain_images
from simclr_tf.errors import RequestError
from tests.data.conftest import encode, picture
from tests.data.test_reasons import HEIC

BAD = {"heic.jpg": HEIC, "empty.jpg": b"", "page.jpg": b"<html>"}


def folder(tmp_path, bad):
    for i in range(8):
        (tmp_path / f"{i}.jpg").write_bytes(encode(picture(i), "JPEG"))
    for name in bad:
        (tmp_path / name).write_bytes(BAD[name])
    return open_folder(str(tmp_path), "train")


def test_one_is_allowed_and_told_with_its_reason(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    source = folder(tmp_path, ["heic.jpg"])
    bad = BadImages(source)
    assert sum(len(index) for _, _, index in plain_images(source, 16, 4, bad)) == 8
    bad.check()
    assert any("a HEIC file named .jpg" in line for line in said)


def test_all_are_named_with_their_reasons_though_not_all_were_met(tmp_path):
    source = folder(tmp_path, BAD)
    bad = BadImages(source)
    met = [source.paths.index(str(tmp_path / name)) for name in ("heic.jpg", "empty.jpg")]
    for index in met:
        bad._judge(index, tf.io.read_file(source.paths[index]), None)
    with pytest.raises(RequestError) as error:
        bad.check()
    for text in ("3 of 11", "heic.jpg: a HEIC", "empty.jpg: an empty", "page.jpg: an HTML page"):
        assert text in str(error.value)
