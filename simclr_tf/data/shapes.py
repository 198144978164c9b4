"""The embedded data set: drawn shapes whose class is the outline, independent of colour.

It has 10,000 training and 2,000 test pictures of 32×32 RGB pixels in ten classes. NumPy draws them
in seconds, so everything in this package can be tried without a download. The design suits
contrastive learning:

- The class is the outline. Position, size, rotation, the two colours, the two textures and the
  noise are drawn independently of it.
- Every outline has the same area and a soft edge, so that the colour histogram does not reveal the
  class. Logistic regression gets 9 % of the test split right from the histogram (4×4×4 bins,
  chance is 10 %), 18 % from the raw pixels and 15 % from a random ResNet's features.
- The shape fills about half of the picture's side, so that it survives a random resized crop.

A picture is a function of (seed, split, index) only: each block of indices has its own
counter-based generator (Philox).
"""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

SIDE = 32
SPLIT_SIZES = {"train": 10_000, "test": 2_000}
BLOCK = 200  # indices that share one generator; changing it changes every picture

_SPLIT_KEYS = {"train": 0, "test": 1}
_RADIUS = (0.225, 0.29)  # radius of the disc of equal area, in picture sides
_MAX_SHIFT = 0.12  # shift of the centre, in picture sides
_MIN_CONTRAST = 0.3  # between the luminances of shape and background, both in [0, 1]

# Luma of ITU-R BT.601, the grey of the usual colour distortion: grayscale must keep the contrast.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

Array = np.ndarray
SignedDistance = Callable[[Array, Array], Array]


def _disc(x: Array, y: Array, cx: float = 0.0, cy: float = 0.0, radius: float = 1.0) -> Array:
    return np.hypot(x - cx, y - cy) - radius


def _polygon(x: Array, y: Array, vertices: list[tuple[float, float]]) -> Array:
    """Returns the exact distance to a simple polygon, negative inside (even-odd rule)."""
    nearest = np.full_like(x, np.inf)
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(vertices, vertices[1:] + vertices[:1], strict=True):
        ex, ey = bx - ax, by - ay
        px, py = x - ax, y - ay
        along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0.0, 1.0)
        nearest = np.minimum(nearest, (px - along * ex) ** 2 + (py - along * ey) ** 2)
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (px < py * (ex / ey))
    return np.where(inside, -1, 1).astype(x.dtype) * np.sqrt(nearest)


def _regular(points: int, inner: float | None = None) -> list[tuple[float, float]]:
    """Returns the corners of a regular polygon, or of a star whose dents lie at radius `inner`."""
    radii = [1.0] if inner is None else [1.0, inner]
    turns = np.arange(points * len(radii)) * (2 * np.pi / (points * len(radii)))
    return [
        (float(r * np.cos(a)), float(r * np.sin(a)))
        for a, r in zip(turns, radii * points, strict=True)
    ]


def _ring(x: Array, y: Array) -> Array:
    return np.abs(np.hypot(x, y) - 0.77) - 0.23


def _crescent(x: Array, y: Array) -> Array:
    return np.maximum(_disc(x, y), -_disc(x, y, cx=0.5, radius=0.8))


def _heart(x: Array, y: Array) -> Array:
    square = _polygon(x, y, [(0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0)])
    lobes = [_disc(x, y, cx=cx, cy=0.5, radius=np.sqrt(0.5)) for cx in (-0.5, 0.5)]
    return np.minimum(square, np.minimum(*lobes))


_CROSS = [(1, 0.3), (0.3, 0.3), (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3)]
_ARROW = [(1, 0), (0.05, 0.85), (0.05, 0.3), (-0.9, 0.3)]

_OUTLINES: dict[str, SignedDistance] = {
    "circle": _disc,
    "ring": _ring,
    "crescent": _crescent,
    "heart": _heart,
    "square": functools.partial(_polygon, vertices=_regular(4)),
    "triangle": functools.partial(_polygon, vertices=_regular(3)),
    "star": functools.partial(_polygon, vertices=_regular(5, inner=0.42)),
    "cross": functools.partial(_polygon, vertices=_CROSS + [(-x, -y) for x, y in _CROSS]),
    "arrow": functools.partial(
        _polygon, vertices=_ARROW + [(x, -y) for x, y in reversed(_ARROW[1:])]
    ),
    "bar": functools.partial(_polygon, vertices=[(1, 0.35), (-1, 0.35), (-1, -0.35), (1, -0.35)]),
}
CLASSES = tuple(_OUTLINES)


@functools.cache
def _geometry(name: str) -> tuple[float, float]:
    """Returns the scale that gives an outline the unit disc's area, and its reach after scaling.

    The reach is the largest distance from the origin to the outline. Both are measured on a grid,
    with an error of about 0.1 % for every outline.
    """
    axis = np.linspace(-1.6, 1.6, 801)
    x, y = np.meshgrid(axis, axis)
    inside = _OUTLINES[name](x, y) < 0
    scale = np.sqrt(np.pi / (inside.sum() * (axis[1] - axis[0]) ** 2))
    return float(scale), float(scale * np.hypot(x, y)[inside].max())


def _pixel_centres() -> tuple[Array, Array]:
    axis = ((np.arange(SIDE) + 0.5) / SIDE - 0.5).astype(np.float32)
    return np.meshgrid(axis, axis)


def _uniform(rng: np.random.Generator, low: float, high: float, count: int) -> Array:
    """Draws uniform numbers [count, 1, 1] that broadcast over pictures [count, SIDE, SIDE]."""
    return rng.uniform(low, high, (count, 1, 1)).astype(np.float32)


def _rotated(rng: np.random.Generator, x: Array, y: Array) -> tuple[Array, Array]:
    angle = _uniform(rng, 0.0, 2 * np.pi, BLOCK)
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def _coverage(rng: np.random.Generator, labels: Array) -> Array:
    """Returns the share of each pixel in the shape, float32 [BLOCK, SIDE, SIDE] in [0, 1]."""
    radius = _uniform(rng, *_RADIUS, BLOCK)
    room = 0.5 - radius * max(_geometry(name)[1] for name in CLASSES)
    shift = np.clip(room, 0.0, _MAX_SHIFT)  # the same rule for all classes, and none is cut off
    grid_x, grid_y = _pixel_centres()
    x = (grid_x - shift * _uniform(rng, -1.0, 1.0, BLOCK)) / radius
    y = (grid_y - shift * _uniform(rng, -1.0, 1.0, BLOCK)) / radius
    x, y = _rotated(rng, x, y)
    distance = np.empty_like(x)
    for label, name in enumerate(CLASSES):
        rows = labels == label
        scale, _ = _geometry(name)
        distance[rows] = scale * _OUTLINES[name](x[rows] / scale, y[rows] / scale)
    edge_width = _uniform(rng, 0.8, 1.6, BLOCK)  # pixels; hides how long the outline is
    return np.clip(0.5 - distance * radius * SIDE / edge_width, 0.0, 1.0)


def _texture(rng: np.random.Generator) -> Array:
    """Draws flat, gradient, stripes, checks or clouds: float32 [BLOCK, SIDE, SIDE] in [-1, 1]."""
    along, across = _rotated(rng, *_pixel_centres())
    frequency = _uniform(rng, 2.0, 5.0, BLOCK) * np.float32(2 * np.pi)
    wave = np.sin(frequency * along + _uniform(rng, 0.0, 2 * np.pi, BLOCK))
    cross_wave = np.sin(frequency * across + _uniform(rng, 0.0, 2 * np.pi, BLOCK))
    cells = 7
    position = np.linspace(0, cells - 1, SIDE, dtype=np.float32)
    hat = np.clip(1 - np.abs(position[:, None] - np.arange(cells, dtype=np.float32)), 0, 1)
    knots = rng.uniform(-1.0, 1.0, (BLOCK, cells, cells)).astype(np.float32)
    kinds = [
        np.zeros_like(wave),
        np.clip(1.5 * along, -1, 1),
        np.clip(3 * wave, -1, 1),
        np.clip(4 * wave * cross_wave, -1, 1),
        hat @ knots @ hat.T,
    ]
    kind = rng.integers(len(kinds), size=(BLOCK, 1, 1))
    return np.choose(kind, kinds)


def _colours(rng: np.random.Generator) -> tuple[Array, Array]:
    """Draws background and shape colours [BLOCK, 2, 3], and their luminance contrast [BLOCK]."""
    tries = rng.uniform(0.05, 0.95, (BLOCK, 64, 2, 3)).astype(np.float32)
    contrast = np.abs((tries[:, :, 0] - tries[:, :, 1]) @ _LUMA)
    first = np.argmax(contrast >= _MIN_CONTRAST, axis=1)
    rows = np.arange(BLOCK)
    return tries[rows, first], contrast[rows, first]


def _textured(rng: np.random.Generator, colour: Array, contrast: Array) -> Array:
    """Draws planes [BLOCK, SIDE, SIDE, 3] of one colour [BLOCK, 3], varied below `contrast`."""
    direction = rng.standard_normal((BLOCK, 3)).astype(np.float32)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    swing = direction * contrast[:, None] * rng.uniform(0.3, 0.8, (BLOCK, 1)).astype(np.float32)
    return colour[:, None, None, :] + _texture(rng)[..., None] * swing[:, None, None, :]


def _render_block(seed: int, split: str, block: int) -> tuple[Array, Array]:
    key = np.random.SeedSequence([seed, _SPLIT_KEYS[split], block])
    rng = np.random.Generator(np.random.Philox(key))
    labels = (block * BLOCK + np.arange(BLOCK)) % len(CLASSES)
    cover = _coverage(rng, labels)[..., None]
    colours, contrast = _colours(rng)
    background, shape = (_textured(rng, colours[:, i], contrast) for i in range(2))
    pictures = background + cover * (shape - background)
    pictures += 0.03 * rng.standard_normal(pictures.shape, np.float32)
    return np.rint(np.clip(pictures, 0.0, 1.0) * 255).astype(np.uint8), labels


def render(seed: int, split: str, start: int, count: int) -> tuple[Array, Array]:
    """Draws the pictures `start` to `start + count - 1` of a split.

    The picture of an index does not depend on `start` and `count`. Labels cycle through the
    classes, so that each run of `len(CLASSES)` indices holds every class once.

    Args:
        seed: chooses the data set, a non-negative int; `Shapes` uses 0.
        split: "train" or "test"; the two share no randomness.
        start: the first index, at least 0. Indices beyond `SPLIT_SIZES` are allowed.
        count: the number of pictures, at least 0.

    Returns:
        images uint8 [count, 32, 32, 3] and labels int64 [count], indices into `CLASSES`.

    Raises:
        ValueError: for an unknown split or a negative number.
    """
    if split not in _SPLIT_KEYS:
        raise ValueError(f"split must be one of {list(_SPLIT_KEYS)}. Received: split={split!r}.")
    if min(seed, start, count) < 0:
        raise ValueError(
            "seed, start and count must not be negative. "
            f"Received: seed={seed}, start={start}, count={count}."
        )
    images = np.empty((count, SIDE, SIDE, 3), np.uint8)
    labels = np.empty(count, np.int64)
    done = 0
    while done < count:
        block, offset = divmod(start + done, BLOCK)
        taken = min(BLOCK - offset, count - done)
        drawn = _render_block(seed, split, block)
        for target, source in zip((images, labels), drawn, strict=True):
            target[done : done + taken] = source[offset : offset + taken]
        done += taken
    return images, labels


class Shapes(tfds.core.GeneratorBasedBuilder):
    """The drawn shapes as a TFDS builder: `tfds.load("shapes")` once this module is imported."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012 (TFDS wants a plain class attribute)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Drawn shapes under random position, size, rotation, colour and texture.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # nothing to download
        return {name: self._generate_examples(name, n) for name, n in SPLIT_SIZES.items()}

    def _generate_examples(self, split: str, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
        for start in range(0, count, BLOCK):
            images, labels = render(0, split, start, min(BLOCK, count - start))
            for offset, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield start + offset, {"image": image, "label": int(label)}


def prepare(data_dir: str | None = None) -> Shapes:
    """Writes the data set under `data_dir` unless it is there already, and returns its builder.

    Uses no network and prints nothing. TFDS writes into a temporary folder and renames it at the
    end, so an interrupted call leaves nothing that a later call would load, and processes that
    start together can all call this.

    Args:
        data_dir: the TFDS folder; None is TFDS' own default (~/tensorflow_datasets).

    Returns:
        The builder, ready for `as_dataset`.
    """
    builder = Shapes(data_dir=data_dir)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            builder.download_and_prepare(download_config=config)
        except OSError:  # the rename fails when another process was first; its data are the same
            if not builder.data_path.exists():
                raise
            builder = Shapes(data_dir=data_dir)
    return builder
