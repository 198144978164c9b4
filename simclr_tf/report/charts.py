"""Groups curves into charts, and charts under headings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from simclr_tf.report.curves import METHOD_LOSS, Curve, is_share, spoken, thin
from simclr_tf.report.figures import Chart, Kind, Line
from simclr_tf.report.reading import Run

MAX_OTHERS = 40
_CHANCE = "loss_chance"


GROUPS: tuple[tuple[str, tuple[Kind, ...]], ...] = (
    (
        "Learning",
        (
            Kind("Loss", f"{METHOD_LOSS}|loss_chance", "dashed: chance"),
            Kind("Terms of VICReg", "invariance|variance|covariance", "before their coefficients"),
            Kind("Contrastive accuracy", r"contrastive_top\d+", "positives found", share=True),
            Kind("Accuracy on training images", r"top\d+", share=True),
            Kind("Online probe", "probe_accuracy", "on plain training images", share=True),
            Kind("Probe loss", "probe_loss"),
            Kind("Total loss", "loss", "what is minimized"),
        ),
    ),
    (
        "Embeddings",
        (
            Kind("Cosine similarity", r".*_cosine", "of positive and negative pairs"),
            Kind("Spread", "embedding_std|.*_spread", "1: the whole sphere, 0: collapse"),
            Kind("Deviation of projections", "projection_std", "1: the goal, 0: collapse"),
            Kind("Effective rank", ".*effective_rank.*", "dimensions in use"),
        ),
    ),
    (
        "Optimization",
        (
            Kind("Learning rate", "learning_rate"),
            Kind("Temperature", "temperature"),
            Kind("Gradient norm", ".*gradient_norm.*", "logarithmic", log=True),
            Kind("Trust ratios", "trust_ratio.*", "logarithmic", log=True),
        ),
    ),
    (
        "Machine",
        (
            Kind("Throughput", "examples_per_second", "images a second"),
            Kind("Host wait", "host_wait", "share of the time", share=True),
            Kind("Memory", r".*memory.*", "MiB"),
            Kind("Skipped images", "skipped_images", "so far"),
        ),
    ),
)


# Numbers of the job label_free, over the checkpoints.
LABEL_FREE = (
    Kind("RankMe", "rankme", "by checkpoint; effective dimensions"),
    Kind("alpha-ReQ", "alpha_req", "by checkpoint; decay of the eigenvalues"),
    Kind("Alignment", "alignment", "by checkpoint; 0: views of an image are equal"),
    Kind("Uniformity", "uniformity", "by checkpoint; 0: all images are equal"),
)


def charts(runs: Sequence[Run]) -> list[tuple[str, list[Chart]]]:
    """Returns all numbers of the runs' reports, in charts under headings, unknown ones last."""
    left = dict.fromkeys(name for run in runs for name in run.curves if name != "epoch")
    groups = []
    for heading, kinds in GROUPS:
        made = []
        for kind in kinds:
            names = [name for name in left if re.fullmatch(kind.names, name)]
            for name in names:
                del left[name]
            made += _chart(kind, names, [run.curves for run in runs], [run.name for run in runs])
        groups.append((heading, made))
    others = [
        chart
        for name in list(left)[:MAX_OTHERS]
        for chart in _chart(
            Kind(spoken(name), name, share=is_share(name)),
            [name],
            [run.curves for run in runs],
            [run.name for run in runs],
        )
    ]
    heading = (
        f"Other (the first {MAX_OTHERS} of {len(left)})" if len(left) > MAX_OTHERS else "Other"
    )
    groups.append((heading, others))
    return [(heading, made) for heading, made in groups if made]


def watched(runs: Sequence[Run]) -> list[Chart]:
    """Returns the shares and measures of results/watch.jsonl: a chart each compares the jobs."""
    names = dict.fromkeys(name for run in runs for name in run.watched)
    titles = dict.fromkeys(name.partition(" ")[2] for name in names if is_share(name))
    shares = [Kind(spoken(title), title, "by checkpoint", share=True) for title in titles]
    return [
        chart
        for kind in (*shares[:MAX_OTHERS], *LABEL_FREE)
        for chart in _chart(
            kind,
            [name for name in names if name.partition(" ")[2] == kind.names],
            [run.watched for run in runs],
            [run.name for run in runs],
        )
    ]


def _chart(
    kind: Kind, names: Sequence[str], curves: Sequence[dict[str, Curve]], runs: Sequence[str]
) -> Iterator[Chart]:
    """Returns the chart of these numbers, if a run has one of them."""
    drawn = [name for name in names if name != _CHANCE]
    lines = [
        Line(
            run=run,
            label=_label(name, runs[run], len(drawn), len(runs)),
            colour=(run if len(runs) > 1 else place) % 8,
            dash=(place if len(runs) > 1 else 0) % 4,
            curve=thin(found[name]),
        )
        for run, found in enumerate(curves)
        for place, name in enumerate(drawn)
        if name in found
    ]
    if lines and _CHANCE in names:
        lines += _chances(curves, runs)
    if lines:
        yield Chart(kind, lines)


def _chances(curves: Sequence[dict[str, Curve]], runs: Sequence[str]) -> Iterator[Line]:
    """Yields the chance of each run, unless an earlier run has the same."""
    seen: set[float] = set()
    last = {run: found[_CHANCE].values[-1] for run, found in enumerate(curves) if _CHANCE in found}
    alone = len(set(last.values())) == 1
    for run, value in last.items():
        if value not in seen and math.isfinite(value):
            seen.add(value)
            label = "chance" if alone else f"{runs[run]} · chance"
            yield Line(run, label, run % 8, 0, thin(curves[run][_CHANCE]), reference=True)


def _label(name: str, run: str, names: int, runs: int) -> str:
    if runs == 1:
        return spoken(name)
    return run if names == 1 else f"{run} · {spoken(name)}"
