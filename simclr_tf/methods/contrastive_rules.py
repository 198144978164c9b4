"""Rules that find faults in the numbers of a contrastive loss over two views."""

from __future__ import annotations

from simclr_tf.methods.rules import Finding, Report, Rule

# Equal vectors have a cosine of 1 up to float32's rounding, about 1e-6; the average of a report
# does not come this near if views differ in anything.
SAME_COSINE = 0.9999
# With as many negatives as EASY_BATCH has, recipes that learn are far below this in the first
# epoch; among a handful of negatives, finding the positive is easy.
EASY_TOP1 = 0.99
EASY_BATCH = 32
# Spread, at most 1. The quick start stays above 0.85; below 0.1 projections fill less than a tenth
# of the sphere.
COLLAPSED_SPREAD = 0.1
# The papers search from 0.05 to 1. Below 0.02 the nearest negative gets all of the gradient; above
# 2 the loss of perfect projections is within half a unit of guessing.
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.02, 2.0

IDENTICAL = (
    "the two views of an image have the same projection: they are identical, so there is nothing "
    "to learn. Is the augmentation off, or seeded alike for both views? See figures/views.png."
)


def temperature_fault(temperature: float) -> Finding | None:
    """Returns a finding if nothing could be learned at this temperature, else None."""
    if temperature < LOWEST_TEMPERATURE:
        effect = "the nearest negative alone has all of the gradient"
    elif temperature > HIGHEST_TEMPERATURE:
        effect = "near and far negatives count the same"
    else:
        return None
    text = (
        f"the temperature is {temperature:.3g}, so that {effect}. From 0.05 to 1 is usual: 0.1 for "
        "ImageNet and 0.5 for CIFAR-10. Is this temperature what was meant?"
    )
    return Finding("temperature out of range", text)


def _collapse(report: Report) -> str | None:
    spread = report.numbers["embedding_std"]
    if not spread < COLLAPSED_SPREAD:
        return None
    return (
        f"projections have collapsed (spread {spread:.3f} of 1): nearly all images have the same "
        "one. Lower the learning rate, check that the images differ, and that the projection head "
        "has its batch normalization."
    )


def _identical_views(report: Report) -> str | None:
    # If images are projected to a few points, many are as near as the positive.
    found = report.numbers["contrastive_top1"] > EASY_TOP1
    if report.numbers["positive_cosine"] < SAME_COSINE or not found:
        return None
    return IDENTICAL


def _augmentation_off(report: Report) -> str | None:
    if report.epoch > 1 or report.global_batch_size < EASY_BATCH:
        return None
    if report.numbers["contrastive_top1"] <= EASY_TOP1:
        return None
    return (
        f"positives are found without fail ({report.numbers['contrastive_top1']:.1%}) in the first "
        "epoch: views of an image are too alike to teach anything. Are the crops or the colour "
        "distortion off, or much too weak? See figures/views.png."
    )


COLLAPSE = Rule("collapse", _collapse)
IDENTICAL_VIEWS = Rule("identical views", _identical_views)
AUGMENTATION_OFF = Rule("augmentation off", _augmentation_off)
CONTRASTIVE_RULES = (COLLAPSE, IDENTICAL_VIEWS, AUGMENTATION_OFF)
