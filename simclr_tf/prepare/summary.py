"""Says what a prepared set holds, what is left out, and how to train with it."""

from __future__ import annotations

import os
import shlex

from simclr_tf.names import listed, shown

_REASONS = 10


def of(description: dict, data_dir: str) -> str:
    """Returns the text for the description of a finished set.

    Args:
      description: what `job.prepare` returns.
      data_dir: the folder of the set.
    """
    lines = [_split_line(*item, description["classes"]) for item in description["splits"].items()]
    outcomes = description["outcomes"]
    lines.append(
        f"of {sum(outcomes.values()):,} files: {outcomes['kept']:,} kept, "
        f"{outcomes['copy']:,} copies (duplicates.csv), {outcomes['unreadable']:,} unreadable "
        f"(unreadable.csv), {outcomes['left out']:,} left out; manifest.csv has all"
    )
    reasons = sorted(description["left_out"].items(), key=lambda item: -item[1])[:_REASONS]
    lines += [f"  left out: {count:,} {reason}" for reason, count in reasons]
    lines += [f"note: {shown(note)}" for note in description["notes"]]
    return "\n".join([*lines, "", *_commands(description, data_dir)])


def _split_line(split: str, counts: dict, classes: list[str]) -> str:
    pairs = [f"{n} {c}" for n, c in zip(classes, counts["of_class"], strict=True)]
    of_class = f"{len(pairs)} classes ({listed(pairs)})"
    return (
        f"{split}: {counts['images']:,} images, {of_class if pairs else 'no labels'}, "
        f"in {counts['shards']} files"
    )


def _commands(description: dict, data_dir: str) -> list[str]:
    pattern = os.path.join(data_dir, "{split}-*.tfrecord")
    bindings = [f"data.source = {'tfrecord:' + pattern!r}"]
    evaluation = [split for split in description["splits"] if split != "train"]
    if evaluation and "test" not in evaluation:
        bindings.append(f"data.eval_split = {evaluation[0]!r}")
    given = " \\\n    ".join(f"--gin_bindings={_quoted(binding)}" for binding in bindings)
    return [
        "train on it with:",
        "  python -m simclr_tf.run --gin_file=gin/folder.gin --model_dir=MODEL_DIR \\",
        f"    {given}",
    ]


def _quoted(binding: str) -> str:
    """Quotes for a shell; as the documents do where that is enough."""
    if any(character in binding for character in '"$`\\!'):
        return shlex.quote(binding)
    return f'"{binding}"'
