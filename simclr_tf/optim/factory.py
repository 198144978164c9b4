"""Optimizers for networks; the variables' roles decide which are not decayed.

Each factory returns an optimizer that is not built yet; build it inside the strategy's scope with
`optimizer.build(networks.trainable_variables)`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import gin
import keras

from simclr_tf.errors import InvalidArgument
from simclr_tf.models.networks import ROLES, Networks, variable_roles
from simclr_tf.optim.lars import LARS
from simclr_tf.optim.sgd import SGD

Schedule = keras.optimizers.schedules.LearningRateSchedule

EXCLUDED_ROLES = ("bias", "batch_norm", "probe")


@gin.configurable
def lars(
    momentum: float = 0.9,
    weight_decay: float = 1e-6,
    eta: float = 0.001,
    *,
    learning_rate: Schedule,
    networks: Networks,
) -> LARS:
    """Returns LARS as in SimCLR (section 2.2): kernels decayed and adapted, all else neither."""
    optimizer = LARS(learning_rate, momentum=momentum, weight_decay=weight_decay, eta=eta)
    optimizer.exclude(excluded_variables(networks))
    return optimizer


@gin.configurable
def momentum(
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    nesterov: bool = True,
    *,
    learning_rate: Schedule,
    networks: Networks,
) -> keras.optimizers.Optimizer:
    """Returns SGD with (Nesterov) momentum; decoupled decay of kernels only."""
    if not 0 <= momentum <= 1:
        raise InvalidArgument(f"momentum must be from 0 to 1. Received: momentum={momentum}.")
    optimizer = keras.optimizers.SGD(
        learning_rate, float(momentum), nesterov=nesterov, weight_decay=weight_decay or None
    )
    return _decay_kernels_only(optimizer, networks)


@gin.configurable
def sgd_l2(
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    nesterov: bool = False,
    *,
    learning_rate: Schedule,
    networks: Networks,
) -> SGD:
    """Returns SGD with momentum; decay of all variables, biases and norms included."""
    del networks
    return SGD(learning_rate, momentum, nesterov, weight_decay)


@gin.configurable
def adam(
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    *,
    learning_rate: Schedule,
    networks: Networks,
) -> keras.optimizers.Optimizer:
    """Returns Adam; with `weight_decay`, AdamW with decoupled decay of kernels only."""
    optimizer = keras.optimizers.Adam(
        learning_rate, beta_1, beta_2, epsilon, weight_decay=weight_decay or None
    )
    return _decay_kernels_only(optimizer, networks)


@gin.configurable
def lamb(
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-6,
    weight_decay: float = 0.0,
    *,
    learning_rate: Schedule,
    networks: Networks,
) -> keras.optimizers.Optimizer:
    """Returns LAMB as in Keras: every variable adapted, decoupled decay of kernels only."""
    optimizer = keras.optimizers.Lamb(
        learning_rate, beta_1, beta_2, epsilon, weight_decay=weight_decay or None
    )
    return _decay_kernels_only(optimizer, networks)


@dataclasses.dataclass(frozen=True)
class RoleCount:
    """The trainable variables of one role, and whether they are decayed (LARS: and adapted)."""

    role: str
    adapted: bool
    variables: int
    parameters: int

    def __str__(self) -> str:
        state = "adapted" if self.adapted else "excluded"
        return f"{self.role}: {self.variables} variables, {self.parameters:,} parameters, {state}"


def excluded_roles(optimizer: keras.optimizers.Optimizer) -> tuple[str, ...]:
    """Returns the roles of variables that an optimizer of this module does not decay."""
    return () if isinstance(optimizer, SGD) else EXCLUDED_ROLES


def exclusion_summary(
    networks: Networks, excluded: Sequence[str] = EXCLUDED_ROLES
) -> list[RoleCount]:
    """Counts adapted and excluded variables, one entry for each role that occurs."""
    roles = variable_roles(networks)
    summary = []
    for role in ROLES:
        sizes = [math.prod(v.shape) for v in networks.trainable_variables if roles[v.path] == role]
        if sizes:
            summary.append(RoleCount(role, role not in excluded, len(sizes), sum(sizes)))
    return summary


def excluded_variables(networks: Networks) -> list[keras.Variable]:
    """Returns the trainable variables that are neither decayed nor, by LARS, adapted."""
    roles = variable_roles(networks)
    return [v for v in networks.trainable_variables if roles[v.path] in EXCLUDED_ROLES]


def _decay_kernels_only(
    optimizer: keras.optimizers.Optimizer, networks: Networks
) -> keras.optimizers.Optimizer:
    optimizer.exclude_from_weight_decay(var_list=excluded_variables(networks))
    return optimizer
