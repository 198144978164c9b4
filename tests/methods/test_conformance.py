"""If this breaks, a method is one thing on one replica, or before a restart, and another after it.

A new method is a line in `METHODS`.
"""

import functools

import keras
import numpy as np
import pytest

from simclr_tf import custom_gradients
from simclr_tf.augment.patches import shuffled_patches
from simclr_tf.augment.policy import augmentation
from simclr_tf.augment.views import ViewGroup
from simclr_tf.methods.byol import byol
from simclr_tf.methods.cpc import CPC, cpc
from simclr_tf.methods.dino import dino
from simclr_tf.methods.distillation import Distillation
from simclr_tf.methods.moco import moco
from simclr_tf.methods.pirl import pirl
from simclr_tf.methods.simclr import simclr
from simclr_tf.methods.supcon import supcon
from simclr_tf.methods.supervised import Supervised
from simclr_tf.methods.vicreg import vicreg
from simclr_tf.models.classifier import build_classifier
from simclr_tf.models.context import context_network
from simclr_tf.models.dino_heads import dino_projection_head, prototypes
from simclr_tf.models.heads import (
    linear_probe,
    mlp_projection_head,
    plain_projection_head,
    predictor,
    projection_head,
)
from simclr_tf.models.networks import Networks
from simclr_tf.models.patch_head import patch_projection_head
from simclr_tf.models.patches import patch_encoder
from simclr_tf.objectives.cpc import CPCLoss
from simclr_tf.objectives.margin_triplet import MarginTriplet
from simclr_tf.objectives.memory_nce import MemoryNCE
from simclr_tf.objectives.nt_logistic import NTLogistic
from simclr_tf.objectives.nt_xent import NTXent
from simclr_tf.objectives.sup_con import SupCon
from tests.methods import conformance
from tests.methods.made_up import FollowAtOnce, follow


def student(*, encoder, image_size) -> Distillation:
    """A classifier with another one as its teacher."""
    networks = classifier(encoder=encoder, image_size=image_size, head_layers=0).networks
    teacher = encoder(image_size=image_size)
    teacher.trainable = False
    fixed = {
        "teacher": keras.Model(teacher.inputs[0], teacher.output["final_avg_pool"]),
        "teacher_classifier": linear_probe(conformance.CLASSES, input_dim=6),
    }
    for i, variable in enumerate(v for model in fixed.values() for v in model.variables):
        variable.assign(np.random.default_rng(i).uniform(0.1, 1.0, variable.shape))
    views = ViewGroup("images", [conformance.AUGMENTATION()], image_size)
    return Distillation(
        networks, [views], fixed=Networks(fixed), temperature=2.0, label_weight=0.25
    )


def classifier(*, encoder, image_size, head_layers=1) -> Supervised:
    networks = build_classifier(
        encoder,
        functools.partial(projection_head, num_layers=2, output_dim=5),
        image_size=image_size,
        num_classes=conformance.CLASSES,
        head_layers=head_layers,
        zero_init=False,
        seed=0,
    )
    views = ViewGroup("images", [conformance.AUGMENTATION()], image_size)
    return Supervised(networks, [views])


def patches(*, encoder, image_size) -> CPC:
    """Grids of 3 x 3 patches; the first four images are compared with each other, and the last."""
    return cpc(
        augmentation=conformance.AUGMENTATION,
        context_network=functools.partial(context_network, 1, 4, 3),
        loss=lambda: CPCLoss(offsets=(1, 2), negative_groups=2),
        encoder=functools.partial(patch_encoder, 8, 4, encoder),
        image_size=image_size,
    )


METHODS = {
    "SimCLR": functools.partial(
        simclr,
        augmentation=conformance.AUGMENTATION,
        projection_head=functools.partial(projection_head, output_dim=5),
        loss=lambda: NTXent(0.5),
    ),
    "multi-crop": functools.partial(
        simclr,
        augmentation=conformance.AUGMENTATION,
        projection_head=functools.partial(projection_head, output_dim=5),
        loss=lambda: NTXent(0.5),
        small_views=3,
        small_augmentation=conformance.AUGMENTATION,
    ),
    "MoCo": functools.partial(
        moco,
        augmentation=conformance.AUGMENTATION,
        projection_head=functools.partial(plain_projection_head, output_dim=5),
        queue_size=32,
        momentum=0.8,
        batch_norm_groups=2,
    ),
    "SupCon": functools.partial(
        supcon,
        augmentation=conformance.AUGMENTATION,
        projection_head=functools.partial(projection_head, output_dim=5),
        loss=lambda: SupCon(1.0),
    ),
    "VICReg": functools.partial(
        vicreg,
        augmentation=conformance.AUGMENTATION,
        projection_head=functools.partial(mlp_projection_head, 3, 6, 5),
    ),
    "BYOL": functools.partial(
        byol,
        augmentation=conformance.AUGMENTATION,
        projection_head=functools.partial(mlp_projection_head, 2, 7, 5),
        predictor=functools.partial(predictor, 2, 7),
        momentum=0.8,
    ),
    "DINO": functools.partial(
        dino,
        augmentation=conformance.AUGMENTATION,
        projection_head=functools.partial(dino_projection_head, 2, 7, 5, batch_norm=True),
        prototypes=functools.partial(prototypes, 9),
        small_views=3,
        small_augmentation=conformance.AUGMENTATION,
        momentum=0.8,
        first_teacher_temperature=0.05,
        teacher_temperature=0.07,
        warmup_share=0.5,
        freeze_share=0.2,
    ),
    "CPC": patches,
    "PIRL": functools.partial(
        pirl,
        augmentation=conformance.AUGMENTATION,
        patches=functools.partial(shuffled_patches, policy=(("flip", 0.5),), cell=10, patch=8),
        projection_head=functools.partial(plain_projection_head, 1, output_dim=5),
        patch_head=functools.partial(patch_projection_head, 2, 7, patch_dim=4, output_dim=5),
        loss=lambda: MemoryNCE(0.3, negatives=12),
    ),
    "supervised": classifier,
    "distillation": student,
    "made up": functools.partial(follow, augmentation=conformance.AUGMENTATION),
}


@pytest.fixture(scope="module", params=METHODS)
def method(request) -> conformance.Factory:
    return METHODS[request.param]


@pytest.fixture(scope="module")
def alone(method, tmp_path_factory) -> conformance.Trained:
    """A method's single replica, trained once for all that is compared with it."""
    with custom_gradients.forgotten():
        return conformance.trained_alone(method, tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("replicas", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_replicas_train_as_one_does(alone, replicas):
    conformance.check_replicas(alone, replicas)


def test_a_run_goes_on_bit_for_bit(alone):
    conformance.check_resume(alone)


def test_a_step_is_for_tpus(method):
    conformance.check_lowering(method)


@pytest.mark.parametrize("loss", [NTLogistic(semi_hard=True), MarginTriplet(normalize=False)])
def test_a_step_of_the_other_losses_is_for_tpus(loss):
    """With small views, and ops on one branch."""
    pair = functools.partial(augmentation, policy=(("crop", 0.5), ("sobel", 0.5)))
    conformance.check_lowering(
        functools.partial(
            METHODS["multi-crop"],
            augmentation=pair,
            other_augmentation=conformance.AUGMENTATION,
            loss=lambda: loss,
        )
    )


@pytest.mark.slow
@pytest.mark.usefixtures("virtual_devices")
def test_pjrt_devices_train_as_one_of_tensorflow_does(alone):
    conformance.check_pjrt(alone)


@pytest.mark.slow
@pytest.mark.usefixtures("virtual_devices")
def test_pjrt_devices_take_parts_and_keep_averages(tmp_path):
    simclr = conformance.without_batch_statistics(METHODS["SimCLR"])
    in_parts = conformance.trained_alone(simclr, tmp_path, microbatch_size=4, average_decay=0.9)
    conformance.check_pjrt(in_parts, steps=1)


def test_microbatches_are_the_whole_batch(method):
    conformance.check_microbatches(method)


def test_microbatches_are_refused_where_the_method_does_not_say_that_it_can():
    at_once = functools.partial(METHODS["made up"], method=FollowAtOnce)
    conformance.check_microbatches(at_once)


def test_what_is_saved_and_what_is_trained(alone):
    conformance.check_variables(alone)


def test_what_is_fixed_stays(alone):
    conformance.check_what_is_fixed(alone)


def test_the_encoder_is_exported(alone, tmp_path):
    conformance.check_export(alone, tmp_path)


def test_metrics_are_declared_and_shared(method):
    conformance.check_metrics(method)
