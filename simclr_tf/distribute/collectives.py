"""Communication across replicas: the only module that uses TensorFlow's replica context.

Legend: B examples per replica, R replicas. Every function is the identity on one replica, so the
layers and losses that use them need no second code path, and a model traced outside a strategy
(for export) holds no collective op.

Gradients follow from one convention: the objective is the *sum* over replicas of their results. So
the gradient of a sum over replicas is a sum over replicas, and the gradient of `all_gather` is the
replica's own block of that sum. Keras' optimizers sum the variables' gradients in the same way.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from simclr_tf.distribute.lowering import traced_once
from simclr_tf.errors import InvalidArgument


def num_replicas() -> int:
    """Returns the number of replicas that run this code in step; 1 outside a replica function."""
    context = _context()
    return 1 if context is None else context.num_replicas_in_sync


def replica_id() -> int | tf.Tensor:
    """Returns this replica's index among `num_replicas()`: an int, or an int32 scalar on TPU."""
    context = _context()
    return 0 if context is None else context.replica_id_in_sync_group


def all_reduce_sum(x: Any) -> Any:
    """Sums a tensor, or each tensor of a structure, over the replicas, keeping shapes."""
    context = _context()
    return x if context is None else context.all_reduce(tf.distribute.ReduceOp.SUM, x)


def all_reduce_mean(x: Any) -> Any:
    """Averages a tensor, or each tensor of a structure, over the replicas, keeping shapes."""
    context = _context()
    return x if context is None else context.all_reduce(tf.distribute.ReduceOp.MEAN, x)


def all_gather(x: Any, axis: int = 0) -> Any:
    """Concatenates the replicas' tensors along `axis`, in the order of their ids.

    Args:
        x: A tensor, or a structure of tensors, of static shape, the same on every replica.
        axis: The axis to concatenate along, not negative.

    Returns:
        Like `x`, with the length of `axis` times `num_replicas()`, also of static shape.
    """
    context = _context()
    if context is None:
        return x
    gathered = context.all_gather(x, axis=axis)
    return tf.nest.map_structure(
        lambda local, out: tf.ensure_shape(
            out,
            [
                size * context.num_replicas_in_sync if i == axis else size
                for i, size in enumerate(local.shape)
            ],
        ),
        x,
        gathered,
    )


def gather_numbers(numbers: tf.Tensor) -> tf.Tensor:
    """Gathers int32 [B] to [R*B], as halves that float32 holds exactly: GPUs gather no int32."""
    halves = tf.stack([numbers // 2**16, numbers % 2**16])
    upper, lower = tf.unstack(all_gather(tf.cast(halves, tf.float32), axis=1))
    return tf.cast(upper, tf.int32) * 2**16 + tf.cast(lower, tf.int32)


def stack(x: tf.Tensor, groups: int = 1) -> tf.Tensor:
    """Stacks the small tensors of this replica's group by id: x [...] to [R / groups, ...].

    It sums blocks that are zero except for the replica's own: one collective of static shape. Where
    `all_gather` uses collective ops, it gathers shapes first, and waits for the GPU to do so.

    Args:
        x: The replica's tensor.
        groups: In how many groups of equal size, each of consecutive replicas, they stand.
    """
    context = _context()
    if context is None or groups == context.num_replicas_in_sync:
        return x[tf.newaxis]
    own = tf.one_hot(replica_id(), context.num_replicas_in_sync, dtype=x.dtype)
    # Not a matrix product, whose factors a GPU may round.
    everyone = all_reduce_sum(tf.reshape(own, [-1] + [1] * x.shape.rank) * x)
    if groups == 1:
        return everyone
    size = context.num_replicas_in_sync // groups
    return tf.gather(tf.reshape(everyone, [groups, size, *x.shape]), replica_id() // size)


def check_groups(setting: str, groups: int, images: int, replicas: int) -> None:
    """Raises InvalidArgument unless groups of equal size are parts of replicas, or several of them.

    Args:
        setting: Name of their number in a recipe.
        groups: Their number.
        images: Images of all groups.
        replicas: R.
    """
    if images % groups or (groups % replicas and replicas % groups):
        raise InvalidArgument(
            f"{setting} must divide the number of images, and it and the number of replicas must "
            f"divide each other. Received: {setting}={groups}, with {images:,} images on "
            f"{replicas} replicas. Set another number of groups, such as that of the replicas, or "
            "another batch."
        )


def group_mean(x: tf.Tensor, groups: int) -> tf.Tensor:
    """Averages a small tensor over this replica's group of `groups`, as in `stack`."""
    return all_reduce_mean(x) if groups == 1 else tf.reduce_mean(stack(x, groups), axis=0)


def usable_in_loops() -> bool:
    """Returns whether these functions may be called inside `tf.while_loop` here.

    MirroredStrategy and MultiWorkerMirroredStrategy synchronize the replicas in Python during
    tracing (`merge_call`), which TensorFlow forbids inside a loop of the graph. Where one trace
    stands for all replicas, no synchronization is needed.
    """
    context = _context()
    return context is None or traced_once(context.strategy)


def _context() -> tf.distribute.ReplicaContext | None:
    """Returns the replica context if there are several replicas, else None."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return None
    return context
