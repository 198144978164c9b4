"""Training from photographs as cameras write them, compared with the same ones prepared.

The 12-megapixel photographs are made here, of noise at several scales: their files have 2.3 MB, and
decode in 36 ms as a camera's do.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import tempfile

import numpy as np
from PIL import Image

from simclr_tf.benchmark.timing import table, take_turns
from simclr_tf.data import folder_source, tfrecord_source
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.prepare import job, processes

FOLDER, PREPARED = "the folder", "prepared"
SIZE = (4000, 3000)
_PHOTOS = 8
# Batches of a round: prepared photographs are so much faster.
_BATCHES = {FOLDER: 4, PREPARED: 48}
# Cells of the noise across a photograph, and its standard deviation in levels.
_OCTAVES = ((8, 45), (32, 25), (128, 14), (512, 8), (2000, 5))


def measure(pipeline: ViewsPipeline, rounds: int, reader: type) -> str:
    """Times the views of a recipe from both, in turns.

    Args:
      pipeline: its views are made. They are timed without the policy, which costs the same for
        both and may run on the device; and with it, if the pipeline runs it on the host.
      rounds: how often each is timed.
      reader: `input.Reader`.

    Returns:
      The table, as text.
    """
    with tempfile.TemporaryDirectory() as folder:
        photos, records = os.path.join(folder, "photos"), os.path.join(folder, "prepared")
        os.mkdir(photos)
        for number, photo in enumerate(photographs(SIZE, _PHOTOS)):
            photo.save(os.path.join(photos, f"{number}.jpg"), quality=90)
        job.prepare(job.Request(photos, records, test_percent=0, processes=processes.available()))
        sources = {
            FOLDER: folder_source.open_folder(photos, "train"),
            PREPARED: tfrecord_source.open_tfrecord(os.path.join(records, "train-*.tfrecord")),
        }
        tables = [
            _compared(pipeline, sources, where, rounds, reader)
            for where in dict.fromkeys(["device", pipeline.augment_on])
        ]
    return "\n\n".join(tables)


def photographs(size: tuple[int, int], count: int) -> list[Image.Image]:
    """Returns different photographs of noise, width x height."""
    rng = np.random.default_rng(0)
    levels = np.full((size[1], size[0], 3), 128.0, np.float32)
    for cells, deviation in _OCTAVES:
        noise = rng.normal(128, deviation, (cells * 3 // 4, cells, 3)).clip(0, 255)
        grown = Image.fromarray(noise.astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
        levels += np.asarray(grown, np.float32) - 128
    pixels = levels.clip(0, 255).astype(np.uint8)
    steps = [side * n // count for n in range(count) for side in size]
    shifts = zip(steps[1::2], steps[::2], strict=True)  # of rows and columns
    return [Image.fromarray(np.roll(pixels, shift, (0, 1))) for shift in shifts]


def _compared(pipeline: ViewsPipeline, sources: dict, where: str, rounds: int, reader: type) -> str:
    host = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=_PHOTOS)
    readers = {
        name: reader(
            dataclasses.replace(
                pipeline, source=source, augment_on=where, bad_images=BadImages(source)
            ).dataset(host),
            _PHOTOS,
            _BATCHES[name],
        )
        for name, source in sources.items()
    }
    timings = take_turns(readers, rounds=rounds, baseline=FOLDER)
    spent = [statistics.median(r.milliseconds[1:]) for r in readers.values()]
    what = "with the policy" if where == "host" else "without the policy"
    width, height = SIZE
    return "\n".join(
        [
            f"{_PHOTOS} photographs of {width} x {height}, views {what}; processor time "
            f"{spent[0]:.1f} and {spent[1]:.1f} ms an image, ratio {spent[0] / spent[1]:.1f}",
            "",
            table(timings, "images"),
        ]
    )
