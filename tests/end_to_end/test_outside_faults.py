"""If this breaks, a disk, a file or a host that fails costs a run what it had saved."""

import json
import pathlib
import signal

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

pytestmark = pytest.mark.slow
TOTAL = 31


def test_a_disk_that_is_full_or_read_only(tiny, small_disk, undisturbed, injected):
    tiny.stopped_by("disk/run", 2, "must be writable and have room")
    small_disk("size=100m,ro")
    tiny.stopped_by("disk/run", 2, "must be writable and have room")
    small_disk("size=100m,rw")
    tiny.go_on("disk/run", undisturbed)
    injected("disk full", 1, "stopped (2), equal weights once there is room")
    injected("folder read-only", 1, "stopped (2), equal weights once it can be written")


def replace(path, content):
    """At once, as a reader that opens the file meanwhile would else find it empty."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.rename(path)


def pack(photos, path):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for photo in sorted(photos.iterdir()):
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[photo.read_bytes()]))
            features = tf.train.Features(feature={"image": image})
            writer.write(tf.train.Example(features=features).SerializeToString())


def test_records_that_are_damaged_while_a_run_reads_them(tiny, injected, tmp_path):
    records = tiny.folder / "photos.tfrecord"
    pack(tiny.photos, records)
    whole = records.read_bytes()
    # 241 steps, more than are read ahead.
    long = (f"data.source = 'tfrecord:{records}'", "pretrain.epochs = 80.0")
    code, output = tiny.run("records", *long)
    assert code == 0, output
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 1
    last = whole.rindex(b"\x89PNG")
    start = next(
        i
        for i in range(last - 12, 0, -1)
        if len(whole) - i == 16 + int.from_bytes(whole[i : i + 8], "little")
    )
    harmed = tmp_path / "harmed"
    for harm, words, moment in (
        (bytes(flipped), "corrupted record", "step_00000008"),
        (whole[:start], "contain", "step_"),  # the next checkpoint of the run that goes on
    ):
        harmed.write_bytes(harm)
        fault = f"replace={records}={harmed}@makedirs:{moment}"
        tiny.stopped_by("records-harmed", 2, words, *long, fault=fault)
        replace(records, whole)
    tiny.go_on("records-harmed", tiny.weights("records", 241), *long)
    injected("a record damaged while it was read", 1, "stopped (2), equal weights once mended")
    injected("records that end early", 1, "stopped (2), equal weights once mended")


def encoded(image: Image.Image, kind: str, path: pathlib.Path, **options) -> bytes:
    image.save(path, kind, **options)
    content = path.read_bytes()
    path.unlink()
    return content


def test_bad_images_among_good_ones(tiny, injected, tmp_path):
    photos = tiny.folder / "mixed photos"
    photos.mkdir()
    rng = np.random.default_rng(1)
    for i in range(700):
        pixels = rng.integers(0, 256, (4, 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
        Image.fromarray(pixels).save(photos / f"{i:03d}.png")
    picture = Image.fromarray(pixels)
    scratch = tmp_path / "scratch"
    jpeg = encoded(picture, "JPEG", scratch)
    png = encoded(picture, "PNG", scratch)
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 255
    huge = bytearray(png)
    huge[16:24] = (50_000).to_bytes(4, "big") * 2
    bad = {
        "cut.jpg": jpeg[: len(jpeg) // 3],
        "cut.png": png[: len(png) // 2],
        "damaged.png": bytes(flipped),
        "empty.png": b"",
        "huge.png": bytes(huge),
        "text.jpg": b"<html>not found</html>",
    }
    deep = Image.fromarray(rng.integers(0, 65536, (16, 16), np.uint16))
    good = {
        "cmyk.jpg": encoded(picture.convert("CMYK"), "JPEG", scratch),
        "16-bit.png": encoded(deep, "PNG", scratch),
        "moving.gif": encoded(picture, "GIF", scratch, save_all=True, append_images=[picture] * 3),
        "misnamed.png": jpeg,
    }
    for name, content in (bad | good).items():
        (photos / name).write_bytes(content)
    code, output = tiny.run(
        "mixed",
        "pretrain.global_batch_size = 64",
        "pretrain.epochs = 1.2",
        "pretrain.checkpoint_every_steps = 100",
        data=photos,
    )
    assert code == 0, output
    found = {line.rpartition("/")[2] for line in output.splitlines() if "does not decode" in line}
    assert found == set(bad)
    last = (tiny.folder / "mixed" / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["skipped_images"] == len(bad)
    injected("images cut, damaged, empty, huge, or no images", len(bad), "named and passed over")
    injected("images CMYK, of 16 bits, moving, misnamed", len(good), "read")


def test_a_worker_is_killed(tiny, injected):
    """Either of two: the other ends by itself, and both go on together."""
    pair = tiny.start_pair("pair")
    outputs = [worker.communicate(timeout=900)[0] for worker in pair]
    assert [worker.returncode for worker in pair] == [0, 0], outputs
    for victim, batch in ((1, 16), (0, 28)):
        faults = [None, None]
        faults[victim] = f"kill@batch:{batch}"
        pair = tiny.start_pair("pair-killed", faults=faults)
        outputs = [worker.communicate(timeout=900)[0] for worker in pair]
        assert pair[victim].returncode == -signal.SIGKILL, outputs
        assert pair[1 - victim].returncode == 42, outputs
        assert "Another host of this run is gone" in outputs[1 - victim]
    pair = tiny.start_pair("pair-killed")
    outputs = [worker.communicate(timeout=900)[0] for worker in pair]
    assert [worker.returncode for worker in pair] == [0, 0], outputs
    tiny.check_weights("pair-killed", TOTAL, tiny.weights("pair", TOTAL))
    injected("one of two workers killed", 2, "the other ends (42), equal weights")
