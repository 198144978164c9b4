"""If this breaks, a mistyped recipe trains something else than its owner asked for."""

import re

import gin
import pytest

from simclr_tf import config, jobs
from simclr_tf.data.dataset import data
from simclr_tf.errors import RequestError
from simclr_tf.objectives.nt_xent import nt_xent


@pytest.fixture(scope="module", autouse=True)
def registered():
    jobs.load()


def load_and_check(*bindings, files=("gin/base.gin",), roots=("pretrain",)):
    config.load(files, bindings)
    config.check(set(roots))


def test_base_recipe_passes():
    load_and_check()
    assert gin.query_parameter("nt_xent.temperature") == 0.1


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("resnet.dept = 18", "dept"),
        ("resnett.depth = 18", "resnett"),
        ("resnet.depth = ", "recipe does not load"),
        ("resnet.depth = '18'", "resnet.depth must be int. Received: resnet.depth='18'"),
        ("resnet.depth = 18.0", "resnet.depth must be int"),
        ("resnet.depth = True", "resnet.depth must be int"),
        ("pretrain.epochs = 'many'", "pretrain.epochs must be float or a @function"),
        ("pretrain.precision = 'float16'", "pretrain.precision must be 'auto' or 'float32' or"),
        ("pretrain.encoder = 50", "pretrain.encoder must be a @function"),
        ("pretrain.method = @resnet", "a @function of encoder, image_size, as @simclr is"),
        ("augmentation.area_range = (0.1, 'x')", "augmentation.area_range must be Sequence"),
        ("adam.beta_1 = 0.5", "Nothing uses adam.beta_1"),
        ("cached.max_iterations = 3", "Nothing uses cached.max_iterations"),
        ("UNUSED = 3", "macro UNUSED is set, but nothing refers to it"),
        ("resnet.depth = %gin.REQUIRED", "resnet.depth must be set"),
        ("pretrain.epochs = 1e999", "float or a @function, finite and at most 3.4e+38 in size"),
        ("nt_xent.temperature = 1e300", "nt_xent.temperature must be float, finite and at most"),
        ("nt_xent.temperature = -1e300", "nt_xent.temperature must be float, finite and at most"),
        (f"nt_xent.temperature = {10**400}", "nt_xent.temperature must be float, finite and at"),
        (f"projection_head.output_dim = {2**63}", "must be int or None, finite and at most 9.2"),
        ("augmentation.area_range = (0.1, 1e300)", "augmentation.area_range must be Sequence, fin"),
        (
            "pretrain.epochs = @resnet",
            "float or a @function: a @function of num_examples, as @epochs_by_count is",
        ),
        ("pretrain.epochs = @resnet()", "pretrain.epochs must be float or a @function"),
        ("pretrain.epochs = @augmentation()", "pretrain.epochs must be float or a @function"),
        ("pretrain.epochs = @lars", "a @function of num_examples, as @epochs_by_count is"),
        ("resnet.depth = @default_job()", "default_job"),
        ("resnet.depth = @run()", "resnet.depth must be int"),
        ("data.image_size = @resnet", "data.image_size must be int"),
        ("augmentation.area_range = (0.1, @resnet)", "augmentation.area_range must be Sequence"),
        ("pretrain.profile_steps = (1, 2, 3)", "pretrain.profile_steps must be tuple"),
    ],
)
def test_mistakes_are_named(binding, message):
    with pytest.raises(RequestError, match=re.escape(message)):
        load_and_check(binding)


def test_types_are_checked_through_macros():
    with pytest.raises(RequestError, match=r"resnet\.depth must be int"):
        load_and_check("DEPTH = 'deep'", "resnet.depth = %DEPTH")


def test_an_integer_is_a_float():
    load_and_check("pretrain.epochs = 3")


def test_a_binding_of_the_chosen_optimizer_is_used():
    load_and_check("pretrain.optimizer = @adam", "adam.beta_1 = 0.5", files=())


def test_a_replaced_default_is_no_longer_used():
    with pytest.raises(RequestError, match="Nothing uses lars"):
        load_and_check("pretrain.optimizer = @adam", "lars.eta = 0.5", files=())


def test_replacing_a_part_on_the_command_line_leaves_its_settings_in_the_recipe(tmp_path):
    recipe = tmp_path / "own.gin"
    recipe.write_text("include 'gin/base.gin'\nlars.eta = 0.5\n")
    load_and_check("pretrain.optimizer = @adam", files=(str(recipe),))
    with pytest.raises(RequestError, match="Nothing uses lars"):
        load_and_check("pretrain.optimizer = @adam", "lars.momentum = 0.5", files=(str(recipe),))


def test_the_recipe_of_one_job_serves_another():
    load_and_check("cached.max_iterations = 3", roots=("pretrain", "linear_eval"))


def test_bindings_win_over_files_and_later_files_over_earlier(tmp_path):
    first, second = tmp_path / "a.gin", tmp_path / "b.gin"
    first.write_text("include 'gin/base.gin'\nresnet.depth = 18\n")
    second.write_text("resnet.depth = 34\nnt_xent.temperature = 0.2\n")
    load_and_check("nt_xent.temperature = 0.3", files=(str(first), str(second)))
    assert gin.query_parameter("resnet.depth") == 34
    assert gin.query_parameter("nt_xent.temperature") == 0.3


def test_includes_work_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "own.gin").write_text("include 'gin/base.gin'\nresnet.depth = 18\n")
    load_and_check(files=("deep/own.gin",))
    assert gin.query_parameter("resnet.depth") == 18


def test_a_missing_recipe_says_so():
    with pytest.raises(RequestError, match="nowhere"):
        load_and_check(files=("gin/nowhere.gin",))


def test_an_unknown_job_suggests_the_nearest():
    config.load((), ())
    with pytest.raises(RequestError, match="Did you mean pretrain"):
        config.job_name("pretrian", tuple(jobs.MODULES))


def test_a_recipe_for_another_job_stands_on_one_with_a_job_of_its_own():
    """Fine-tuning what the quick start pretrained: its other settings may stay."""
    files = ("gin/quickstart.gin", "gin/finetune_10pct.gin")
    config.load(files, [])
    assert config.recipe_jobs() == {"quickstart", "finetune"}
    assert config.job_name(None, ["finetune"]) == "finetune"
    config.check({"pretrain", *config.recipe_jobs()})


def test_what_is_in_force_has_bindings_defaults_and_macros():
    load_and_check("TAU = 0.3", "nt_xent.temperature = %TAU", "lars.eta = 0.5")
    nt_xent()
    found = config.in_force()
    assert found["nt_xent.temperature"] == "0.3" and "TAU" not in found
    assert found["nt_xent.reduction"] == "'paper'"
    assert "lars.eta" not in found  # it was not called


def test_defaults_are_written_as_what_is_in_force_is():
    found = config.defaults()
    assert found["nt_xent.temperature"] == "0.1"
    assert found["pretrain.optimizer"] == "@lars"
    assert found["pretrain.microbatch_size"] == "None"
    assert found["pretrain.context"] is None  # there is none
    load_and_check("pretrain.optimizer = @lars")
    nt_xent()
    assert found.items() >= {k: v for k, v in config.in_force().items() if "nt_xent" in k}.items()


@pytest.mark.parametrize("name", ["caf\udce9 é", "a\nb", "a\r\n# \t%$@[{*?", "don't", "a\\b"])
def test_any_name_can_be_bound(name):
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    others = "data.image_size = 8  # don't\ndata.eval_split = ('x'  # isn't\n'y')"
    config.load([], [f"data.source = 'folder:{quoted}'", others])
    found = data(data_dir=None)
    assert found.spec == f"folder:{name}"
    assert (found.image_size, found.eval_split) == (8, "xy")


def test_every_job_builds_the_encoder_that_is_pretrained():
    name = "keras_application.name = 'MobileNetV2'"
    load_and_check("pretrain.encoder = @keras_application", name)
    for function in ("frozen_encoder", "train_classifier", "export"):
        assert str(gin.query_parameter(f"{function}.encoder")) == "@keras_application"
    own = "frozen_encoder.encoder = @resnet"
    load_and_check(
        "pretrain.encoder = @keras_application", name, own, roots=("pretrain", "linear_eval")
    )
    assert str(gin.query_parameter("frozen_encoder.encoder")) == "@resnet"
    load_and_check()
    with pytest.raises(ValueError):
        gin.query_parameter("frozen_encoder.encoder")
