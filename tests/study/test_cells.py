"""If this breaks, a study runs other cells than its recipe names."""

import itertools

import pytest

from simclr_tf.errors import RequestError
from simclr_tf.study.cells import share
from tests.study.conftest import make_study


def test_there_is_a_cell_for_each_label_of_every_axis_and_seed(tmp_path):
    study = make_study(tmp_path, seeds=(0, 1))
    cells = study.cells()
    grid = set(itertools.product(("0.1", "0.5"), ("64", "128", "256"), (0, 1)))
    assert {(*cell.labels, cell.seed) for cell in cells} == grid and len(cells) == len(grid)
    assert [cell.seed for cell in cells] == 6 * [0] + 6 * [1]  # all combinations first
    assert len({cell.name for cell in cells}) == len(cells)
    one = next(c for c in cells if c.labels == ("0.5", "64") and c.seed == 1)
    assert one.bindings == (
        "nt_xent.temperature = 0.5",
        "pretrain.global_batch_size = 64",
        "pretrain.seed = 1",
    )


def test_a_label_may_have_a_recipe(tmp_path):
    settings = ["gin/methods/byol_cifar10.gin", "pretrain.epochs = 2.0"]
    [cell] = make_study(tmp_path, axes={"method": {"BYOL": settings}}).cells()
    assert cell.recipes == ("gin/methods/byol_cifar10.gin",)
    assert cell.bindings == ("pretrain.epochs = 2.0", "pretrain.seed = 0")


def test_of_a_symmetric_study_one_triangle_is_run(tmp_path):
    labels = {name: [f"a.b = '{name}'"] for name in ("crop", "colour", "blur")}
    study = make_study(
        tmp_path,
        axes={"first": labels, "second": labels},
        symmetric=True,
        figure="heat_map",
        published={"crop": {"colour": 56.3, "crop": 33.1}, "colour": {"crop": 55.8}},
    )
    found = {frozenset(labels) for labels in study.combinations()}
    assert len(study.combinations()) == len(found) == 6
    assert study.published_number(("crop", "colour")) == pytest.approx((56.3 + 55.8) / 2)
    assert study.published_number(("crop", "crop")) == 33.1
    assert study.published_number(("crop", "blur")) is None


def test_parts_are_all_cells_once(study):
    parts = [share(study.cells(), (number, 4)) for number in range(1, 5)]
    assert sorted(c.name for part in parts for c in part) == sorted(c.name for c in study.cells())
    assert share(study.cells(), None) == study.cells()


@pytest.mark.parametrize("part", [(0, 4), (5, 4), (1, 0)])
def test_a_part_that_is_none_is_refused(study, part):
    with pytest.raises(RequestError, match="number of parts"):
        share(study.cells(), part)


ONE = {"a": {"x": ["b.c = 1"]}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"axes": {}}, r"\{axis: \{label"),
        ({"axes": {"a": {}}}, r"\{axis: \{label"),
        ({"axes": {"a": {"x": "b.c = 1"}}}, r"\{axis: \{label"),
        ({"axes": {"a": {"x y": [], "x/y": []}}}, "different folder names"),
        ({"axes": {"a": {"x" * 300: []}}}, "short and different"),
        ({"axes": ONE, "figure": "heat_map"}, "two axes for a heat map"),
        ({"axes": ONE, "symmetric": True}, "equal labels"),
        ({"axes": ONE, "published": {"y": 1.0}}, r"by the labels \['x'\]"),
        ({"axes": ONE, "published": {"x": {"y": 1.0}}}, "end in a number"),
        ({"seeds": ()}, "at least one seed"),
        ({"seeds": (1, 1)}, "each once"),
        ({"measure": "knn top1"}, "begin with one of pretrain, linear_eval"),
        ({"evaluations": ("watch",), "measure": "watch top1"}, "begin with one of pretrain"),
    ],
)
def test_a_wrong_definition_is_refused(tmp_path, changes, words):
    with pytest.raises(RequestError, match=words):
        make_study(tmp_path, **changes)


def test_a_folder_has_a_name_that_every_program_takes(tmp_path):
    study = make_study(tmp_path, axes={"a b": {"crop + [colour]/*?'é": []}})
    assert study.cells()[0].name == "a-b-crop-colour_seed-0"
