"""If this breaks, SimCLR passes other views through other networks, or tells other numbers."""

import functools
import math

import gin
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment.policy import augmentation
from simclr_tf.data.bad_images import BadImages
from simclr_tf.data.pipeline import ViewsPipeline
from simclr_tf.data.source import ArraySource
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.methods.simclr import SimCLR, simclr
from simclr_tf.models.heads import projection_head
from simclr_tf.models.resnet import resnet
from simclr_tf.objectives.margin_triplet import MarginTriplet
from simclr_tf.objectives.nt_logistic import NTLogistic
from simclr_tf.objectives.nt_xent import NTXent
from tests.support.small_resnet import SMALL_DEPTH


def build(
    head: str = "nonlinear", temperature: float = 0.5, reduction: str = "paper", loss=None
) -> SimCLR:
    return simclr(
        projection_head=functools.partial(projection_head, head, output_dim=5),
        loss=lambda: loss or NTXent(temperature, reduction),
        encoder=functools.partial(resnet, depth=SMALL_DEPTH, width_multiplier=0.125),
        image_size=32,
    )


@pytest.fixture
def method() -> SimCLR:
    return build()


def batch(count: int = 4) -> dict[str, tf.Tensor]:
    images = np.random.default_rng(0).uniform(size=(2 * count, 32, 32, 3)).astype(np.float32)
    return {
        "images": tf.constant(images),
        "labels": tf.constant([0, 1, 2, 1][:count]),
        "index": tf.range(count),
    }


def test_what_is_built(method):
    assert list(method.networks) == ["encoder", "projection_head"]
    assert list(method.exported()) == ["encoder", "projection_head"]
    [group] = method.views
    assert (group.name, group.count, group.size) == ("images", 2, 32)
    assert group.augmentations[0] == group.augmentations[1]
    assert (method.followers, method.fixed, method.state) == ({}, {}, {})


def test_gin_binds_its_parts():
    gin.parse_config("nt_xent.temperature = 0.25\nprojection_head.output_dim = 7")
    gin.parse_config("augmentation.area_range = (0.5, 1.0)")
    built = simclr(encoder=functools.partial(resnet, 18, 0.125), image_size=32)
    assert built.objective == NTXent(0.25)
    assert built.embedded_specs["projection"].shape == (2, 7)
    assert built.views[0].augmentations[0] == augmentation()


def test_ops_on_one_branch():
    """Figure 5: the other branch is the identity, so its view is the image itself."""
    gin.parse_config("""
        augmentation.random_crop = False
        augmentation.policy = [('crop', 1.0), ('color_jitter', 1.0, 0.5)]
        simclr.other_augmentation = @other/augmentation
        other/augmentation.policy = []
    """)
    method = build()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    source = ArraySource(
        name="arrays", num_examples=8, class_names=None, images=pixels, labels=None
    )
    pipeline = ViewsPipeline(
        source=source, groups=method.views, seed=0, bad_images=BadImages(source)
    )
    host = HostSlice(index=0, num_hosts=1, replicas=1, per_replica=8)
    batch = pipeline.with_views(next(iter(pipeline.dataset(host, start_step=0))))
    changed, same = np.split(batch["images"].numpy(), 2)
    images = tf.gather(pixels, batch["index"]).numpy() / 255
    np.testing.assert_allclose(same, images, atol=1e-6)
    assert (np.abs(changed - images).mean(axis=(1, 2, 3)) > 0.02).all()
    lines = method.plan_lines(16)
    assert lines["view 1"] == "central square, crop 1 x 1, color_jitter 1 x 0.5"
    assert lines["view 2"] == "central square"


def test_embed(method):
    embedded = method.embed(batch(), training=True)
    outputs = [embedded["representation"], embedded["projection"]]
    assert [tuple(out.shape) for out in outputs] == [(8, 64), (8, 5)]
    assert all(out.dtype == tf.float32 for out in outputs)


def test_small_views_pass_by_themselves():
    gin.parse_config("small/augmentation.area_range = (0.1, 0.3)")
    gin.parse_config("simclr.small_views = 3\nsimclr.small_augmentation = @small/augmentation")
    method = build()
    large, small = method.views
    assert (large.count, large.size, small.name, small.count, small.size) == (2, 32, "small", 3, 16)
    assert small.augmentations[0].area_range == (0.1, 0.3)
    assert large.augmentations[0] == augmentation()
    images = tf.random.stateless_uniform([12, 16, 16, 3], (0, 1))
    embedded = method.embed(batch() | {"small": images}, training=False)
    assert embedded["representation"].shape == (20, 64)
    assert embedded["small_projection"].shape == (12, 5)
    assert {n: s.shape[0] for n, s in method.embedded_specs.items()} == {
        "projection": 2,
        "small_projection": 3,
    }
    alone = method.networks["encoder"](images, training=False)["final_avg_pool"]
    np.testing.assert_allclose(embedded["representation"][8:], alone, rtol=1e-5)
    share, _ = method.loss(embedded, {"index": tf.range(4)})
    expected, _ = method.objective(
        embedded["projection"], tf.range(4), embedded["small_projection"]
    )
    assert share == expected != method.objective(embedded["projection"], tf.range(4))[0]


@pytest.mark.parametrize("bound", ["small_views = -1", "small_views = 2\nsimclr.small_size = 33"])
def test_small_views_are_small(bound):
    gin.parse_config(f"simclr.{bound}")
    with pytest.raises(ValueError, match=r"small_size from 1 to data\.image_size = 32"):
        build()


@pytest.mark.parametrize("kind", ["none", "linear"])
def test_embed_takes_the_last_projection(kind):
    method = build(kind)
    found = method.embed(batch(), training=False)["projection"]
    dim = 64 if kind == "none" else 5
    assert found.shape == (8, dim) and method.embedded_specs["projection"].shape == (2, dim)


def test_training_moves_the_statistics_and_inference_does_not(method):
    moving = [v for v in method.networks.variables if "moving" in v.name]
    before = [v.numpy() for v in moving]
    method.embed(batch(), training=False)
    assert all(np.array_equal(v, b) for v, b in zip(moving, before, strict=True))
    method.embed(batch(), training=True)
    assert not any(np.array_equal(v, b) for v, b in zip(moving, before, strict=True))


def test_the_loss_is_the_objectives(method):
    z = tf.random.stateless_normal([8, 5], [1, 2])
    index = tf.constant([3, 1, 3, 0])
    share, metrics = method.loss({"projection": z}, method.targets({"index": index}))
    expected, numbers = NTXent(0.5)(z, index)
    assert float(share) == float(expected)
    assert list(metrics) == list(numbers) == [m.name for m in method.metrics[1:]]


@pytest.mark.parametrize(("reduction", "factor"), [("paper", 1), ("reference", 2)])
def test_what_is_expected_of_the_loss_has_its_scale(reduction, factor):
    chance, floor = build(reduction=reduction).expected(16)
    assert chance == pytest.approx(factor * math.log(31))
    assert floor == pytest.approx(factor * math.log(1 + 30 * math.exp(-2)))


@pytest.mark.parametrize(
    ("temperature", "words"),
    [(0.01, "nearest negative alone"), (3.0, "count the same"), (0.1, None), (1.0, None)],
)
def test_a_temperature_that_nothing_is_learned_by_is_a_fault(temperature, words):
    """And the one fault that is told: that nothing is learned follows from it."""
    method = build(temperature=temperature)
    kinds = {rule.kind for chain in method.rules() for rule in chain}
    assert ("no learning" in kinds) == (words is None)
    if words is None:
        assert not method.faults()
    else:
        [fault] = method.faults()
        assert fault.kind == "temperature out of range" and words in fault.text


@pytest.mark.parametrize(
    ("recipe", "objective", "line"),
    [
        (
            "simclr.loss = @nt_logistic\nnt_logistic.semi_hard = True",
            NTLogistic(semi_hard=True),
            "NT-Logistic, temperature 0.1, the semi-hard one of 15 negatives per anchor",
        ),
        (
            "simclr.loss = @margin_triplet\nmargin_triplet.margin = 0.4",
            MarginTriplet(0.4),
            "margin triplet, margin 0.4, 15 negatives per anchor",
        ),
        (
            "nt_xent.normalize = False\nnt_xent.temperature = 10.0",
            NTXent(10.0, normalize=False),
            "NT-Xent, temperature 10, 30 negatives per anchor, projections not normalized",
        ),
        (
            "nt_xent.one_view_negatives = True",
            NTXent(one_view_negatives=True),
            "NT-Xent, temperature 0.1, 15 negatives per anchor",
        ),
    ],
)
def test_gin_chooses_among_the_losses_of_the_papers_tables(recipe, objective, line):
    gin.parse_config(recipe)
    method = simclr(encoder=functools.partial(resnet, 18, 0.125), image_size=32)
    assert method.objective == objective
    assert method.plan_lines(16) == {"loss": line}
    assert not method.faults()
    kinds = {rule.kind for chain in method.rules() for rule in chain}
    assert {"collapse", "identical views"} <= kinds
    # Only of NT-Xent is known how far a run that learns comes.
    assert ("no learning" in kinds) == isinstance(objective, NTXent)


def test_a_loss_whose_chance_is_its_floor_has_neither():
    method = build(loss=MarginTriplet(0.0))
    assert method.expected(16) is None
    numbers = {"contrastive_loss": 0.5, "contrastive_top1": 0.625}
    assert method.words(numbers) == "contrastive loss 0.500, top-1 62.5%"


def test_the_plan_and_the_progress_in_words(method):
    assert method.plan_lines(16) == {"loss": "NT-Xent, temperature 0.5, 30 negatives per anchor"}
    numbers = {"contrastive_loss": 3.0, "loss_chance": 5.5, "contrastive_top1": 0.625}
    assert method.words(numbers) == "contrastive loss 3.000 (chance 5.50), top-1 62.5%"
