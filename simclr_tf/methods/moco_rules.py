"""Rules that find faults in the settings and numbers of MoCo."""

from __future__ import annotations

from simclr_tf.methods.contrastive_rules import AUGMENTATION_OFF, IDENTICAL_VIEWS
from simclr_tf.methods.rules import Chain, Finding, Report, Rule, judged_where, makes_no_progress
from simclr_tf.metrics import Metric

# Age of the oldest keys in units of the updates in which the key encoder changes, 1 / (1 - m). It
# is 0.26 on ImageNet (65,536 keys, batches of 256, m = 0.999). With 4,096 keys the paper's
# accuracy falls by 3.8 points at m = 0.9, an age of 1.6, and to nothing at m = 0 (section 4.1).
OLDEST_AGE = 2.0
# The queue starts with random vectors, which are easy to tell from keys, so numbers say nothing
# until it holds keys alone; and at first the loss rises, as keys replace them. It should be falling
# when the queue is filled for the third time.
FILLED, LEARNING = 1, 3

SHARED_STATISTICS = Finding(
    "batch norm leaking",
    "queries and keys of a batch are normalized by the statistics of the same images "
    "(moco.batch_norm_groups = 1), by which a key is found without looking at its image: the loss "
    "falls and nothing is learned. Set moco.batch_norm_groups to 2 or more, such as 8.",
)


def outdated_keys(queue_size: int, momentum: float) -> Rule:
    """Returns the rule that keys should not be older than the encoder that made them."""

    def outdated(report: Report) -> str | None:
        age = queue_size / report.global_batch_size
        if age * (1.0 - momentum) <= OLDEST_AGE:
            return None
        return (
            f"the oldest of the {queue_size:,} keys are {age:,.0f} updates old, and with a "
            f"momentum of {momentum:g} the key encoder is another one after "
            f"{1 / (1 - momentum):,.0f}: queries are compared with keys of different encoders. "
            "Raise moco.momentum, or lower moco.queue_size."
        )

    return Rule("keys outdated", outdated)


def moco_rules(queue_size: int, loss: Metric) -> Chain:
    """Returns rules on a loss against a queue of `queue_size` keys.

    Args:
        queue_size: K.
        loss: The loss's name in a report and in words.
    """

    def times_filled(report: Report) -> float:
        return report.step * report.global_batch_size / queue_size

    def is_filled(report: Report) -> bool:
        return times_filled(report) > FILLED

    def no_learning(report: Report) -> str | None:
        if times_filled(report) <= LEARNING or not makes_no_progress(report):
            return None
        return (
            f"the {loss.title}, {report.numbers[loss.name]:.3f}, is that of guessing "
            f"({report.chance:.2f}) after the queue was filled {times_filled(report):.0f} times: "
            "queries do not find their keys. Is the learning rate far too high or low? Else lower "
            "moco.momentum, by which the key encoder follows slowly at first, or moco.queue_size."
        )

    judged = (judged_where(is_filled, rule) for rule in (IDENTICAL_VIEWS, AUGMENTATION_OFF))
    return (*judged, Rule("no learning", no_learning))
