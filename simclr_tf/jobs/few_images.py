"""What a classifier's recipe must say where there are few images to train on.

The recipes' batches and epochs are those of ImageNet. On a hundred images they would take two
steps, which teach next to nothing, and yet give a result.
"""

from __future__ import annotations

import math

from simclr_tf.optim.schedules import steps_for
from simclr_tf.training.plan import Plan

MIN_STEPS = 100
# Batches that are advised: the usual one, and the smallest that batch normalization does well with.
_USUAL, _SMALL = 256, 8


def advice(num_images: int, epochs: float, num_replicas: int) -> str:
    """Returns bindings to paste, with which training takes at least MIN_STEPS steps.

    Args:
      num_images: the number of images to train on.
      epochs: the recipe's passes over them.
      num_replicas: the number of replicas, which divides the batch.
    """
    wanted = min(num_images // 4, int(num_images * epochs / MIN_STEPS), _USUAL)
    most = min(max(wanted, _SMALL), num_images)
    batch = max(2 ** int(math.log2(most)) // num_replicas, 1) * num_replicas
    bindings = [f"train_classifier.global_batch_size = {batch}"]
    if steps_for(epochs, num_images, batch) < MIN_STEPS:
        bindings.append(f"train_classifier.epochs = {math.ceil(MIN_STEPS * batch / num_images)}.0")
    return "Add " + " ".join(f"--gin_bindings='{binding}'" for binding in bindings) + "."


def warnings(plan: Plan) -> list[str]:
    """Returns a warning if a plan has fewer than MIN_STEPS steps."""
    if plan.total_steps >= MIN_STEPS:
        return []
    images = plan.source.num_examples
    return [
        f"A training of {plan.total_steps} steps teaches next to nothing: below {MIN_STEPS} the "
        f"accuracy says little of the encoder. Received: {plan.epochs:g} epochs of {images:,} "
        f"images in batches of {plan.global_batch_size}. "
        + advice(images, plan.epochs, plan.num_replicas)
    ]
