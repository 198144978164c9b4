"""Depths of ResNet that are not the paper's, and small enough for tests."""

from simclr_tf.models.resnet import DEPTHS

# One block; one in the first and in the last group, to as many channels as a ResNet-18 has; and the
# same of bottlenecks.
SMALLEST_DEPTH, SMALL_DEPTH, SMALL_BOTTLENECK = 4, 6, 8


def register_small_depths() -> None:
    """Makes these values of `resnet.depth` valid in this process."""
    DEPTHS[SMALLEST_DEPTH] = ("basic", (1, 0, 0, 0))
    DEPTHS[SMALL_DEPTH] = ("basic", (1, 0, 0, 1))
    DEPTHS[SMALL_BOTTLENECK] = ("bottleneck", (1, 0, 0, 1))
