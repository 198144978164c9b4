"""MoCo v1 and v2: agreement with a slow encoder's keys against a queue of its earlier ones.

He et al., Momentum Contrast, https://arxiv.org/abs/1911.05722, and Chen et al., Improved Baselines
with Momentum Contrastive Learning, https://arxiv.org/abs/2003.04297. One view of an image passes
through the encoder and head that are trained, as query; the other one, as key, through copies of
them that follow by a moving average (section 3.2). The query is to find its key among those of
earlier batches. v2 is v1 with a head of two layers, blur, another temperature and a cosine: all of
them settings of a recipe.

The order of a step. The paper's algorithm 1 encodes queries and keys, updates the encoder, moves
the key encoder towards it, and then puts the keys into the queue. So does a step here: keys in
`targets`, the rest in `after_update`. The authors' code (facebookresearch/moco, builder.py) moves
the key encoder before it encodes keys, towards the encoder of before the update: the same sequence,
as that is what it moves towards here at the end of the step before, and at the start both encoders
are equal. The keys of a step are none of its negatives.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import gin
import keras
import tensorflow as tf

from simclr_tf.augment import keys as random_keys
from simclr_tf.augment.policy import Augmentation, augmentation
from simclr_tf.augment.views import ViewGroup
from simclr_tf.distribute import collectives
from simclr_tf.distribute.batch_norm import normalizes_batches, separate_statistics
from simclr_tf.errors import InvalidArgument
from simclr_tf.methods.base import Method, Tensors
from simclr_tf.methods.contrastive import encoder_and_head
from simclr_tf.methods.contrastive_rules import temperature_fault
from simclr_tf.methods.followers import follow, followers_of
from simclr_tf.methods.memory_bank import random_directions
from simclr_tf.methods.moco_rules import SHARED_STATISTICS, moco_rules, outdated_keys
from simclr_tf.methods.rules import DEAD_ENCODER, LABELS_LEAKING, Chain, Finding
from simclr_tf.metrics import Metric
from simclr_tf.models.heads import last_projection, plain_projection_head
from simclr_tf.models.networks import Networks
from simclr_tf.objectives.info_nce import InfoNCE, info_nce
from simclr_tf.objectives.projections import normalized, own_columns
from simclr_tf.objectives.view_metrics import METRICS

KEY_PREFIX = "key_"


@dataclasses.dataclass(frozen=True, eq=False)
class MoCo(Method):
    """Momentum contrast, in one direction: view 1 gives queries, view 2 keys.

    Keys of a batch must not share statistics of batch normalization with its queries: these would
    show which key is of the same batch, and no key of the queue is (section 3.3). So batch
    normalization takes statistics of parts of the batch, and keys are encoded in another order, as
    on the 8 GPUs of the paper; but here there are as many parts on any number of replicas. Each
    replica receives all images of view 2, as in the authors' code.

    Attributes:
        networks: "encoder" and "projection_head", as for `Contrastive`.
        followers: "key_encoder" and "key_projection_head".
        state: "queue" [K, P] float32, keys of length 1, the newest first; "batches", int32: how
            many batches' keys have entered it.
        objective: The loss of queries.
        momentum: Share of its weights that the key encoder keeps in an update.
        groups: Parts of the batch with statistics of their own; 1 normalizes the batch as a whole,
            which leaks (see `faults`).
    """

    objective: InfoNCE
    momentum: float
    groups: int

    name = "MoCo"
    metrics = (Metric("contrastive_loss", "contrastive loss"), *METRICS)

    @property
    def embedded_views(self) -> int:
        return 1

    @property
    def embedded_specs(self) -> Mapping[str, tf.TensorSpec]:
        return {"queries": tf.TensorSpec([1, self.state["queue"].shape[1]])}

    @property
    def target_specs(self) -> Mapping[str, tf.TensorSpec]:
        return {"keys": tf.TensorSpec([1, self.state["queue"].shape[1]])}

    @property
    def queue_size(self) -> int:
        """K, the number of keys in the queue."""
        return self.state["queue"].shape[0]

    def targets(self, batch: Tensors) -> Tensors:
        _, images = tf.split(batch["images"], 2)
        if self.groups == 1:
            return {"keys": normalized(self._projected(self.followers, images, training=True)[1])}
        # The encoder begins with this cast, and half as many bytes travel.
        dtype = self.followers[KEY_PREFIX + "encoder"].compute_dtype
        everyone = collectives.all_gather(tf.cast(images, dtype))
        order = _permutation(self.state["batches"], everyone.shape[0])
        own, _ = own_columns(images.shape[0])
        shuffled = tf.gather(everyone, tf.gather(order, own))
        _, keys = self._projected(self.followers, shuffled, training=True)
        places = tf.gather(tf.math.invert_permutation(order), own)
        return {"keys": tf.gather(collectives.all_gather(normalized(keys)), places)}

    def embed(self, batch: Tensors, training: bool) -> Tensors:
        images, _ = tf.split(batch["images"], 2)
        representation, queries = self._projected(self.networks, images, training)
        return {"representation": representation, "queries": queries}

    def loss(self, embedded: Tensors, targets: Tensors) -> tuple[tf.Tensor, Tensors]:
        queue = tf.convert_to_tensor(self.state["queue"])
        return self.objective(embedded["queries"], targets["keys"], queue)

    def after_update(self, step: keras.Variable, inputs: Tensors) -> None:
        follow(self.followers, self.networks, self.momentum)
        queue, batches = self.state["queue"], self.state["batches"]
        keys = collectives.all_gather(inputs["keys"])
        queue.assign(tf.concat([keys, tf.convert_to_tensor(queue)], axis=0)[: self.queue_size])
        batches.assign(batches + 1)

    def check(
        self, *, num_examples: int, global_batch: int, microbatch: int, replicas: int
    ) -> None:
        _check_queue(self.queue_size, global_batch, num_examples)
        collectives.check_groups("moco.batch_norm_groups", self.groups, microbatch, replicas)

    def expected(self, global_batch: int) -> tuple[float, float]:
        return self.objective.chance(self.queue_size), self.objective.floor(self.queue_size)

    def faults(self) -> Sequence[Finding]:
        leaks = self.groups == 1 and any(map(normalizes_batches, self.networks.values()))
        shared = SHARED_STATISTICS if leaks else None
        found = (temperature_fault(self.objective.temperature), shared)
        return [fault for fault in found if fault]

    def rules(self) -> Sequence[Chain]:
        outdated = outdated_keys(self.queue_size, self.momentum)
        learning = () if self.faults() else moco_rules(self.queue_size, self.metrics[0])
        return (LABELS_LEAKING,), (outdated,), (DEAD_ENCODER, *learning)

    def exported(self) -> Mapping[str, keras.Model]:
        return self.networks

    def plan_lines(self, global_batch: int) -> Mapping[str, str]:
        parts = "of the whole batch" if self.groups == 1 else f"of {self.groups} parts of the batch"
        return {
            "loss": f"InfoNCE, temperature {self.objective.temperature:g}, {self.queue_size:,} "
            f"negatives of the last {-(-self.queue_size // global_batch):,} batches",
            "key encoder": f"momentum {self.momentum:g}, statistics {parts}",
        }

    def words(self, numbers: Mapping[str, float]) -> str:
        return (
            f"contrastive loss {numbers['contrastive_loss']:.3f} "
            f"(chance {numbers['loss_chance']:.2f}), top-1 {numbers['contrastive_top1']:.1%}"
        )

    def _projected(
        self, networks: Networks, images: tf.Tensor, training: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns representation [B, D] and projection [B, P] of images."""
        encoder, head = networks.values()
        with separate_statistics(self.groups):
            representation = encoder(images, training=training)["final_avg_pool"]
            projections = head(representation, training=training)
        return representation, last_projection(projections)


@gin.configurable(denylist=["encoder", "image_size"])
def moco(
    *,
    augmentation: Callable[[], Augmentation] = augmentation,
    projection_head: Callable[..., keras.Model] = plain_projection_head,
    loss: Callable[[], InfoNCE] = info_nce,
    queue_size: int = 65_536,
    momentum: float = 0.999,
    batch_norm_groups: int = 8,
    encoder: Callable[..., keras.Model],
    image_size: int,
) -> MoCo:
    """Builds the networks of MoCo, in the scope and precision of the caller.

    Args:
        augmentation: How both views of an image are made.
        projection_head: Builds the network that is discarded, from `input_dim`.
        loss: Returns the loss of queries.
        queue_size: K, how many keys are negatives: at least a batch of them, and at most as many as
            there are images. A small data set needs fewer than ImageNet.
        momentum: Share of its weights that the key encoder keeps in an update.
        batch_norm_groups: Parts of the batch, or micro-batch, whose batch normalization has
            statistics of its own, 8 as on the paper's 8 GPUs. It divides the batch; it and the
            number of replicas divide each other. With 1 they are those of the whole batch, of
            queries and keys alike, which leaks.
        encoder: Builds the network that is kept, from `image_size`.
        image_size: Side of the views in pixels.
    """
    if queue_size < 1 or not 0 <= momentum <= 1 or batch_norm_groups < 1:
        raise InvalidArgument(
            "moco needs queue_size >= 1, 0 <= momentum <= 1 and batch_norm_groups >= 1. Received: "
            f"queue_size={queue_size}, momentum={momentum}, batch_norm_groups={batch_norm_groups}."
        )
    networks = encoder_and_head(encoder, projection_head, image_size)
    copy = encoder_and_head(encoder, projection_head, image_size)
    dim = networks["projection_head"].outputs[-1].shape[-1]
    normal = keras.initializers.RandomNormal(stddev=1.0)
    return MoCo(
        networks,
        [ViewGroup("images", [augmentation()] * 2, image_size)],
        followers=followers_of(networks, copy, KEY_PREFIX),
        state={
            "queue": random_directions("queue", queue_size, dim, normal),
            "batches": keras.Variable(0, dtype="int32", trainable=False, name="batches"),
        },
        objective=loss(),
        momentum=momentum,
        groups=batch_norm_groups,
    )


def _permutation(number: keras.Variable, count: int) -> tf.Tensor:
    """Returns a permutation of `count`, int32, that depends on `number` alone."""
    places = tf.range(count)
    keys = random_keys.example_keys(0, tf.convert_to_tensor(number), places, 0)
    return tf.argsort(random_keys.uniform(keys, 0, 1)[:, 0], stable=True)


def _check_queue(queue_size: int, global_batch: int, num_examples: int) -> None:
    if queue_size < global_batch:
        raise InvalidArgument(
            "moco.queue_size must be at least the batch, whose keys all enter the queue. Received: "
            f"queue_size={queue_size:,}, with batches of {global_batch:,}. Set a larger queue."
        )
    if queue_size > num_examples:
        raise InvalidArgument(
            "moco.queue_size must be at most the number of images, or keys are more than an epoch "
            "old, and each image has an old key of its own among the negatives. Received: "
            f"queue_size={queue_size:,}, with {num_examples:,} images. Set a smaller queue, such "
            "as 4,096 for CIFAR-10."
        )
