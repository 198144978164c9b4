"""Formats the numbers of `preflight` for its topologies."""

from __future__ import annotations

from simclr_tf.preflight.chips import GIB

_COLUMNS = {
    "topology": 11,
    "devices": 7,
    "images/dev": 10,
    "fits": 4,
    "args GiB": 8,
    "temp GiB": 8,
    "used of HBM": 12,
    "Mcycles": 8,
    "ms": 7,
    "MFU": 7,
    "compiled": 8,
}
HEADER = "  ".join(f"{name:>{width}}" for name, width in _COLUMNS.items())


def row(r: dict) -> str:
    """Returns one row of the table, from the numbers of one topology."""
    cells = [r["topology"], r["devices"], r["images_per_device"], "yes" if r["fits"] else "NO"]
    if "used_bytes" in r:
        cells += [
            f"{r['argument_bytes'] / GIB:.2f}",
            f"{r['temporary_bytes'] / GIB:.2f}",
            f"{r['used_bytes'] / GIB:.1f} of {r['hbm_bytes'] / GIB:.0f}",
        ]
        known = r["estimated_cycles"] is not None
        cells += [
            f"{r['estimated_cycles'] / 1e6:.1f}" if known else "unknown",
            f"{r['estimated_seconds'] * 1e3:.1f}" if known else "unknown",
            f"{r['estimated_utilization']:.0%}" if known else "unknown",
            f"{r['seconds']:.0f} s",
        ]
    widths = _COLUMNS.values()
    return "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=False))


def details(r: dict) -> str:
    """Returns the details that the table has no room for."""
    lines = [f"\n{r['topology']}, {r['images_per_device']} images a device:"]
    if "out_of_memory" in r:
        lines.append("  " + "\n  ".join(r["out_of_memory"].splitlines()[:3]))
    else:
        compiled = "" if r["flop"] is None else f", {r['flop']:.3e} as compiled"
        lines.append(
            f"  {r['model_flop']:.3e} flop of the model a device and step{compiled}. Cycles, times "
            "and MFU are the compiler's estimates, not measurements; they leave out "
            + ", ".join(f"{_known(n)} {kind}" for kind, n in r["not_estimated"].items())
        )
        lines += [
            f"  unknown, and with it the estimate: how often {op} runs" for op in r["unknown_loops"]
        ]
        lines += [
            f"  {c.kind}: {_known(c.count)}, {_known(c.bytes, 2**20, '.1f')} MiB"
            for c in r["collectives"]
        ]
        lines.append("  longest fusions, in million cycles a step, and their runs:")
        lines += [f"    {f.cycles / 1e6:6.3f}  {f.times:4}  {f.op}" for f in r["longest"]]
    if not r["fits"] and "what_would_fit" in r:
        lines.append(f"  what would fit: {r['what_would_fit'] or 'nothing that was tried'}")
    return "\n".join(lines)


def _known(number: int | None, unit: int = 1, form: str = ".0f") -> str:
    return "unknown" if number is None else f"{number / unit:{form}}"
