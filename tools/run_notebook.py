"""Runs the code cells of a notebook in order, and writes their outputs into it.

    python tools/run_notebook.py docs/tutorial.ipynb [--output=FILE]

Jupyter is not needed: the cells are plain Python. A cell's output is what it prints, and the value
of its last line, as text or as a PNG. Log lines (standard error) are not kept.
"""

from __future__ import annotations

import argparse
import ast
import base64
import contextlib
import io
import json
import sys
from collections.abc import Sequence
from typing import Any

import command_line  # beside this file

from simclr_tf.errors import RequestError


def executed(notebook: dict[str, Any]) -> dict[str, Any]:
    """Returns a notebook of nbformat 4 with the outputs of its code cells; raises their errors."""
    names: dict[str, Any] = {"__name__": "__main__"}
    cells = [dict(cell) for cell in notebook["cells"]]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    for number, cell in enumerate(code, start=1):
        print(f"cell {number} of {len(code)}", file=sys.stderr, flush=True)
        outputs = _outputs("".join(cell["source"]), number, names)
        cell |= {"execution_count": number, "outputs": outputs}
    return {**notebook, "cells": cells}


def _outputs(source: str, number: int, names: dict[str, Any]) -> list[dict[str, Any]]:
    *body, last = ast.parse(source).body
    value = None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if isinstance(last, ast.Expr):
            exec(compile(ast.Module(body, []), f"cell {number}", "exec"), names)
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
        else:
            exec(compile(source, f"cell {number}", "exec"), names)
    lines = printed.getvalue().splitlines(keepends=True)
    outputs = [{"output_type": "stream", "name": "stdout", "text": lines}] if lines else []
    if value is not None:
        result = {"output_type": "execute_result", "execution_count": number, "metadata": {}}
        outputs.append(result | {"data": _shown(value)})
    return outputs


def _shown(value: Any) -> dict[str, str]:
    if hasattr(value, "_repr_png_"):
        return {"image/png": base64.b64encode(value._repr_png_()).decode()}
    return {"text/plain": repr(value)}


@command_line.refusing
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program and returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebook", type=command_line.path)
    parser.add_argument("--output", type=command_line.path, help="default: the notebook itself")
    arguments = parser.parse_args(argv)
    output = (arguments.output or arguments.notebook).resolve()  # a cell may change the folder
    try:
        notebook = json.loads(arguments.notebook.read_text())
    except ValueError as error:
        raise RequestError(f"A notebook must be JSON. Received: {arguments.notebook}.") from error
    output.write_text(json.dumps(executed(notebook), indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
