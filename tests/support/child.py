"""Functions that run in a process of their own, which takes along the memory that they keep."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Callable
from typing import Any

from tests.support.start import start_tensorflow


def in_child(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Returns what a module's function returns, or raises what it raises."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.preloaded"])
    with concurrent.futures.ProcessPoolExecutor(1, context, initializer=start_tensorflow) as pool:
        return pool.submit(function, *args, **kwargs).result()
