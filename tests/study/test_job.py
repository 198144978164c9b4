"""If this breaks, a wrong study starts, or its commands are not those of its cells."""

import shlex

import pytest

from simclr_tf import run

RECIPE = """
include 'gin/quickstart.gin'
run.job = 'study'
study.axes = {{
    'temperature': {{'0.1': ['nt_xent.temperature = 0.1'], '1': ['nt_xent.temperature = 1.0']}},
    'head': {{'none': ["projection_head.kind = 'none'"], 'other': ['{recipe}', '{binding}']}},
}}
study.evaluations = [@knn, @linear_eval]
knn.k = 20
"""


@pytest.fixture
def start(tmp_path):
    def started(*bindings, binding="projection_head.num_layers = 3", other=None, model_dir=None):
        recipe, of_the_cell = tmp_path / "study.gin", tmp_path / "other.gin"
        recipe.write_text(RECIPE.format(binding=binding, recipe=other or of_the_cell))
        of_the_cell.write_text("projection_head.output_dim = 64")
        given = [f"--gin_bindings={b}" for b in ("pretrain.epochs = 2.0", *bindings)]
        folder = model_dir or tmp_path / "study"
        return run.main([f"--gin_file={recipe}", f"--model_dir={folder}", "--tpu=none", *given])

    return started


def test_the_list_has_the_whole_command_of_each_cell(start, capsys, tmp_path):
    assert start("study.list = True", "study.seeds = (7,)", "study.part = (2, 2)") == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.strip().splitlines()]
    shared = [
        *("python", "-m", "simclr_tf.run", f"--gin_file={tmp_path / 'study.gin'}"),
        *("--gin_bindings=pretrain.epochs = 2.0", "--tpu=none"),
    ]
    wanted = []
    for temperature, label in (("0.1", "0.1"), ("1.0", "1")):
        cell = [
            f"--gin_file={tmp_path / 'other.gin'}",
            f"--gin_bindings=nt_xent.temperature = {temperature}",
            "--gin_bindings=projection_head.num_layers = 3",
            "--gin_bindings=pretrain.seed = 7",
            f"--model_dir={tmp_path}/study/cells/temperature-{label}_head-other_seed-7",
        ]
        pretrain, knn, linear = (
            [*shared, *cell, f"--job={job}"] for job in ("pretrain", "knn", "linear_eval")
        )
        wanted.append([*pretrain, "&&", *knn, "&&", *linear])
    assert lines == wanted
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("bindings", "changes", "words"),
    [
        ([], {"binding": "lars.nothing = 1"}, "The cell temperature-0.1_head-other_seed-0"),
        ([], {"binding": "sup_con.temperature = 1.0"}, "Nothing uses sup_con.temperature"),
        ([], {"other": "gin/absent.gin"}, "gin/absent.gin"),
        ([], {"binding": "pretrain.epochs = ()"}, "pretrain.epochs must be"),
        (["study.evaluations = [@lars]"], {}, "must name jobs"),
        (["study.evaluations = [@study]"], {}, "must name jobs"),
        (["study.minutes = 0.0"], {}, "must be positive"),
        (["study.part = (3, 2)"], {}, "number of parts"),
        ([], {"model_dir": "gs://bucket/study"}, "a folder of a file system"),
    ],
)
def test_a_wrong_study_is_refused_before_the_first_cell(
    start, capsys, tmp_path, bindings, changes, words
):
    assert start(*bindings, **changes) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "study").exists()
