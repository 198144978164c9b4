"""The text of a compiled program: its computations, and how often each instruction runs.

The number of iterations of a loop stands beside it (`known_trip_count`), or follows from its
counter: its start, its increment, and the constant that the loop's condition compares it with.
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_LINE = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\(")
_NAME = re.compile(r"%([\w.\-]+)")
_COMPARISONS = {"LT": operator.lt, "LE": operator.le, "GT": operator.gt, "GE": operator.ge}
# Kinds that pass on their operand, wherever it lies.
_SAME = ("bitcast", "convert", "copy", "copy-done", "copy-start")
# No counter of a training step goes this far.
_MOST = 10**6


class Element(NamedTuple):
    """Element `index` of a loop's state before an iteration, plus `plus`."""

    index: int
    plus: int


class Comparison(NamedTuple):
    """A comparison of `left` and `right` by `direction`, such as LT."""

    direction: str
    left: Any
    right: Any


@dataclasses.dataclass(frozen=True)
class Instruction:
    """Attributes:
    name: unique in the program.
    result: its type, such as `f32[2,64]{1,0:T(8,128)}`, or a tuple of such.
    kind: its operation, such as `fusion`.
    argument: the text in its brackets: names of instructions, or a constant.
    attributes: the text after the brackets.
    """

    name: str
    result: str
    kind: str
    argument: str
    attributes: str

    @property
    def operands(self) -> list[str]:
        return _NAME.findall(self.argument)

    @property
    def op(self) -> str:
        """The TensorFlow op that it comes from, or nothing."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def called(self, attribute: str) -> str:
        """Returns the computation that an attribute, such as `body`, names."""
        return re.search(rf"{attribute}=%?([\w.\-]+)", self.attributes)[1]


@dataclasses.dataclass
class Computation:
    """Instructions by name, and the name of the one that gives the result."""

    instructions: dict[str, Instruction] = dataclasses.field(default_factory=dict)
    root: str = ""


class Run(NamedTuple):
    """An instruction, and how often a call of the program runs it; None if unknown.

    Attributes:
      inner: how often the computation it calls runs: 0 if it calls none, None if unknown.
    """

    instruction: Instruction
    times: int | None
    inner: int | None = 0


class Program:
    """A compiled program."""

    def __init__(self, text: str):
        self._computations: dict[str, Computation] = {}
        self._entry = ""
        self._read(text)

    def _read(self, text: str) -> None:
        computation = Computation()
        for line in text.splitlines():
            header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
            if header:
                computation = self._computations[header[2]] = Computation()
                self._entry = header[2] if header[1] else self._entry
            elif match := _LINE.match(line):
                root, name, result, kind = match.groups()
                argument = _within_brackets(line[match.end() :])
                attributes = line[match.end() + len(argument) :]
                computation.instructions[name] = Instruction(
                    name, result, kind, argument, attributes
                )
                computation.root = name if root else computation.root

    def runs(self) -> Iterator[Run]:
        """Yields the instructions that a call of the program runs. A fusion is one instruction."""
        yield from self._runs(self._computations[self._entry], None, 1)

    def _runs(
        self, computation: Computation, state: list | None, times: int | None
    ) -> Iterator[Run]:
        for i in computation.instructions.values():
            if i.kind == "while":
                yield from self._loop_runs(computation, state, Run(i, times))
            elif i.kind in ("call", "async-start"):
                yield Run(i, times, times)
                name = i.called("to_apply" if i.kind == "call" else "calls")
                yield from self._runs(self._computations[name], None, times)
            elif i.kind == "conditional":  # the branch's number of runs is unknown
                yield Run(i, times, None)
                named = _NAME.findall(i.attributes)
                for name in [name for name in named if name in self._computations]:
                    yield from self._runs(self._computations[name], None, None)
            else:
                yield Run(i, times)

    def _loop_runs(self, outer: Computation, state: list | None, loop: Run) -> Iterator[Run]:
        inside, count = self._loop(outer, loop.instruction, [state])
        body, condition = (
            None if loop.times is None or count is None else loop.times * each
            for each in (count or 0, (count or 0) + 1)
        )
        yield loop._replace(inner=body)
        for attribute, times in (("body", body), ("condition", condition)):
            callee = self._computations[loop.instruction.called(attribute)]
            yield from self._runs(callee, inside, times)

    def _loop(
        self, outer: Computation, loop: Instruction, arguments: list
    ) -> tuple[list | None, int | None]:
        """Returns the known part of a loop's state in every iteration, and its iteration count."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        count = int(known[1]) if known else None
        start = self._value(outer, loop.operands[0], arguments)
        if not isinstance(start, list):
            return None, count
        body = self._computations[loop.called("body")]
        state = [Element(k, 0) for k in range(len(start))]
        after = self._value(body, body.root, [state])
        if not isinstance(after, list):
            return None, count
        # A constant that the loop passes on unchanged is a constant inside as well.
        fixed = [
            a if isinstance(a, int) and b == e else None
            for a, b, e in zip(start, after, state, strict=True)
        ]
        state = [e if f is None else f for e, f in zip(state, fixed, strict=True)]
        after = self._value(body, body.root, [state])
        condition = self._computations[loop.called("condition")]
        test = self._value(condition, condition.root, [state])
        return fixed, _count(test, start, after) if count is None else count

    def _value(self, computation: Computation, name: str, arguments: list) -> Any:
        """Returns a number, an `Element`, a `Comparison`, a list for a tuple; None if unknown."""
        i = computation.instructions.get(name)
        if i is None or not re.match(r"\(|(pred|[su]\d+)\[\]", i.result):
            return None
        if i.kind == "constant":
            return int(i.argument) if re.fullmatch(r"-?\d+", i.argument) else None
        if i.kind == "parameter":
            return arguments[int(i.argument)]
        given = [self._value(computation, operand, arguments) for operand in i.operands]
        if i.kind == "tuple":
            return given
        if i.kind in _SAME:
            return given[0]
        if i.kind == "get-tuple-element":
            index = int(re.search(r"index=(\d+)", i.attributes)[1])
            return given[0][index] if isinstance(given[0], list) else None
        if i.kind == "fusion":
            callee = self._computations[i.called("calls")]
            return self._value(callee, callee.root, given)
        if i.kind == "add":
            return _sum(*given)
        if i.kind == "compare":
            direction = re.search(r"direction=(\w+)", i.attributes)[1]
            return Comparison(direction, *given)
        return None


def _within_brackets(text: str) -> str:
    """Returns the text up to the bracket that closes the opening one before the text."""
    depth = 1
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[:place]
    return text


def _sum(a: Any, b: Any) -> int | Element | None:
    if isinstance(a, int) and isinstance(b, Element):
        a, b = b, a
    if isinstance(a, Element) and isinstance(b, int):
        return Element(a.index, a.plus + b)
    return a + b if isinstance(a, int) and isinstance(b, int) else None


def _count(test: Any, start: list, after: list) -> int | None:
    """Counts a loop's iterations, from its condition and its state at first and after an iteration.

    The counter must be an element to which an iteration adds a constant.
    """
    if not isinstance(test, Comparison) or test.direction not in _COMPARISONS:
        return None
    counters = {side.index for side in test[1:] if isinstance(side, Element)}
    if len(counters) != 1 or None in test[1:]:
        return None
    index = counters.pop()
    value, step = start[index], after[index]
    if not (isinstance(value, int) and isinstance(step, Element) and step.index == index):
        return None
    for count in range(_MOST):
        left, right = (
            value + side.plus if isinstance(side, Element) else side for side in test[1:]
        )
        if not _COMPARISONS[test.direction](left, right):
            return count
        value += step.plus
    return None
