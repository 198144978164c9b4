"""Folders as runs leave them, and a report taken apart by another parser than the browser's."""

import base64
import datetime
import html.parser
import json
import pathlib

import pytest

NOW = datetime.datetime(2026, 11, 24, 6, 30, tzinfo=datetime.timezone.utc)
# A PNG of one pixel.
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
RECIPE = """# Parameters for nt_xent:
# ==============================================================================
nt_xent.temperature = 0.1

# Parameters for augmentation:
# ==============================================================================
augmentation.policy = \\
    [('flip', 0.5),
     ('grayscale', 0.2)]
"""
ENVIRONMENT = {"simclr_tf": "0.1.0", "tensorflow": "2.21.0", "processors": 2, "memory_gib": 23.1}


def metrics(steps: int = 40, every: int = 2) -> list[dict]:
    """Reports like those of pretraining, with numbers that no one has heard of."""
    return [
        {
            "step": step,
            "epoch": step / 20,
            "loss": 8 - step / 10,
            "contrastive_loss": 6 - step / 10,
            "loss_chance": 5.541263545158426,
            "contrastive_top1": step / 100,
            "contrastive_top5": step / 50,
            "positive_cosine": 0.5,
            "negative_cosine": 0.0,
            "embedding_std": 0.9,
            "effective_rank": 60.0,
            "gradient_norm": 10 / step,
            "trust_ratio_min": 0.001,
            "trust_ratio_median": 0.01,
            "learning_rate": step / 1000,
            "probe_loss": 2.0,
            "probe_accuracy": 0.25,
            "examples_per_second": 320.0,
            "host_wait": 0.02,
            "skipped_images": 0,
            "host_memory_mib": 1400 + step,
            "queue_length": 3.0,
        }
        for step in range(every, steps + 1, every)
    ]


class Folder:
    """A run's --model_dir, written file by file."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        path.mkdir(parents=True)

    def write(self, name: str, content) -> "Folder":
        """JSON, lines of JSON from a list, or text and bytes as they are."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif isinstance(content, str):
            path.write_text(content)
        elif isinstance(content, list):
            path.write_text("".join(json.dumps(line) + "\n" for line in content))
        else:
            path.write_text(json.dumps(content))
        return self

    def complete(self, temperature: str = "0.1") -> "Folder":
        """All that a finished run with evaluations has."""
        start = {"time": "2026-11-23T22:14:02Z", "step": 0, "command": "python -m simclr_tf.run"}
        record = {
            "job": "pretrain",
            "total_steps": 40,
            "plan": {"data": "shapes, 10,000 images", "batch": "128 images globally"},
            "starts": [
                start | {"environment": ENVIRONMENT},
                start | {"step": 20, "environment": ENVIRONMENT | {"tensorflow": "2.20.0"}},
            ],
        }
        warning = {"step": 20, "epoch": 1.0, "kind": "collapse", "text": "embeddings collapsed"}
        knn = {
            "protocol": "weighted neighbours",
            "numbers": {"k": 200, "top1": 0.7731, "top5": 0.981},
            "table": [{"k": 1, "top1": 0.55}],
            "checkpoint": {"step": 40, "path": "runs/a"},
        }
        watched = [
            {"step": step, "job": "knn", "numbers": {"top1": step / 100}} for step in (10, 20, 40)
        ]
        settings = {"total_steps": 40, "global_batch_size": 128}
        for name, content in {
            "run.json": record,
            "metrics.jsonl": metrics(),
            "warnings.jsonl": [warning],
            "config.gin": RECIPE.replace("0.1\n", f"{temperature}\n", 1),
            "results/knn.json": knn,
            "results/quickstart.json": {"numbers": {"simclr": {"top1": 0.66}}, "chance": 0.1},
            "results/watch.jsonl": watched,
            "checkpoints/step_00000040/manifest.json": {"settings": settings},
            "figures/views.png": PIXEL,
            "figures/curves.png": PIXEL,
            "figures/extra.png": PIXEL,
            "embeddings/train/map.png": PIXEL,
            "embeddings/train/neighbours.png": PIXEL,
        }.items():
            self.write(name, content)
        return self


class Parsed(html.parser.HTMLParser):
    """A page's elements, its text, its sections' texts, and the data of its curves."""

    def __init__(self, page: bytes):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = self.style = ""
        self.sections: dict[str, str] = {}
        self.scripts: list[str] = []
        self._inside: list[str] = []
        self._section: str | None = None
        self.feed(page.decode("utf-8"))
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._inside.append(tag)
        if tag == "section":
            self._section = dict(attrs)["id"]
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        assert self._inside.pop() == tag
        if tag == "section":
            self._section = None

    def handle_data(self, data):
        if self._inside[-1:] == ["script"]:
            self.scripts[-1] += data
        elif self._inside[-1:] == ["style"]:
            self.style += data
        else:
            self.text += data + "\n"
            if self._section:
                self.sections[self._section] = self.sections.get(self._section, "") + data + "\n"

    @property
    def data(self) -> dict:
        return json.loads(self.scripts[0])


@pytest.fixture
def folder(tmp_path):
    """Name -> a new run's folder."""
    return lambda name="run": Folder(tmp_path / name)


@pytest.fixture
def report():
    """Folders -> their report, parsed."""
    from simclr_tf.report.page import write_page
    from simclr_tf.report.reading import read_runs

    return lambda *folders: Parsed(write_page(read_runs([f.path for f in folders]), NOW))
