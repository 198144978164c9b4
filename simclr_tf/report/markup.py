"""Builds HTML in Python: every text is escaped unless it was built here."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from typing import Any

from simclr_tf.names import as_text

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_MAX_TEXT = 4000
_VOID = ("img", "meta")


class Markup(str):
    """Text that is HTML already, and is not escaped again."""

    __slots__ = ()


Child = str | None


def tag(name: str, /, *children: Child, **attributes: str | bool | None) -> Markup:
    """Returns an element.

    Args:
      name: name of the element.
      *children: its content; Markup is kept, other text is escaped, None is skipped.
      **attributes: `class_` for `class`, and a hyphen for every other underscore; None or False
        omits an attribute, and True gives it no value.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(value)}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    opened = f"<{name}{written}>"
    if name in _VOID:
        return Markup(opened)
    return Markup(f"{opened}{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Joins children one after another."""
    return Markup("".join(escape(child) for child in children if child is not None))


def escape(text: str) -> Markup:
    """Escapes text for HTML; replaces forbidden characters, and leaves Markup unchanged."""
    if isinstance(text, Markup):
        return text
    return Markup(html.escape(_CONTROL.sub("\ufffd", as_text(str(text)))))


def shortened(text: str, limit: int = _MAX_TEXT) -> str:
    """Cuts text to at most `limit` characters, and says how many more there were."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]} … ({len(text) - limit:,} more characters)"


def table(
    header: Iterable[Child], rows: Iterable[Iterable[Child]], *, numbers: bool = True
) -> Markup:
    """Returns a table whose first column names the rows; it scrolls if it is too wide.

    Args:
      header: header of all columns.
      rows: their cells; None is an empty one.
      numbers: whether all columns but the first are aligned as numbers.
    """
    head = tag("tr", *(tag("th", cell or "", scope="col") for cell in header))
    body = [
        tag("tr", tag("th", first, scope="row"), *(tag("td", cell or "") for cell in cells))
        for first, *cells in rows
    ]
    kind = "numbers" if numbers else None
    made = tag("table", tag("thead", head), tag("tbody", *body), class_=kind)
    return tag("div", made, class_="scroll", tabindex="0")


def folded(title: str, *children: Child) -> Markup:
    """Hides content until its title is opened."""
    return tag("details", tag("summary", title), *children)


def section(identity: str, title: str, *children: Child) -> Markup:
    """Returns a part of the page that links can name; nothing if it is empty."""
    inside = join(children)
    if not inside:
        return Markup("")
    return tag("section", tag("h2", title), inside, id=identity)


def script_json(value: Any) -> Markup:
    """Returns JSON that cannot end the script element which holds it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
