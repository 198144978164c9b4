"""If this breaks, an example in a docstring does not do what it shows."""

import doctest
import importlib
import pathlib
import shutil

import pytest

OLD_RUN = pathlib.Path(__file__).resolve().parent / "old_runs" / "9d07d69" / "run.tar.xz"
EXAMPLES = {
    "simclr_tf.augment.policy": "Augmentation",
    "simclr_tf.distribute.batch_norm": "SyncBatchNormalization",
    "simclr_tf.export.loading": "load_encoder",
    "simclr_tf.objectives.margin_triplet": "MarginTriplet",
    "simclr_tf.objectives.nt_logistic": "NTLogistic",
    "simclr_tf.objectives.nt_xent": "NTXent",
    "simclr_tf.objectives.vicreg": "VICRegLoss",
    "simclr_tf.optim.lars": "LARS",
}


@pytest.fixture(autouse=True)
def saved_model(tmp_path, monkeypatch):
    """A SavedModel where the example looks for that of the quick start."""
    shutil.unpack_archive(OLD_RUN, tmp_path)
    folder = tmp_path / "runs" / "quickstart" / "saved_model"
    folder.mkdir(parents=True)
    (tmp_path / "run" / "saved_model" / "3").rename(folder / "313")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("module", EXAMPLES)
def test_an_example_gives_what_it_shows(module):
    loaded = importlib.import_module(module)
    example = getattr(loaded, EXAMPLES[module])
    [found] = [
        test
        for test in doctest.DocTestFinder(recurse=False).find(example, globs=vars(loaded).copy())
    ]
    assert found.examples
    result = doctest.DocTestRunner().run(found)
    assert result.failed == 0
