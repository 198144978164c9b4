"""If this breaks, the image fuzzer misses failures, or does not repeat the files that it found."""

import importlib
import io
import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "tools" / "fuzz_images.py"


@pytest.fixture
def load(monkeypatch):
    """Imports a program, or a module beside it, as a command does."""
    monkeypatch.syspath_prepend(PROGRAM.parent)
    yield importlib.import_module
    for name in ("fuzz_images", "image_mutations"):
        sys.modules.pop(name, None)


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(2):
        pixels = rng.integers(0, 256, (60, 80, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.jpg")
    return tmp_path


def run(photos, *flags):
    command = [sys.executable, str(PROGRAM), f"--data_dir={photos}", f"--keep={photos}/kept"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=900)
    lines = [line.rsplit(maxsplit=1) for line in done.stdout.splitlines()]
    kept = sorted(p.name for p in photos.glob("kept/*"))
    return done.returncode, {line[0]: line[1] for line in lines if len(line) == 2}, kept


def test_the_same_seed_gives_the_same_files_and_another_does_not(load, photos):
    mutations = load("image_mutations")
    seeds = mutations.seeds_of(photos)
    formats = {Image.open(io.BytesIO(s)).format for s in seeds}
    assert formats == {"JPEG", "PNG", "GIF", "BMP", "WEBP"}
    files = [mutations.mutant(seeds, 0, n) for n in range(200)]
    assert files == [mutations.mutant(seeds, 0, n) for n in range(200)]
    assert files != [mutations.mutant(seeds, 1, n) for n in range(200)]
    assert sum(content in seeds for _, content in files) < 20
    used = {name for names, _ in files for name in names.split("+")}
    assert used == {"bits", "truncation", "header", "splice", "length"}


def test_lengths_and_sizes_of_all_formats_are_found(load, photos):
    mutations = load("image_mutations")
    for content in mutations.seeds_of(photos):
        image = Image.open(io.BytesIO(content))
        fields = mutations._fields(content)
        sizes = {struct.unpack_from(form, content, place)[0] for place, form in fields}
        if content[12:16] in (b"VP8L", b"VP8X"):  # packed: not two numbers of whole bytes
            assert len(content) - 8 in sizes
        else:
            assert {image.width, image.height} <= sizes


@pytest.mark.slow
def test_mutated_files_are_decoded_or_refused(photos):
    code, counts, kept = run(photos, "--files=150")
    assert code == 0 and kept == []
    assert int(counts["mutated files"]) == 150 and int(counts["failures"]) == 0
    assert int(counts["decoded"]) + int(counts["refused"]) == 150
    assert min(int(counts["decoded"]), int(counts["refused"])) > 10


@pytest.mark.slow
@pytest.mark.parametrize("bound", ["--max_mib=1", "--max_seconds=0.000001"])
def test_what_goes_beyond_the_bounds_is_a_failure_and_kept(load, photos, bound):
    """By the second, the process that decodes is ended and started again."""
    code, counts, kept = run(photos, "--files=1", "--seed=7", bound)
    assert code == 1 and int(counts["failures"]) == 1
    assert kept == ["7_0"]
    mutations = load("image_mutations")
    seeds = mutations.seeds_of(photos)
    assert (photos / "kept/7_0").read_bytes() == mutations.mutant(seeds, 7, 0)[1]


def test_a_folder_without_images_is_refused(load, tmp_path, capsys):
    assert load("fuzz_images").main([f"--data_dir={tmp_path}"]) == 2
    assert "must hold JPEG or PNG" in capsys.readouterr().err
