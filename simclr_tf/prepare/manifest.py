"""The tables beside the records: every source file, copies, and files that are not read."""

from __future__ import annotations

import collections
import csv
import io
import os
from collections.abc import Iterable, Sequence

from simclr_tf.names import as_text
from simclr_tf.prepare.parts import Picture, write_text
from simclr_tf.prepare.plan import Plan
from simclr_tf.prepare.scan import Listing

_COLUMNS = (
    "path", "outcome", "reason", "class", "split", "shard", "record", "width", "height", "bytes",
    "note",
)  # fmt: skip
KEPT, COPY, UNREADABLE, LEFT_OUT = "kept", "copy", "unreadable", "left out"


def rows(listing: Listing, pictures: Sequence[Picture], plan: Plan) -> list[dict]:
    """Returns a row for every source file, in the order of the listing.

    The outcome is one of kept, copy (of another picture), unreadable, or left out (not tried).
    """
    place = {
        record.picture.path: {"split": split, "shard": shard.name, "record": n}
        for split, of_split in plan.shards.items()
        for shard in of_split
        for n, record in enumerate(shard.records)
    }
    picture_of = {picture.path: picture for picture in pictures}
    found = []
    for file in listing.files:
        picture = picture_of.get(file.path, Picture(file.path, file.left_out))
        if file.left_out:
            outcome, reason = LEFT_OUT, file.left_out
        elif picture.reason:
            outcome, reason = UNREADABLE, picture.reason
        elif file.path in plan.copies:
            kept, kind = plan.copies[file.path]
            outcome, reason = COPY, f"{kind} copy of {kept}"
        else:
            outcome, reason = KEPT, ""
        row = dict.fromkeys(_COLUMNS, "") | {
            "path": file.path,
            "outcome": outcome,
            "reason": reason,
            "class": file.class_name or "",
            "bytes": file.size,
            "note": picture.note,
        }
        if not file.left_out and not picture.reason:
            row |= {"width": picture.width, "height": picture.height}
        found.append(row | place.get(file.path, {}))
    return found


def write(folder: str, found: Sequence[dict], plan: Plan) -> None:
    """Writes manifest.csv, duplicates.csv and unreadable.csv."""
    write_table(os.path.join(folder, "manifest.csv"), _COLUMNS, (row.values() for row in found))
    class_of = {row["path"]: row["class"] for row in found}
    copies = (
        (
            row["path"],
            *plan.copies[row["path"]],
            row["class"],
            class_of[plan.copies[row["path"]][0]],
        )
        for row in found
        if row["outcome"] == COPY
    )
    columns = ("path", "kept", "kind", "class", "class_of_kept")
    write_table(os.path.join(folder, "duplicates.csv"), columns, copies)
    unread = ((row["path"], row["reason"]) for row in found if row["outcome"] == UNREADABLE)
    write_table(os.path.join(folder, "unreadable.csv"), ("path", "reason"), unread)


def write_table(path: str, columns: Sequence[str], lines: Iterable[Iterable]) -> None:
    """Writes a CSV file in UTF-8; bytes of names that are not UTF-8 are written out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([as_text(str(value)) for value in line] for line in lines)
    write_text(path, text.getvalue())


def counts(found: Sequence[dict]) -> dict[str, int]:
    """Counts the source files by outcome."""
    counted = collections.Counter(row["outcome"] for row in found)
    return {outcome: counted[outcome] for outcome in (KEPT, COPY, UNREADABLE, LEFT_OUT)}
