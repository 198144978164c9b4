"""A SimCLR that is small enough to train in a test, and perhaps a probe that watches it."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import keras

from simclr_tf.augment.policy import augmentation
from simclr_tf.jobs.assembly import dtype_policy
from simclr_tf.methods.base import Method
from simclr_tf.methods.simclr import simclr
from simclr_tf.models.heads import projection_head
from simclr_tf.models.networks import Networks
from simclr_tf.models.resnet import resnet
from simclr_tf.objectives.nt_xent import NTXent
from simclr_tf.optim.factory import lars
from simclr_tf.optim.schedules import WarmupCosine
from simclr_tf.training.probe import OnlineProbe
from simclr_tf.training.step import make_train_step, step_metrics
from tests.support.small_resnet import SMALL_DEPTH

LOSS = NTXent(0.5)


@dataclasses.dataclass(frozen=True)
class Tiny:
    """A method, an optimizer built for it, and the online probe or none."""

    method: Method
    optimizer: keras.optimizers.Optimizer
    probe: OnlineProbe | None = None

    @property
    def networks(self) -> Networks:
        """All that the optimizer updates."""
        return self.method.networks

    @property
    def names(self) -> list[str]:
        """Names of the numbers of a step, in order."""
        return [m.name for m in step_metrics(self.method, self.optimizer, self.probe)]

    def step(self, **kwargs) -> Callable:
        """The replica function."""
        return make_train_step(self.method, self.optimizer, probe=self.probe, **kwargs)


def build_tiny(
    rate: float,
    precision: str = "float32",
    loss: NTXent = LOSS,
    remat: Sequence[int] = (),
    watched: bool = False,
    depth: int = SMALL_DEPTH,
) -> Tiny:
    """Builds a SimCLR for 16 px, LARS and a probe of three classes, in the present strategy."""
    keras.utils.set_random_seed(0)
    with dtype_policy(precision):
        method = simclr(
            augmentation=augmentation,
            projection_head=functools.partial(projection_head, output_dim=16),
            loss=lambda: loss,
            encoder=functools.partial(resnet, depth=depth, width_multiplier=0.125, remat=remat),
            image_size=16,
        )
    optimizer = lars(learning_rate=WarmupCosine(rate, 0, 10), networks=method.networks)
    optimizer.build(method.networks.trainable_variables)
    probe = OnlineProbe(3, method.networks["encoder"], kept=32) if watched else None
    return Tiny(method, optimizer, probe)
