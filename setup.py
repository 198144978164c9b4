"""Metadata, dependencies and extras.

TensorFlow itself is an extra: TPU hosts use another wheel, and two TensorFlow wheels in one
environment overwrite each other's files.
"""

import pathlib
import re

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "simclr_tf/__init__.py").read_text())[1]
# Both require the wheel `tensorflow`, so neither goes beside tensorflow-tpu; pip picks the release
# for the TensorFlow that is there. tensorflow-hub 0.16.1 imports pkg_resources.
SERVING = ["tensorflow-serving-api>=2.19,<2.22"]
HUB = ["tensorflow-hub>=0.16", "tf-keras>=2.19,<2.22", "setuptools<81"]
EMBED = ["pyarrow>=14.0", "umap-learn>=0.5.6"]
PREPARE = ["pillow-heif>=0.18"]  # HEIC; newer Pillows read AVIF themselves
TORCH = ["safetensors>=0.4"]  # PyTorch's weights are read and written without PyTorch

setup(
    name="simclr_tf",
    version=VERSION,
    description="SimCLR with Keras 3 models trained under tf.distribute, on TPUs first",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[*find_packages(include=["simclr_tf", "simclr_tf.*"]), "simclr_tf.gin"],
    package_dir={"simclr_tf.gin": "gin"},
    package_data={
        "simclr_tf.gin": ["*.gin", "methods/*.gin", "studies/*.gin"],
        "simclr_tf.report": ["*.css", "*.js"],
    },
    install_requires=[
        "absl-py>=2.0",
        "gin-config>=0.5.0,<0.6",  # config.py reads the parsed bindings, which has no public API
        "importlib_resources>=5.0",  # tensorflow-datasets 4.9.10 imports it without requiring it
        "keras>=3.10",
        "matplotlib>=3.7",
        "numpy>=1.26",
        "pillow>=10.1",
        "scikit-learn>=1.3",
        "scipy>=1.11",
        "tensorboard>=2.19",  # TensorFlow 2.21 no longer brings it, and tf.summary needs it
        "tensorflow-datasets>=4.9.7",
        # Of tensorflow-datasets. 1.21 is generated for protobuf 6.31 and cannot be imported beside
        # the older one that TensorFlow 2.19 asks for, which its own requirements allow.
        "tensorflow-metadata<1.18",
        "threadpoolctl>=3.1",
        "tqdm>=4.60",
    ],
    extras_require={
        "cpu": ["tensorflow>=2.19,<2.22"],
        "gpu": ["tensorflow[and-cuda]>=2.19,<2.22"],
        # libtpu 0.0.30 loads beside tensorflow-tpu 2.20, 0.0.32 aborts the process.
        "tpu": ["tensorflow-tpu[gcs-filesystem]>=2.20,<2.21", "libtpu<0.0.31"],
        # tools/preflight.py compiles given programs, for which jax has no public API, hence the
        # upper bound. Where TensorFlow needs an older libtpu ([tpu]), install this elsewhere.
        "preflight": ["jax>=0.10.2,<0.11", "libtpu>=0.0.52"],
        # Beside [cpu]: training by jax's client, whose inner calls `distribute/pjrt` makes. For an
        # accelerator its plug-in too: jax[tpu] or jax[cuda12].
        "pjrt": ["jax>=0.10.2,<0.11"],
        # tf-keras is the Keras 2 that addons imports; pip picks the release for this TensorFlow.
        "addons": [
            "tensorflow-addons==0.23.0; python_version < '3.12'",
            "tf-keras>=2.19,<2.22; python_version < '3.12'",
        ],
        # Parquet files, and maps by UMAP.
        "embed": EMBED,
        "prepare": PREPARE,
        "torch": TORCH,
        # TF Serving's messages, for the warm-up requests beside a SavedModel.
        "serving": SERVING,
        "hub": HUB,
        # Beside [tpu], for tests/tpu_wheel. Older pips find no extra with an underscore.
        "tpu-test": ["pytest>=8.0", "pytest-xdist>=3.6"],
        "test": [
            "hypothesis>=6.100",
            "openvino>=2025.0",
            "pytest>=8.0",
            "pytest-xdist>=3.6",
            "ruff>=0.6",
            "selenium>=4.20",  # the report in Chromium, where one is installed
            *EMBED,
            *SERVING,
            *HUB,
            *TORCH,
        ],
    },
)
