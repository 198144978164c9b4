"""If this breaks, a folder is prepared or checked wrongly from the command line."""

import csv
import importlib
import pathlib
import sys

import pytest

from tests.support.scenes import file_of, scene, write

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "tools" / "prepare_dataset.py"


@pytest.fixture
def main(monkeypatch):
    monkeypatch.syspath_prepend(PROGRAM.parent)
    yield importlib.import_module("prepare_dataset").main
    sys.modules.pop("prepare_dataset", None)


@pytest.fixture
def photos(tmp_path):
    root = tmp_path / "photos"
    for n in range(12):
        write(root / f"{n}.jpg", file_of(scene(n), "JPEG", quality=95))
    return root


def test_a_folder_is_prepared_and_the_command_to_train_on_it_printed(main, photos, capsys):
    folder = photos.parent / "set"
    command = [f"folder:{photos}", f"--data_dir={folder}", "--processes=1", "--test_percent=25"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "test: 3 images, no labels" in out and "train: 9 images, no labels" in out
    assert f"\"data.source = 'tfrecord:{folder}/{{split}}-*.tfrecord'\"" in out
    assert main(command) == 0 and capsys.readouterr().out == out


def test_check_names_what_training_would_skip_with_reasons(main, photos, tmp_path, capsys):
    write(photos / "deep" / "webp.heic", file_of(scene(1), "WEBP"))
    write(photos / "heic.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
    write(photos / "cut.jpg", file_of(scene(2, (200, 150)), "JPEG")[:500])
    write(photos / "notes.txt", b"no image")
    write(photos / "test" / "empty.jpg", b"")
    table = tmp_path / "table.csv"
    assert main([f"folder:{photos}", "--check", f"--csv={table}", "--processes=2"]) == 1
    with table.open(newline="") as file:
        found = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert set(found) == {"deep/webp.heic", "heic.jpg", "cut.jpg", "test/empty.jpg"}
    assert "HEIC file named .jpg" in found["heic.jpg"] and "cut short" in found["cut.jpg"]
    assert "prepare" in found["deep/webp.heic"] and "empty" in found["test/empty.jpg"]
    assert "12 of 16 images decode" in capsys.readouterr().err


def test_check_of_good_files_exits_with_0(main, photos, tmp_path):
    assert main([f"folder:{photos}", "--check", f"--csv={tmp_path / 'table.csv'}"]) == 0
    assert (tmp_path / "table.csv").read_text() == "path,reason\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["folder:"], "must be given"),
        (["folder:{photos}"], "no --data_dir"),
        (["folder:{photos}/none", "--data_dir={photos}/../set"], "must exist"),
        (["folder:{photos}/none", "--check"], "must exist"),
        (["folder:{photos}", "--check", "--csv={photos}/none/table.csv"], "must be written"),
        (["folder:{photos}", "--data_dir={photos}/set"], "must lie beside"),
        (["folder:{photos}", "--data_dir={photos}/../set", "--processes=0"], "--processes"),
        (["folder:{photos}", "--check", "--processes=0"], "--processes"),
        (["no_such_set"], "name of tensorflow_datasets"),
        (["shapes", "--check"], "--check reads a folder"),
    ],
)
def test_a_wrong_request_is_one_message_and_exit_2(main, photos, capsys, arguments, message):
    assert main([argument.format(photos=photos) for argument in arguments]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("error: ") and message in line
