"""A run's PNGs, embedded in the page while there is room."""

from __future__ import annotations

import base64
import pathlib
from collections.abc import Callable, Sequence

from simclr_tf.report.markup import Markup, tag
from simclr_tf.report.reading import Run

MAX_ONE = 4 * 2**20
MAX_ALL = 16 * 2**20
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
Finder = Callable[[Run], list[pathlib.Path]]


class Album:
    """Embeds pictures until `room` bytes are used up; names the remaining ones instead."""

    def __init__(self, room: int = MAX_ALL):
        self._room = room

    def page(self, runs: Sequence[Run], find: Finder, text: str) -> Markup:
        """Shows the pictures that `find` finds in the runs, side by side; nothing if none."""
        shown = [
            self._picture(run, path, text + (f", {run.name}" if len(runs) > 1 else ""))
            for run in runs
            for path in find(run)
        ]
        return tag("div", *shown, class_="pictures") if shown else Markup("")

    def _picture(self, run: Run, path: pathlib.Path, text: str) -> Markup:
        """Returns the picture with `text` under it or, if it was left out, the reason."""
        name = path.relative_to(run.folder).as_posix()
        caption = tag("figcaption", text, " ", tag("code", name))
        if not path.is_file():
            return _missing(caption, "It is no file.")
        try:
            size = path.stat().st_size
            fits = size <= min(MAX_ONE, self._room)
            content = path.read_bytes() if fits else b""
        except OSError:
            return _missing(caption, "It cannot be read.")
        if not fits:
            return _missing(caption, f"It has {size / 2**20:.1f} MiB, for which there is no room.")
        if not content.startswith(_SIGNATURE):
            return _missing(caption, "It is not a PNG.")
        self._room -= size
        source = "data:image/png;base64," + base64.b64encode(content).decode()
        return tag("figure", tag("img", src=source, alt=text), caption, class_="picture")


def _views(run: Run) -> list[pathlib.Path]:
    return sorted(run.folder.glob("figures/views.png"))


def _maps(run: Run) -> list[pathlib.Path]:
    return sorted(run.folder.glob("embeddings/*/map.png"))


def _neighbours(run: Run) -> list[pathlib.Path]:
    return sorted(run.folder.glob("embeddings/*/neighbours.png"))


def _others(run: Run) -> list[pathlib.Path]:
    """Finds all figures but the views and the curves; the page draws the curves itself."""
    drawn = ("views.png", "curves.png")
    return [p for p in sorted(run.folder.glob("figures/*.png")) if p.name not in drawn]


# Where the pictures of each kind are, and their captions.
KINDS: tuple[tuple[str, Finder, str], ...] = (
    ("views", _views, "Augmented views"),
    ("map", _maps, "Images in the plane"),
    ("neighbours", _neighbours, "Images beside the most similar ones"),
    ("figures", _others, "Figure"),
)


def _missing(caption: Markup, why: str) -> Markup:
    return tag("figure", tag("p", why, class_="muted"), caption, class_="picture")
