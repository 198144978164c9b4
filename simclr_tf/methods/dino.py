"""DINO: a slow copy's distribution over prototypes, guessed from other and smaller views.

Caron et al., Emerging Properties in Self-Supervised Vision Transformers,
https://arxiv.org/abs/2104.14294, for ResNets. Student and teacher are an encoder, a projection head
and prototypes. The teacher sees the two large views of an image alone; its logits are centred by
their moving mean and sharpened by a low temperature (section 3.1). As in the authors' code
(facebookresearch/dino, main_dino.py and utils.py), all views of one resolution pass the encoder
together, the teacher normalizes by the statistics of its batch, the prototypes have no gradient at
first, and the gradient of each variable is clipped by its own norm. The teacher's temperature rises
by steps of the run, not of epochs.

Two collapses balance each other: centring alone makes the teacher uniform, sharpening alone puts
everything on one prototype.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import gin
import keras
import tensorflow as tf

from simclr_tf.augment.policy import Augmentation, augmentation
from simclr_tf.distribute import collectives
from simclr_tf.errors import InvalidArgument
from simclr_tf.methods import contrastive
from simclr_tf.methods.base import Method, Tensors
from simclr_tf.methods.byol_rules import slow_target
from simclr_tf.methods.contrastive import encoder_and_head, view_lines
from simclr_tf.methods.dino_rules import COLLAPSES, fast_teacher
from simclr_tf.methods.followers import follow, followers_of, rising_momentum
from simclr_tf.methods.rules import DEAD_ENCODER, LABELS_LEAKING, Chain, Finding
from simclr_tf.metrics import Metric
from simclr_tf.models.dino_heads import dino_projection_head, prototypes
from simclr_tf.models.heads import last_projection
from simclr_tf.models.networks import Networks
from simclr_tf.objectives.dino import METRICS, DINOLoss, dino_loss

TEACHER_PREFIX = "teacher_"
# The result of `embed` for each group of views.
_LOGITS = {"images": "logits", "small": "small_logits"}


@dataclasses.dataclass(frozen=True)
class DINOSettings:
    """What changes in the course of a run.

    Attributes:
        momentum: Share of its weights that the teacher keeps in the first update.
        centre_momentum: Share of itself that the centre keeps in an update.
        temperatures: The teacher's temperature at first and after its warm-up.
        warmup: Share of the run in which the temperature changes.
        freeze: Share of the run in which the prototypes stay as they are.
        clip: Largest norm of a variable's gradient; None for any.
        total_steps: K, the updates of the run.
    """

    momentum: float
    centre_momentum: float
    temperatures: tuple[float, float]
    warmup: float
    freeze: float
    clip: float | None
    total_steps: int

    def __post_init__(self):
        shares = (self.momentum, self.centre_momentum, self.warmup, self.freeze)
        if not all(0 <= share <= 1 for share in shares):
            raise InvalidArgument(
                "dino needs momentum, centre_momentum, warmup_share and freeze_share from 0 to 1. "
                f"Received: momentum={self.momentum}, centre_momentum={self.centre_momentum}, "
                f"warmup_share={self.warmup}, freeze_share={self.freeze}."
            )
        if not all(t > 0 for t in self.temperatures) or (self.clip is not None and self.clip <= 0):
            raise InvalidArgument(
                "dino needs teacher temperatures and clip_norm above 0 (None clips nothing). "
                f"Received: temperatures={self.temperatures}, clip_norm={self.clip}."
            )


@dataclasses.dataclass(frozen=True, eq=False)
class DINO(Method):
    """A student that guesses how its slow copy sorts another view.

    Attributes:
        networks: "encoder" and "projection_head", as for `Contrastive`, and "prototypes", from
            projections [N, P] to logits [N, K].
        views: A group "images" of two views, and perhaps one "small" of smaller ones.
        followers: "teacher_encoder", "teacher_projection_head" and "teacher_prototypes".
        state: "centre" [K] float32, and "updates", their number so far, int32.
        objective: The loss.
        settings: What changes in the course of the run.
    """

    objective: DINOLoss
    settings: DINOSettings

    name = "DINO"
    metrics = (Metric("dino_loss", "DINO loss"), *METRICS)

    @property
    def embedded_specs(self) -> Mapping[str, tf.TensorSpec]:
        return {_LOGITS[v.name]: tf.TensorSpec([v.count, self._count]) for v in self.views}

    @property
    def target_specs(self) -> Mapping[str, tf.TensorSpec]:
        return {"teacher": tf.TensorSpec([2, self._count])}

    def targets(self, batch: Tensors) -> Tensors:
        _, logits = _through(self.followers, [batch["images"]], training=True)
        return {"teacher": logits}

    def embed(self, batch: Tensors, training: bool) -> Tensors:
        images = [batch[group.name] for group in self.views]
        h, logits = _through(self.networks, images, training)
        parts = tf.split(logits, [x.shape[0] for x in images])
        names = [_LOGITS[group.name] for group in self.views]
        return {"representation": h, **dict(zip(names, parts, strict=True))}

    def loss(self, embedded: Tensors, targets: Tensors) -> tuple[tf.Tensor, Tensors]:
        student = tf.concat([embedded[_LOGITS[group.name]] for group in self.views], axis=0)
        centre = tf.convert_to_tensor(self.state["centre"])
        temperature = self.temperature_after(tf.convert_to_tensor(self.state["updates"]))
        return self.objective(student, targets["teacher"], centre, temperature)

    def transform_gradients(
        self, step: keras.Variable, gradients: list[tf.Tensor]
    ) -> list[tf.Tensor]:
        frozen = {v.path for v in self.networks["prototypes"].trainable_variables}
        learning = step.value >= math.ceil(self.settings.freeze * self.settings.total_steps)
        found = []
        for variable, gradient in zip(self.networks.trainable_variables, gradients, strict=True):
            if self.settings.clip is not None:
                gradient = tf.clip_by_norm(gradient, self.settings.clip)
            if variable.path in frozen:
                gradient = tf.where(learning, gradient, tf.zeros_like(gradient))
            found.append(gradient)
        return found

    def after_update(self, step: keras.Variable, inputs: Tensors) -> None:
        settings = self.settings
        kept = rising_momentum(settings.momentum, step.value - 1, settings.total_steps)
        follow(self.followers, self.networks, kept)
        mean = collectives.all_reduce_mean(tf.reduce_mean(inputs["teacher"], axis=0))
        centre, share = self.state["centre"], settings.centre_momentum
        centre.assign(share * centre + (1.0 - share) * mean)
        self.state["updates"].assign(tf.cast(step.value, "int32"))

    def temperature_after(self, steps: tf.Tensor) -> tf.Tensor:
        """Returns the teacher's temperature after some updates: float32 scalar."""
        first, last = self.settings.temperatures
        updates = max(self.settings.warmup * self.settings.total_steps, 1.0)
        way = tf.minimum(tf.cast(steps, tf.float32) / updates, 1.0)
        return first + (last - first) * way

    def expected(self, global_batch: int) -> tuple[float, float]:
        return self.objective.chance(self._count), 0.0

    def faults(self) -> Sequence[Finding]:
        momentum = self.settings.momentum
        slow = slow_target("dino.momentum", momentum, self.settings.total_steps)
        return [fault for fault in (fast_teacher(momentum), slow) if fault]

    def rules(self) -> Sequence[Chain]:
        return (LABELS_LEAKING,), (DEAD_ENCODER, *COLLAPSES)

    def exported(self) -> Mapping[str, keras.Model]:
        return {name: self.networks[name] for name in ("encoder", "projection_head")}

    def plan_lines(self, global_batch: int) -> Mapping[str, str]:
        settings = self.settings
        first, last = settings.temperatures
        return {
            **view_lines(self.views[0]),
            "loss": f"DINO, {self._count:,} prototypes, T = {self.objective.temperature:g}",
            "teacher": f"momentum {settings.momentum:g}, rising to 1 in "
            f"{settings.total_steps:,} steps; T = {first:g} to {last:g}",
        }

    def words(self, numbers: Mapping[str, float]) -> str:
        return (
            f"DINO loss {numbers['dino_loss']:.3f} (chance {numbers['loss_chance']:.2f}), "
            f"entropy {numbers['teacher_entropy']:.2f}"
        )

    @property
    def _count(self) -> int:
        return self.networks["prototypes"].outputs[0].shape[-1]


@gin.configurable(denylist=["encoder", "image_size", "total_steps"])
def dino(
    *,
    augmentation: Callable[[], Augmentation] = augmentation,
    other_augmentation: Callable[[], Augmentation] | None = None,
    projection_head: Callable[..., keras.Model] = dino_projection_head,
    prototypes: Callable[..., keras.Model] = prototypes,
    loss: Callable[[], DINOLoss] = dino_loss,
    small_views: int = 0,
    small_size: int | None = None,
    small_augmentation: Callable[[], Augmentation] = augmentation,
    momentum: float = 0.996,
    centre_momentum: float = 0.9,
    first_teacher_temperature: float = 0.04,
    teacher_temperature: float = 0.04,
    warmup_share: float = 0.0,
    freeze_share: float = 0.01,
    clip_norm: float | None = 3.0,
    encoder: Callable[..., keras.Model],
    image_size: int,
    total_steps: int,
) -> DINO:
    """Builds the networks of DINO, in the scope and precision of the caller.

    Args:
        augmentation: How both large views of an image are made, or the first alone.
        other_augmentation: How the second large view is made, such as @other/augmentation; None
            for the same as the first.
        projection_head: Builds the head of both networks, from `input_dim`.
        prototypes: Builds the last layer of both networks, from `input_dim`.
        loss: Returns the loss: @dino_loss.
        small_views: Number of smaller views of each image, which the student alone sees.
        small_size: Side of the small views in pixels; None for half of `image_size`.
        small_augmentation: How small views are made, such as @small/augmentation whose
            `area_range` ends where that of large views begins.
        momentum: Share of its weights that the teacher keeps in the first update, from which it
            rises to 1 at the end of the run.
        centre_momentum: Share of itself that the centre keeps in an update.
        first_teacher_temperature: The teacher's temperature at the start.
        teacher_temperature: The teacher's temperature after its warm-up.
        warmup_share: Share of the run in which it goes from one to the other.
        freeze_share: Share of the run in which the prototypes have no gradient: an epoch of 100.
        clip_norm: Largest norm of each variable's gradient; None for any.
        encoder: Builds the network that is kept, from `image_size`.
        image_size: Side of the large views in pixels.
        total_steps: Updates of the whole run.
    """
    temperatures = (first_teacher_temperature, teacher_temperature)
    settings = DINOSettings(
        momentum, centre_momentum, temperatures, warmup_share, freeze_share, clip_norm, total_steps
    )
    views = [
        contrastive.two_views(augmentation, other_augmentation, image_size),
        *contrastive.small_views("dino", small_views, small_size, small_augmentation, image_size),
    ]
    student, copy = (
        _with_prototypes(encoder_and_head(encoder, projection_head, image_size), prototypes)
        for _ in range(2)
    )
    return DINO(
        student,
        views,
        followers=followers_of(student, copy, TEACHER_PREFIX),
        state=_state(student["prototypes"].outputs[0].shape[-1]),
        objective=loss(),
        settings=settings,
    )


def _state(count: int) -> dict[str, keras.Variable]:
    zeros = keras.ops.zeros([count])
    return {
        "centre": keras.Variable(zeros, dtype="float32", trainable=False, name="centre"),
        "updates": keras.Variable(0, dtype="int32", trainable=False, name="updates"),
    }


def _with_prototypes(networks: Networks, prototypes: Callable[..., keras.Model]) -> Networks:
    dim = networks["projection_head"].outputs[-1].shape[-1]
    return networks | Networks({"prototypes": prototypes(input_dim=dim)})


def _through(
    networks: Networks, images: list[tf.Tensor], training: bool
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns representations and logits of all views, after a pass of each resolution."""
    encoder, head, prototypes = networks.values()
    h = tf.concat([encoder(x, training=training)["final_avg_pool"] for x in images], axis=0)
    projections = head(h, training=training)
    return h, prototypes(last_projection(projections), training=training)
