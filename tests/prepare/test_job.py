"""If this breaks, a prepared set lacks images, differs after a kill, or the folder is changed."""

import collections
import csv
import errno
import hashlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simclr_tf.augment.policy import augmentation
from simclr_tf.data import dataset
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.tfrecord_source import open_tfrecord
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.errors import RequestError
from simclr_tf.prepare import job, parts, shards, summary
from tests.support.scenes import file_of, scene, write
from tests.support.views import pairs

TOOL = pathlib.Path(__file__).resolve().parents[2] / "tools/prepare_dataset.py"


@pytest.fixture
def photos(tmp_path):
    """Two classes of ten, copies, broken files, notes, hidden files, and a name in Latin-1."""
    root = tmp_path / "photos"
    for n in range(10):
        write(root / "cat" / f"{n}.jpg", file_of(scene(n, (64, 48)), "JPEG", quality=95))
        write(root / "dog" / "deep" / f"{n}.png", file_of(scene(100 + n)))
    write(root / "cat" / "again.jpg", (root / "cat" / "0.jpg").read_bytes())
    write(root / "dog" / "small.png", file_of(scene(1, (64, 48)).resize((32, 24))))
    write(root / "dog" / "broken.jpg", file_of(scene(50), "JPEG")[:300])
    write(root / "dog" / "page.jpg", b"<html>")
    write(root / "cat" / "notes.txt", b"a cat")
    write(root / "cat" / ".hidden.jpg", b"")
    write(root / "@eaDir" / "thumbnail.jpg", file_of(scene(60), "JPEG"))
    write(root / "dog" / os.fsdecode(b"caf\xe9.tif"), file_of(scene(200), "TIFF"))
    return root


def request_of(photos, name="set", **settings):
    return job.Request(root=str(photos), data_dir=str(photos.parent / name), **settings)


def table(request, name="manifest"):
    with open(os.path.join(request.data_dir, f"{name}.csv"), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def state_of(folder):
    """Every file below a folder: its content, and when it was changed."""
    return {
        path: (os.stat(path).st_mtime_ns, pathlib.Path(path).read_bytes())
        for base, _, names in os.walk(os.fsencode(str(folder)))
        for path in (os.fsdecode(os.path.join(base, name)) for name in names)
    }


def contents(folder):
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in pathlib.Path(folder).iterdir()
    }


def test_every_file_stands_in_the_manifest_once_and_none_is_changed(photos):
    before = state_of(photos)
    request = request_of(photos)
    described = job.prepare(request)
    assert state_of(photos) == before
    rows = table(request)
    paths = [os.path.relpath(path, photos) for path in before]
    assert sorted(row["path"] for row in rows) == sorted(
        path.replace("\udce9", r"\xe9") for path in paths
    )
    outcomes = collections.Counter(row["outcome"] for row in rows)
    assert outcomes == {"kept": 21, "copy": 2, "unreadable": 2, "left out": 3}
    assert described["outcomes"] == outcomes
    by_path = {row["path"]: row for row in rows}
    assert by_path["cat/again.jpg"]["reason"] == "exact copy of cat/0.jpg"
    assert by_path["dog/small.png"]["reason"] == "near copy of cat/1.jpg"
    assert by_path["dog/page.jpg"]["reason"] == "an HTML page named .jpg"
    assert by_path["cat/notes.txt"]["reason"] == "no image (.txt)"
    assert by_path["@eaDir/thumbnail.jpg"]["reason"] == "of a system or program"
    assert (by_path["cat/1.jpg"]["width"], by_path["cat/1.jpg"]["height"]) == ("64", "48")
    copies = {
        row["path"]: (row["kept"], row["kind"], row["class"])
        for row in table(request, "duplicates")
    }
    assert copies["dog/small.png"] == ("cat/1.jpg", "near", "dog")
    assert {row["path"] for row in table(request, "unreadable")} == {
        "dog/broken.jpg",
        "dog/page.jpg",
    }


def test_the_manifest_leads_to_the_record_of_every_picture(photos):
    request = request_of(photos)
    described = job.prepare(request)
    assert described["classes"] == ["cat", "dog"]
    kept = [row for row in table(request) if row["outcome"] == "kept"]
    for row in kept:
        shard = os.path.join(request.data_dir, row["shard"])
        record = list(tf.data.TFRecordDataset(shard).as_numpy_iterator())[int(row["record"])]
        feature = tf.train.Example.FromString(record).features.feature
        name = feature["image/filename"].bytes_list.value[0]
        assert os.fsdecode(name).replace("\udce9", r"\xe9") == row["path"]
        assert feature["image/class/label"].int64_list.value[0] == ["cat", "dog"].index(
            row["class"]
        )
        pixels = tf.io.decode_image(feature["image/encoded"].bytes_list.value[0], channels=3)
        original = Image.open(os.path.join(os.fsencode(str(photos)), name)).convert("RGB")
        assert pixels.shape == np.asarray(original).shape
        assert np.abs(pixels.numpy().astype(int) - np.asarray(original)).mean() < 2
    counts = collections.Counter((row["split"], row["class"]) for row in kept)
    assert counts == {
        ("train", "cat"): 9,
        ("train", "dog"): 10,
        ("test", "cat"): 1,
        ("test", "dog"): 1,
    }


def test_the_set_is_trained_on_and_its_classes_have_names(photos):
    request = request_of(photos, test_percent=30)
    job.prepare(request)
    data = dataset.data(
        source=f"tfrecord:{request.data_dir}/{{split}}-*.tfrecord", image_size=16, data_dir=None
    )
    source = data.train()
    assert source.class_names == ["cat", "dog"] == data.evaluation().class_names
    pipeline = ViewsPipeline(
        source=source,
        groups=pairs(augmentation(policy=(("flip", 0.5),)), 16),
        seed=0,
        bad_images=BadImages(source),
    )
    batch = next(iter(pipeline.dataset(HostSlice(0, 1, 1, source.num_examples))))
    (views,) = (v for k, v in batch.items() if k.startswith("images"))
    assert len(views) == 2 * source.num_examples == 30 and np.std(views) > 0.05


def test_names_beside_records_must_cover_the_labels(photos):
    request = request_of(photos)
    job.prepare(request)
    description = pathlib.Path(request.data_dir, "dataset.json")
    for text in ('{"classes": ["cat"]}', '{"classes": [1, 2]}', "[]", "{"):
        description.write_text(text)
        with pytest.raises(RequestError, match="beside"):
            open_tfrecord(f"{request.data_dir}/train-*.tfrecord")


def test_splits_of_the_folder_are_kept_and_copies_never_cross_them(tmp_path):
    root = tmp_path / "photos"
    for n in range(6):
        write(root / "Train" / "ab"[n % 2] / f"{n}.png", file_of(scene(n)))
    for n in range(4, 10):
        write(root / "val" / "ab"[n % 2] / f"{n}.png", file_of(scene(n)))
    write(root / "beside" / "0.png", file_of(scene(20)))
    request = request_of(root)
    described = job.prepare(request)
    splits = {row["path"]: row["split"] for row in table(request)}
    assert [splits[f"val/{'ab'[n % 2]}/{n}.png"] for n in range(4, 10)] == ["val"] * 6
    assert splits["Train/a/4.png"] == splits["Train/b/5.png"] == splits["beside/0.png"] == ""
    assert described["splits"]["train"]["of_class"] == [2, 2]
    assert described["notes"] == ["read only in Train, val, not beside beside"]
    assert "data.eval_split = 'val'" in summary.of(described, request.data_dir)


def test_without_classes_there_are_no_labels(tmp_path):
    for n in range(5):
        write(tmp_path / "photos" / f"{n}.png", file_of(scene(n)))
    request = request_of(tmp_path / "photos", test_percent=0)
    assert list(job.prepare(request)["splits"]) == ["train"]
    assert open_tfrecord(f"{request.data_dir}/train-*.tfrecord").class_names is None


def test_a_set_does_not_depend_on_interruptions_or_processes(photos, monkeypatch):
    monkeypatch.setattr(job, "FILES_IN_A_PART", 4)
    whole = request_of(photos, "whole")
    job.prepare(whole)
    stopped = request_of(photos, "stopped")
    for module, name, calls in ((parts, "read", 3), (shards, "write", 1)):
        ended = getattr(module, name)
        left = iter(range(calls))

        def ends(*arguments, ended=ended, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return ended(*arguments)

        monkeypatch.setattr(module, name, ends)
        with pytest.raises(KeyboardInterrupt):
            job.prepare(stopped)
        monkeypatch.setattr(module, name, ended)
    write(pathlib.Path(stopped.data_dir, "work", "part-000009.data.partial-1"), b"of a kill")
    read = []
    monkeypatch.setattr(parts.Part, "read", lambda part: read.append(part.number))
    job.prepare(stopped)
    assert not read and contents(stopped.data_dir) == contents(whole.data_dir)
    assert job.prepare(whole) == job.prepare(stopped)  # nothing is done again


def test_files_that_changed_before_the_set_was_finished_are_read_again(photos, monkeypatch):
    request = request_of(photos)
    monkeypatch.setattr(shards, "write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        job.prepare(request)
    monkeypatch.undo()
    write(photos / "cat" / "0.jpg", file_of(scene(300, (80, 60)), "JPEG"))
    assert job.prepare(request)["outcomes"]["copy"] == 1
    write(photos / "cat" / "0.jpg", file_of(scene(301, (80, 60)), "JPEG"))
    with pytest.raises(RequestError, match="whose files are others"):
        job.prepare(request)


def test_other_content_and_other_requests_are_refused(photos):
    write(photos.parent / "other" / "thesis.txt", b"mine")
    with pytest.raises(RequestError, match=r"must be empty.*thesis\.txt"):
        job.prepare(request_of(photos, "other"))
    job.prepare(request_of(photos))
    with pytest.raises(RequestError, match="size = 512, not 64"):
        job.prepare(request_of(photos, size=64))
    for name in ("photos", "photos/cat/set", "."):
        with pytest.raises(RequestError, match="must lie beside the images"):
            job.prepare(request_of(photos, name))
    for settings in ({"size": 1}, {"test_percent": 100}, {"bit_depth": 17}):
        with pytest.raises(RequestError, match="must be"):
            job.prepare(request_of(photos, "new", **settings))
    with pytest.raises(RequestError, match="must exist"):
        job.prepare(request_of(photos / "none", "../new"))
    write(photos.parent / "texts" / "a.txt", b"a")
    with pytest.raises(RequestError, match=r"1 no image \(\.txt\)"):
        job.prepare(request_of(photos.parent / "texts", "new"))
    assert not (photos.parent / "new").exists()


def test_a_full_disk_is_told_and_the_same_command_resumes(photos, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    request = request_of(photos)
    monkeypatch.setattr(parts.Part, "read", full)
    with pytest.raises(RequestError, match=r"No space left on device.*resumes"):
        job.prepare(request)
    monkeypatch.undo()
    full_for_tensorflow = tf.errors.ResourceExhaustedError(None, None, "No space left on device")
    monkeypatch.setattr(shards, "_example", lambda *_: (_ for _ in ()).throw(full_for_tensorflow))
    with pytest.raises(RequestError, match=r"No space left on device.*resumes"):
        job.prepare(request)
    monkeypatch.undo()
    assert job.prepare(request)["outcomes"]["kept"] == 21


def test_links_that_lead_outside_are_followed_on_request(photos):
    root = photos.parent / "links"
    root.mkdir()
    (root / "all").symlink_to(photos / "cat", target_is_directory=True)
    (root / "all again").symlink_to(root, target_is_directory=True)
    (root / "one.png").symlink_to(photos / "dog" / "deep" / "3.png")
    (root / "gone.png").symlink_to(photos / "gone.png")
    with pytest.raises(RequestError, match="2 link that leads out of the folder"):
        job.prepare(request_of(root))
    described = job.prepare(request_of(root, follow_links=True))
    assert described["outcomes"]["kept"] == 11
    assert described["left_out"]["link to a folder that holds it"] == 1


@pytest.mark.slow
def test_a_killed_tool_leaves_no_process_and_resumes_to_the_same_bytes(tmp_path):
    photos = tmp_path / "photos"
    for n in range(140):
        write(photos / f"{n}.jpg", file_of(scene(n, (1100, 800)), "JPEG"))

    def start(name):
        command = [sys.executable, str(TOOL), f"folder:{photos}", f"--data_dir={tmp_path / name}"]
        return subprocess.Popen(
            [*command, "--processes=2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    killed = start("killed")
    work = tmp_path / "killed" / "work"
    while not list(work.glob("part-*.json")):
        assert killed.poll() is None, killed.stdout.read()
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)  # ends once all that hold its output have ended
    finished = len(list(work.glob("part-*.json")))
    assert 0 < finished < 3
    for name in ("killed", "whole"):
        done = start(name)
        output, _ = done.communicate(timeout=600)
        assert done.returncode == 0, output
        assert "140 kept" in output
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert json.loads((tmp_path / "whole" / "dataset.json").read_text())["classes"] == []


def test_processes_that_read_pictures_start_without_tensorflow():
    """Each would take seconds to import it, and a gigabyte."""
    code = "import sys, simclr_tf.prepare.parts; print({'tensorflow', 'keras'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
