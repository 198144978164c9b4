"""The page: its parts in the order of a reader's questions, without external resources."""

from __future__ import annotations

import base64
import datetime
import hashlib
import pathlib
from collections.abc import Sequence

from simclr_tf.report import evaluations, headline, machine, pictures, plan
from simclr_tf.report.charts import charts, watched
from simclr_tf.report.figures import Chart, grid
from simclr_tf.report.markup import Markup, script_json, section, tag
from simclr_tf.report.panels import panels
from simclr_tf.report.reading import Run

_FILES = pathlib.Path(__file__).resolve().parent


def write_page(runs: Sequence[Run], now: datetime.datetime) -> bytes:
    """Returns the whole report, UTF-8.

    Args:
      runs: at least one; several are compared.
      now: time of writing.
    """
    style = Markup(_text("style.css"))
    script = Markup(_text("scales.js") + _text("chart.js"))
    drawn = charts(runs)
    seen = watched(runs)
    every = [chart for _, made in drawn for chart in made] + seen
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"{title} · simclr_tf report"),
        tag("style", style),
    )
    data = {
        "runs": [{"epochs": run.epochs_per_step} for run in runs],
        "charts": [chart.data() for chart in every],
    }
    body = tag(
        "body",
        _header(runs, title, now),
        tag("main", *_sections(runs, drawn, seen)),
        tag("script", script_json(data), type="application/json", id="data"),
        tag("script", script),
    )
    page = f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"
    return page.encode("utf-8", errors="replace")


def _text(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Allows no loading, and only one style and one script, named by their digests."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest(style)}'; "
        f"script-src 'sha256-{digest(script)}'; base-uri 'none'; form-action 'none'"
    )


def _header(runs: Sequence[Run], title: str, now: datetime.datetime) -> Markup:
    return tag(
        "header",
        tag("p", f"simclr_tf report · {headline.when(now)}", class_="eyebrow"),
        tag("h1", title),
        headline.banners(runs, now),
        headline.warnings(runs),
        headline.key_numbers(runs),
    )


def _sections(
    runs: Sequence[Run], drawn: Sequence[tuple[str, list[Chart]]], seen: Sequence[Chart]
) -> list[Markup]:
    first_seen = sum(len(made) for _, made in drawn)
    evaluated = [
        grid(seen, first_seen),
        *evaluations.checkpoints_watched(runs),
        *evaluations.evaluations(runs),
    ]
    album = pictures.Album()
    shown = {kind: [album.page(runs, find, text)] for kind, find, text in pictures.KINDS}
    parts = [
        ("recipe", "Plan and recipe", plan.parts(runs)),
        ("curves", "Curves", panels(runs, drawn)),
        ("evaluation", "Evaluation", evaluated),
        ("views", "Views", shown["views"]),
        ("map", "Embedding map", shown["map"]),
        ("neighbours", "Nearest neighbours", shown["neighbours"]),
        ("figures", "Other figures", shown["figures"]),
        ("speed", "Throughput and host wait", [machine.speed(runs)]),
        ("environment", "Environment and starts", [machine.environment(runs)]),
    ]
    made = {(name, title): section(name, title, *inside) for name, title, inside in parts}
    links = [tag("a", title, href=f"#{name}") for (name, title), part in made.items() if part]
    return [tag("nav", *links, aria_label="Parts of the report"), *made.values()]
