"""Rules that find faults in the numbers of PIRL."""

from __future__ import annotations

import math

from simclr_tf.methods.contrastive_rules import COLLAPSE
from simclr_tf.methods.rules import (
    LEARNED,
    NO_PROGRESS,
    Chain,
    Report,
    Rule,
    judged_where,
    learning_rules,
)
from simclr_tf.metrics import Metric

# In the first epoch an image's row of the bank is random, and in the second it is half of what the
# image gave before: the loss starts above chance and rises, as rows of images replace random ones.
SEEN = 2
# A row that keeps more than this share of its random start to the end of a run says little of its
# image. With the paper's momentum of 0.5 two epochs leave a quarter.
STALE = math.exp(-1)


def pirl_rules(
    loss: Metric, *, momentum: float, images: int, total_steps: int, floor: float
) -> Chain:
    """Returns rules on a loss against a bank of each image's earlier outputs.

    Args:
        loss: The loss's name in a report and in words.
        momentum: Share of itself that a row keeps in an update.
        images: n, the rows of the bank.
        total_steps: Updates of the whole run.
        floor: The lowest loss.
    """

    def memory_too_slow(report: Report) -> str | None:
        visits = total_steps * report.global_batch_size / images
        left = momentum**visits
        if left <= STALE:
            return None
        return (
            f"each image is seen {visits:.3g} times in this run, and with a momentum of "
            f"{momentum:g} its row of the bank keeps {left:.0%} of its random start to the end: "
            "the loss asks for directions that say nothing of the image. Train for more epochs, "
            "or lower pirl.momentum."
        )

    def patches_not_learned(report: Report) -> str | None:
        of_images, of_patches = (
            (report.chance - report.numbers[name]) / (report.chance - floor)
            for name in ("image_loss", "patch_loss")
        )
        if of_images < LEARNED or of_patches >= NO_PROGRESS:
            return None
        return (
            f"images find their row of the bank (loss {report.numbers['image_loss']:.3f}), and "
            f"patches do not ({report.numbers['patch_loss']:.3f}, chance {report.chance:.2f}): "
            "what is trained is to tell images apart, without the patches. Are they so small that "
            "the encoder keeps nothing of them? See figures/views.png, and set "
            "shuffled_patches.patch and cell larger."
        )

    judged = (COLLAPSE, Rule("patches not learned", patches_not_learned), *learning_rules(loss))
    late = (judged_where(lambda report: report.epoch > SEEN, rule) for rule in judged)
    return (Rule("memory too slow", memory_too_slow), *late)
