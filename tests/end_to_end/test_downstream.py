"""If this breaks, what is said of an encoder is not what it is worth, or a wrong request runs."""

import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simclr_tf import run

pytestmark = pytest.mark.slow

COLOURS = {"blue": (40, 60, 200), "green": (40, 200, 60), "red": (200, 40, 60)}
RECIPE = """
include 'gin/base.gin'
data.source = 'folder:'
data.image_size = 16
resnet.depth = 6
resnet.width_multiplier = 0.125
projection_head.output_dim = 16
augmentation.policy = [('flip', 0.5), ('blur', 0.5)]
pretrain.global_batch_size = 12
pretrain.epochs = 2.0
pretrain.precision = 'float32'
train_classifier.global_batch_size = 12
train_classifier.epochs = 4.0
train_classifier.precision = 'float32'
"""
# Jobs that share train_classifier, so that a recipe with its settings is one of theirs.
TRAINS = {"finetune", "supervised", "sgd"}


class Labelled:
    """Pictures of three colours, an encoder pretrained on them, and the jobs in this process."""

    def __init__(self, folder):
        self.folder = folder
        self.photos = folder / "photos"
        rng = np.random.default_rng(0)
        for split, count in (("train", 12), ("test", 7)):
            for name, colour in COLOURS.items():
                place = self.photos / split / name
                place.mkdir(parents=True)
                for i in range(count):
                    noise = rng.integers(-40, 40, (16, 16, 3))
                    pixels = np.clip(noise + colour, 0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(place / f"{i}.png")
        (folder / "recipe.gin").write_text(
            "\n".join(x for x in RECIPE.splitlines() if "train_classifier" not in x)
        )
        (folder / "trains.gin").write_text(RECIPE)

    def run(self, job, model_dir, *bindings, preset=None, data=None, path="pretrained") -> int:
        trains = (preset or job) in TRAINS
        bindings = list(bindings)
        if path and job not in ("pretrain", "supervised"):
            bindings.append(f"pretrained.path = {str(self.folder / path)!r}")
        if preset:
            bindings.append(f"linear_eval.preset = @{preset}")
        return run.main(
            [
                f"--gin_file={self.folder / ('trains.gin' if trains else 'recipe.gin')}",
                f"--job={job}",
                f"--data_dir={data or self.photos}",
                f"--model_dir={self.folder / model_dir}",
                "--tpu=none",
                *(f"--gin_bindings={b}" for b in bindings),
            ]
        )

    def result(self, model_dir, job) -> dict:
        return json.loads((self.folder / model_dir / "results" / f"{job}.json").read_text())

    def weights(self, model_dir, group) -> dict[str, bytes]:
        """The bytes of a group's variables in the newest checkpoint."""
        newest = max((self.folder / model_dir / "checkpoints").iterdir())
        reader = tf.train.load_checkpoint(str(newest / "variables"))
        names = [n for n in reader.get_variable_to_shape_map() if n.startswith(f"{group}/")]
        return {n: reader.get_tensor(n).tobytes() for n in names}


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Labelled:
    made = Labelled(tmp_path_factory.mktemp("labelled"))
    assert made.run("pretrain", "pretrained") == 0
    return made


def check(result, top1):
    assert result["numbers"]["top1"] >= top1
    assert result["numbers"]["top5"] == 1.0
    assert result["n"]["test"] == 21
    assert {"protocol", "checkpoint", "seed", "versions", "data"} <= result.keys()


def test_linear_evaluation_of_kept_features(labelled):
    assert labelled.run("linear_eval", "pretrained") == 0
    result = labelled.result("pretrained", "linear_eval")
    check(result, 0.9)
    assert result["preset"] == "cached" and result["n"]["train"] == 36
    assert len(list((labelled.folder / "pretrained" / "features").iterdir())) == 2


def test_linear_evaluation_by_sgd_leaves_every_byte_of_the_encoder(labelled):
    before = labelled.weights("pretrained", "encoder")
    assert labelled.run("linear_eval", "sgd", preset="sgd") == 0
    assert labelled.weights("sgd", "encoder") == before
    result = labelled.result("sgd", "linear_eval")
    check(result, 0.0)
    assert result["preset"] == "sgd" and result["checkpoint"]["step"] == 7


@pytest.mark.parametrize(
    ("bindings", "groups"),
    [
        (["finetune.frozen_groups = -1"], 0),
        (["finetune.frozen_groups = 2", "finetune.label_share = 0.5"], 3),
        (["finetune.from_layer = 'projection_1'", "train_classifier.optimizer = @lars"], 0),
    ],
)
def test_fine_tuning_trains_what_is_not_frozen(labelled, bindings, groups, request, capfd):
    model_dir = f"finetuned-{request.node.callspec.indices['bindings']}"
    assert labelled.run("finetune", model_dir, *bindings) == 0
    before, after = (labelled.weights(d, "encoder") for d in ("pretrained", model_dir))
    frozen = ("encoder/stem", "encoder/block_group1", "encoder/block_group2")[:groups]
    for name, value in before.items():
        assert (after[name] == value) == name.startswith(frozen), name
    result = labelled.result(model_dir, "finetune")
    check(result, 0.3)
    assert result["n"]["train"] == (18 if groups else 36)
    assert [part["split"] for part in result["splits"].values()] == ["train", "test"]
    [warning] = result["warnings"]
    steps = 7 if groups else 13
    assert f"training of {steps} steps" in warning
    printed = capfd.readouterr()
    assert f"warning: {warning}" in printed.out and warning in printed.err


def test_a_classifier_is_served_as_it_was_counted(labelled):
    assert labelled.run("supervised", "supervised") == 0
    check(labelled.result("supervised", "supervised"), 0.3)
    [folder] = (labelled.folder / "supervised" / "saved_model").iterdir()
    classify = tf.saved_model.load(str(folder)).signatures["classify"]
    found = 0
    for label, name in enumerate(sorted(COLOURS)):
        files = sorted((labelled.photos / "test" / name).iterdir())
        images = np.stack([np.asarray(Image.open(f)) for f in files]).astype(np.float32) / 255
        logits = classify(tf.constant(images))["logits"].numpy()
        found += (logits.argmax(1) == label).sum()
    assert found / 21 == pytest.approx(
        labelled.result("supervised", "supervised")["numbers"]["top1"]
    )


def test_a_supervised_run_is_evaluated_as_any_other(labelled):
    assert labelled.run("supervised", "supervised-2") == 0
    assert labelled.run("linear_eval", "evaluated", path="supervised-2") == 0
    assert labelled.result("evaluated", "linear_eval")["checkpoint"]["step"] == 13


def test_a_saved_model_is_a_source_like_a_run(labelled):
    """The same numbers, and the same encoder, whichever of the two is named."""
    [folder] = (labelled.folder / "pretrained" / "saved_model").iterdir()
    assert labelled.run("linear_eval", "from-run") == 0
    assert labelled.run("linear_eval", "from-saved-model", path=folder) == 0
    run_result, saved_result = (
        labelled.result(d, "linear_eval") for d in ("from-run", "from-saved-model")
    )
    assert run_result["numbers"] == saved_result["numbers"]
    assert run_result["checkpoint"]["fingerprint"] == saved_result["checkpoint"]["fingerprint"]
    assert saved_result["checkpoint"]["step"] == 7
    assert labelled.run("linear_eval", "from-saved-model", "pretrained.step = 3", path=folder) == 2


@pytest.mark.parametrize(
    ("job", "options", "words"),
    [
        ("finetune", {"path": ""}, "needs a --model_dir of its own"),
        ("linear_eval", {"path": "", "preset": "sgd"}, "needs a --model_dir of its own"),
        ("linear_eval", {"path": "nowhere"}, "must be a complete checkpoint or a SavedModel"),
        ("linear_eval", {"data": "unlabelled"}, "needs labels"),
        ("finetune", {"data": "unlabelled"}, "needs labels"),
        ("finetune", {"bindings": ["finetune.from_layer = 'projection_9'"]}, "projection_9"),
        ("finetune", {"bindings": ["finetune.label_share = 0.0"]}, r"must be in (0, 1]"),
        ("linear_eval", {"bindings": ["frozen_encoder.layer = 'logits'"]}, "layer must be one of"),
        ("linear_eval", {"bindings": ["resnet.depth = 34"]}, "same architecture"),
        ("linear_eval", {"bindings": ["train_classifier.epochs = 1.0"]}, "Nothing uses"),
    ],
)
def test_wrong_requests_end_with_2_and_one_clear_message(labelled, capfd, job, options, words):
    options = dict(options)
    if options.get("data"):
        flat = labelled.folder / "unlabelled"
        if not flat.exists():
            flat.mkdir()
            Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(flat / "one.png")
        options["data"] = flat
    model_dir = "pretrained" if options.get("path") == "" else f"wrong-{job}"
    path = options.pop("path", "pretrained")
    assert labelled.run(job, model_dir, *options.pop("bindings", ()), path=path, **options) == 2
    error = capfd.readouterr().err
    error = error[error.index("error: ") :]
    assert words in error and "Traceback" not in error
    assert not (labelled.folder / f"wrong-{job}" / "checkpoints").exists()
