"""Exports trained networks as SavedModels, and loads them again."""

from __future__ import annotations

from typing import Any

__all__ = ["load_encoder"]


def __getattr__(name: str) -> Any:
    """Imports TensorFlow only when a name is first used."""
    if name == "load_encoder":
        from simclr_tf.export.loading import load_encoder

        return load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
