"""If this breaks, the measurement of resumed epochs compares with something else."""

import re

from simclr_tf.benchmark import resume


def test_less_is_read_the_more_is_given_out(monkeypatch):
    """By the system's count of bytes, of files that are written for it."""
    monkeypatch.setattr(resume, "_IMAGENET_RECORDS", 4096)
    monkeypatch.setattr(resume, "_IMAGENET_BUFFER", 64)
    monkeypatch.setattr(resume, "_FILES", 64)
    monkeypatch.setattr(resume, "_BATCH", 4)
    text = resume.measure(640, rounds=1)
    assert text.startswith("640 records of 110000 bytes in 64 files, shuffle buffer 10")
    rows = re.findall(r"^\| (\d+)% \|.*\| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert [int(row[0]) for row in rows] == [0, 50, 99]
    reading_all, ours = ([int(row[k]) for row in rows] for k in (1, 2))
    whole = 640 * 110_016 // 2**20
    assert reading_all[2] >= whole  # the program itself reads a little, too
    assert ours[2] < whole / 2
    read = [float(s) for s in re.findall(r"\| (\d+\.\d)% \|", text)]
    assert read[0] == 100.0 > read[1] > read[2]
