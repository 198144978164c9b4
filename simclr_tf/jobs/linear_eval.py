"""`linear_eval`: what a linear classifier makes of the frozen encoder's representations."""

from __future__ import annotations

from collections.abc import Callable

import gin

from simclr_tf.evaluation.linear import PROTOCOL, fit_linear
from simclr_tf.jobs import Context
from simclr_tf.jobs.building import write_result
from simclr_tf.jobs.frozen import Frozen, frozen_encoder


@gin.configurable
def linear_eval(
    context: Context,
    *,
    encoder: Callable[..., Frozen] = frozen_encoder,
    penalties: tuple[float, ...] = (0.001, 0.01, 0.1),
    max_iterations: int = 200,
) -> dict:
    """Logistic regression on features of the frozen encoder, computed once.

    Args:
      context: what the command line says.
      encoder: gives the frozen encoder and the data.
      penalties: inverse regularization strengths to choose from on a held-out part of train.
      max_iterations: of L-BFGS.

    Returns:
      The numbers, which are also in `results/linear_eval.json`.
    """
    frozen = encoder(context=context)
    train, test = frozen.splits()
    numbers = fit_linear(train, test, tuple(penalties), max_iterations, frozen.seed)
    print(
        f"linear classifier on {frozen.layer} of {frozen.weights.path}: top-1 {numbers.top1:.2%}, "
        f"top-5 {numbers.top5:.2%} of {numbers.num_test} test images (trained on "
        f"{numbers.num_train}, C={numbers.penalty:g})",
        flush=True,
    )
    return write_result(
        context.model_dir,
        "linear_eval",
        preset="cached",
        protocol=PROTOCOL,
        numbers=numbers,
        n={"train": numbers.num_train, "test": numbers.num_test},
        **frozen.record(),
    )
