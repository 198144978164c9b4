"""Trained networks as SavedModels, and back."""

from __future__ import annotations

from typing import Any

__all__ = ["load_encoder"]


def __getattr__(name: str) -> Any:
    """Imports TensorFlow only when something is asked for."""
    if name == "load_encoder":
        from simclr_tf.export.loading import load_encoder

        return load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
