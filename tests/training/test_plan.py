"""If this breaks, the plan hides which images and classes a run is about to train on."""

from types import SimpleNamespace

import numpy as np

from simclr_tf.data.source import ArraySource
from simclr_tf.models.networks import Networks
from simclr_tf.training.plan import Plan, plan_text
from simclr_tf.training.stages import Stage


def lines(**fields):
    count = 30
    source = ArraySource(
        name="folder:a\nb",
        num_examples=count,
        images=np.zeros([count, 8, 8, 3], np.uint8),
        **{"class_names": None, **fields},
    )
    numbers = {"num_replicas": 1, "global_batch_size": 4, "total_steps": 9, "warmup_steps": 1}
    words = ["strategy", "computation", "optimizer", "precision", "rate_words", "not_decayed"]
    sizes = {"image_size": 8, "epochs": 1.0, "peak_learning_rate": 1.0}
    stages = [Stage(9, SimpleNamespace(groups=[]))]
    plan = Plan(source=source, stages=stages, **numbers, **dict.fromkeys(words, ""), **sizes)
    return plan.lines(Networks({}), {})


def test_classes_are_counted_and_those_beyond_ten_too():
    labels = np.arange(30) % 12
    labels[0] = -1
    found = lines(class_names=[f"c{i}" for i in range(12)], labels=labels)
    assert found["classes"] == "c0 2, " + ", ".join(f"c{i} 3" for i in range(1, 6)) + (
        ", c6 2, c7 2, c8 2, c9 2 and 2 more"
    )
    assert found["data"] == r"folder:a\nb, 30 images, 12 classes"


def test_what_is_left_out_and_assumed_is_told_on_a_line_each():
    found = lines(
        left_out={".webp": 30, "links that lead outside": 2, ".tif": 30}, notes=["a", "b"]
    )
    assert found["left out"] == "30 .tif, 30 .webp, 2 links that lead outside"
    assert found["note"] == "a; b" and "classes" not in found
    assert len(plan_text(found).splitlines()) == len(found)


def test_nothing_is_said_where_there_is_nothing():
    assert not {"classes", "left out", "note"} & lines().keys()
