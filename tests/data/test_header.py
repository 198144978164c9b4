"""If this breaks, one image file of a few kilobytes takes all memory, or ends a run."""

import io
import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from simclr_tf.augment.policy import augmentation
from simclr_tf.data import cache, decode, header
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.folder_source import open_folder
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.plain_images import plain_images
from simclr_tf.distribute.strategy import HostSlice
from tests.support.views import pairs

BYTES = [tf.TensorSpec([], tf.string)]


@pytest.fixture(scope="module")
def shape_of():
    return tf.function(header.image_shape, input_signature=BYTES, autograph=False)


@pytest.fixture(scope="module")
def decoded():
    return tf.function(decode.decode_any, input_signature=BYTES, autograph=False)


def picture(mode="RGB", size=(30, 40)):
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    levels = np.stack([5 * x, 4 * y, 3 * (x + y)], axis=-1) % 256
    return Image.fromarray(levels.astype(np.uint8)).convert(mode)


def encode(image, form, **settings):
    buffer = io.BytesIO()
    image.save(buffer, form, **settings)
    return buffer.getvalue()


def png(width, height):
    """A valid PNG of black, of one bit a pixel."""
    packer = zlib.compressobj(1)
    row = bytes(1 + (width + 7) // 8)
    rows = [packer.compress(row * 100) for _ in range(height // 100)]
    rows += [packer.compress(row * (height % 100)), packer.flush()]

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    size = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", size), chunk(b"IDAT", b"".join(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def gif(*frames, screen=(30, 40)):
    """Frames (width, height), each with the pixels of one of 30 x 40."""
    content = bytearray(encode(picture("P"), "GIF"))
    start = content.index(b"\x2c\0\0\0\0")
    frame = content[start:-1]
    struct.pack_into("<HH", content, 6, *screen)
    del content[start:]
    for size in frames:
        struct.pack_into("<HH", frame, 5, *size)
        content += frame
    return bytes(content) + b"\x3b"


def jpeg(width, height):
    """A JPEG that says this of itself, and has the pixels of a small one."""
    content = bytearray(encode(picture(), "JPEG"))
    struct.pack_into(">HH", content, content.index(b"\xff\xc0") + 5, height, width)
    return bytes(content)


def many_scans(number):
    content = encode(picture(), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * number + content[-2:]


KINDS = [
    *[(mode, "PNG") for mode in ("RGB", "L", "1", "P", "LA", "RGBA")],
    *[(mode, "JPEG") for mode in ("RGB", "L", "CMYK")],
    *[(mode, "GIF") for mode in ("RGB", "L", "P", "1")],
    *[(mode, "BMP") for mode in ("RGB", "L", "P", "RGBA")],
]


@pytest.mark.parametrize(("mode", "form"), KINDS)
def test_what_the_readme_promises_decodes_as_pillow_has_it(mode, form, shape_of, decoded):
    encoded = encode(picture(mode), form)
    expected = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), int)
    assert shape_of(encoded).numpy().tolist() == [40, 30]
    assert np.abs(decoded(encoded).numpy() - expected).max() <= (3 if form == "JPEG" else 0)


def test_sixteen_bits_become_eight(decoded):
    levels = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    image = decoded(encode(Image.fromarray(levels), "PNG")).numpy()
    assert np.abs(image[..., 0] - levels / 257.0).max() <= 1


def test_a_picture_from_its_top_down_has_a_height(shape_of):
    content = bytearray(encode(picture(), "BMP"))
    struct.pack_into("<i", content, 22, -40)
    assert shape_of(bytes(content)).numpy().tolist() == [40, 30]


def test_of_a_moving_gif_the_first_frame_counts(shape_of, decoded):
    first = picture("P")
    moving = encode(first, "GIF", save_all=True, append_images=[first.rotate(90), picture("L")])
    expected = np.asarray(Image.open(io.BytesIO(moving)).convert("RGB"))
    assert shape_of(moving).numpy().tolist() == [40, 30]
    np.testing.assert_array_equal(decoded(moving).numpy(), expected)


def test_later_frames_of_a_gif_are_not_unpacked(decoded):
    one = decoded(gif((30, 40))).numpy()
    np.testing.assert_array_equal(decoded(gif((30, 40), *[(65535, 65535)] * 20)).numpy(), one)


REFUSED = {
    "bomb.png": png(50_000, 50_000),
    "bomb_that_tensorflow_takes.png": png(13_000, 13_000),
    "wide.png": png(header.MAX_PIXELS + 1, 1),
    "bomb.jpg": jpeg(65_500, 65_500),
    "over.jpg": jpeg(9460, 9459),
    "bomb.gif": gif((65_535, 65_535), screen=(65_535, 65_535)),
    "outside.gif": gif((3000, 3000)),
    "still.gif": gif(),
    "pieces.gif": gif()[:-1] + b"\x21\xfe" + b"\1a" * 70_000 + b"\0" + gif((30, 40))[-900:],
    "scans.jpg": many_scans(129),
    "webp.jpg": encode(picture(), "WEBP")[:90],
    "tiff.jpg": encode(picture(), "TIFF"),
    "bits.bmp": encode(picture("1"), "BMP"),
    "empty.jpg": b"",
    "cut.jpg": jpeg(30, 40)[:300],
    "cut.gif": gif((30, 40))[:300],
    "cut.bmp": encode(picture(), "BMP")[:300],
    "start.png": b"\x89PNG\r\n\x1a\n",
    "zero.png": png(0, 40),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_a_bad_image(name, decoded):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoded(REFUSED[name])


def test_the_bound_is_exact(shape_of):
    assert shape_of(jpeg(9459, 9459)).numpy().tolist() == [9459, 9459]
    assert 9459**2 <= header.MAX_PIXELS < 9459 * 9460
    assert len(decode.decode_crops(many_scans(100), tf.constant([[0, 0, 8, 8]]), [8])) == 1


# The one that takes a second to be refused is tried in place of others again and again.
MIXED_IN = REFUSED.keys() - {"pieces.gif"}


@pytest.fixture
def mixed(tmp_path):
    """Forty good images, one of them with another's extension, and refused ones."""
    for i in range(39):
        (tmp_path / f"{i}.jpg").write_bytes(encode(picture(), "JPEG"))
    (tmp_path / "misnamed.jpg").write_bytes(encode(picture(), "PNG"))
    for name in MIXED_IN:
        (tmp_path / name).write_bytes(REFUSED[name])
    return tmp_path


def test_training_skips_and_names_them(mixed):
    source = open_folder(str(mixed), "train")
    bad = BadImages(source, limit=1.0)
    views = ViewsPipeline(source=source, groups=pairs(augmentation(), 16), seed=0, bad_images=bad)
    batches = views.dataset(HostSlice(0, 1, 1, 4)).take(15).as_numpy_iterator()
    assert all(np.isfinite(batch["images"]).all() for batch in batches)
    assert {name.rpartition("/")[2] for name in bad._names} == MIXED_IN


def test_evaluation_leaves_them_out_and_the_cache_does_not_hold_them(mixed):
    source = open_folder(str(mixed), "train")
    held = cache.hold(source, "decoded")
    bombs = [path for path in source.paths if "bomb" in path]
    assert len(bombs) == 4 and not any(map(cache._decoded_size, bombs))
    bad = BadImages(source, limit=1.0)
    assert sum(len(index) for _, _, index in plain_images(source, 16, 4, bad)) == 40
    assert len(bad) == len(MIXED_IN)
    copies = [tf.io.gfile.stat(held.location(p)).length for p in source.paths]
    assert sum(length > 0 for length in copies) == 40


MEASURE = """
import json, pathlib, resource, sys
import tensorflow as tf
from simclr_tf.data import decode
function = tf.function(decode.decode_any, input_signature=[tf.TensorSpec([], tf.string)])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
function(pathlib.Path(sys.argv[1]).read_bytes())
before, said = peak(), []
for path in sys.argv[2:]:
    try:
        function(pathlib.Path(path).read_bytes())
    except tf.errors.InvalidArgumentError:
        said.append(path)
print(json.dumps([peak() - before, said]))
"""


@pytest.mark.slow
def test_bombs_are_refused_before_anything_is_allocated(mixed):
    bombs = [str(mixed / name) for name in MIXED_IN if name.startswith("bomb")]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(mixed / "0.jpg"), *bombs],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, refused = json.loads(done.stdout.splitlines()[-1])
    assert refused == bombs
    assert grown < 64  # MiB; the PNG would be 7 GiB


def quick(examples):
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


MAGIC = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"GIF89a", b"BM", b"GIF8"]


@quick(200)
@given(st.sampled_from(MAGIC), st.binary(max_size=80))
@example(b"GIF89a", b"\xff" * 8 + b"\x21" * 70)
def test_any_bytes_are_refused_or_have_a_shape(shape_of, magic, rest):
    try:
        height, width = shape_of(magic + rest).numpy().tolist()
    except tf.errors.InvalidArgumentError:
        return
    assert 0 < height * width <= header.MAX_PIXELS


@quick(60)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "BMP"]), st.integers(1, 300), st.integers(1, 300))
def test_the_shape_is_what_pillow_says(shape_of, form, width, height):
    encoded = encode(Image.new("RGB", (width, height)), form)
    assert shape_of(encoded).numpy().tolist() == [height, width]
