"""Rules that find faults in the settings and numbers of CPC v2."""

from __future__ import annotations

from simclr_tf.methods.contrastive_rules import EASY_BATCH, EASY_TOP1
from simclr_tf.methods.rules import Chain, Finding, Report, Rule, judged_where, learning_rules
from simclr_tf.metrics import Metric

SHARED_STATISTICS = Finding(
    "batch norm leaking",
    "patches are normalized by the statistics of each other, by which a predicted patch is found "
    "without looking at what it shows: the loss falls and less is learned. Set "
    "resnet.normalization = 'layer_norm'.",
)


def overlap(offset: int, stride: int, size: int) -> Finding | None:
    """Returns a finding if a predicted patch shares pixels with the one that predicts it.

    Args:
        offset: The smallest offset, in patches.
        stride: Pixels from a patch to the next one.
        size: Side of a patch in pixels.
    """
    if offset * stride >= size:
        return None
    text = (
        f"a patch of {size} pixels shares {size - offset * stride} rows with the nearest one that "
        f"it predicts, which is then found by them (cpc_loss.offsets has {offset}, of patches "
        f"{stride} pixels apart). Leave out offsets below {-(-size // stride)}."
    )
    return Finding("predicted patches overlap", text)


def _easy(report: Report) -> str | None:
    if report.epoch > 1 or report.global_batch_size < EASY_BATCH:
        return None
    found = report.numbers["prediction_top1"]
    if found <= EASY_TOP1:
        return None
    return (
        f"predicted patches are found without fail ({found:.1%}) in the first epoch: something in "
        "them gives their place away. Is cpc.patch_policy empty or much too weak, or do patches "
        "overlap with those that predict them (cpc_loss.offsets)?"
    )


def late_learning_rules(loss: Metric) -> Chain:
    """Returns `learning_rules` that judge from the second epoch on.

    Predictions start near zero, by which all patches are alike, and the lowest loss, 0, is far from
    what can be predicted: even a run that learns has gone little of the way at first.

    Args:
        loss: The loss's name in a report and in words.
    """
    return tuple(
        judged_where(lambda report: report.epoch > 1, rule) for rule in learning_rules(loss)
    )


PATCHES_EASY = Rule("augmentation off", _easy)
