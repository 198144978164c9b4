"""Runs an exported step on PJRT devices, and compares it; imports no TensorFlow."""

from __future__ import annotations

import json
import pathlib
import time

import numpy as np

from simclr_tf.distribute.pjrt import client
from simclr_tf.errors import RequestError

# Compares the first loss: accelerators multiply with fewer bits, and rounding parts later ones.
TOLERANCE = 0.02


def run(folder: pathlib.Path, *, cpu: bool, steps: int, peak_tflops: float | None) -> bool:
    """Takes the exported steps, then as many for the clock, and prints what it finds.

    Args:
      folder: from `smoke_export.export`.
      cpu: whether to take virtual devices of the CPU.
      steps: how many steps are timed.
      peak_tflops: the peak of a device in TFLOP/s, for the utilization.

    Returns:
      Whether the first loss is that of TensorFlow, and all numbers are finite.

    Raises:
      RequestError: this machine has another number of devices.
    """
    told = json.loads((folder / "smoke.json").read_text())
    devices = client.start(told["devices"] if cpu else 1)
    if devices.count != told["devices"]:
        raise RequestError(
            f"The step must run on as many devices as it was exported for. Received: "
            f"{devices.words()}, and a step for {told['devices']}. Export it with "
            f"--devices={devices.count}."
        )
    print(devices.words(), flush=True)
    step = _Step(folder, told, devices)
    batches = _batches(folder, devices)
    found = np.stack([client.value_of(step(batch)) for batch in batches])
    good = _compare(told, found)
    _time(step, batches, steps, told, peak_tflops)
    peak = devices.peak_bytes()
    if peak is not None:
        print(f"peak of memory in use, of the first device: {peak / 2**20:,.0f} MiB")
    return good


class _Step:
    """The program, with its variables on the devices."""

    def __init__(self, folder: pathlib.Path, told: dict, devices: client.Devices):
        with np.load(folder / "variables.npz", allow_pickle=False) as values:
            self._variables = [devices.copies(values[str(i)]) for i in range(len(values))]
        self._updated = told["updated"]
        numbers = ((len(told["metrics"]),), np.dtype(np.float32))
        changed = [(self._variables[i].shape, self._variables[i].dtype) for i in self._updated]
        start = time.perf_counter()
        text = (folder / "program.mlir").read_text()
        self._executable = devices.compile(text, [numbers, *changed])
        print(
            f"compiled or found in {time.perf_counter() - start:.1f} s; a step takes "
            f"{self._executable.device_bytes() / 2**20:,.0f} MiB of each device",
            flush=True,
        )

    def __call__(self, batch):
        numbers, *values = self._executable([*batch, *self._variables])
        for i, value in zip(self._updated, values, strict=True):
            self._variables[i] = value
        return numbers


def _batches(folder: pathlib.Path, devices: client.Devices) -> list[list]:
    with np.load(folder / "batches.npz", allow_pickle=False) as arrays:
        steps = 1 + max(int(name.partition("_")[0]) for name in arrays)
        tensors = len(arrays) // steps
        return [
            [devices.parts(list(arrays[f"{step}_{i}"])) for i in range(tensors)]
            for step in range(steps)
        ]


def _compare(told: dict, found: np.ndarray) -> bool:
    """Prints the losses beside those of TensorFlow."""
    at = told["metrics"].index("loss")
    print(f"\n| step | loss by {told['by']} | here | difference |\n| ---: | ---: | ---: | ---: |")
    expected = np.array(told["expected"])
    off = np.abs(found[:, at] / expected[:, at] - 1)
    for step, difference in enumerate(off):
        said = f"{expected[step, at]:.6f} | {found[step, at]:.6f} | {difference:.1e}"
        print(f"| {step + 1} | {said} |")
    good = bool(off[0] < TOLERANCE and np.isfinite(found).all())
    print(f"\n{'equal' if good else 'NOT EQUAL'}, to {TOLERANCE:.0%} of the first loss", flush=True)
    return good


def _time(step: _Step, batches: list, steps: int, told: dict, peak_tflops: float | None) -> None:
    start = time.perf_counter()
    for i in range(steps):
        numbers = step(batches[i % len(batches)])
    numbers.block_until_ready()
    seconds = (time.perf_counter() - start) / steps
    tflops = told["flop"] / seconds / 1e12
    share = f", {tflops / peak_tflops:.1%} of the peak (MFU)" if peak_tflops else ""
    print(
        f"{steps} steps: {told['images'] / seconds:,.1f} images/s, {seconds * 1e3:,.1f} ms a step, "
        f"{tflops:,.3g} TFLOP/s of the model a device{share}"
    )
