"""The views that SimCLR asks for."""

from simclr_tf.augment.policy import Augmentation
from simclr_tf.augment.views import ViewGroup


def pairs(augmentation: Augmentation, size: int) -> list[ViewGroup]:
    """One group, "images", of two views by one augmentation."""
    return [ViewGroup("images", [augmentation] * 2, size)]
