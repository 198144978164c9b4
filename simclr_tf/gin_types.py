"""Checks values of recipe parameters, by type and by the arguments that callers pass."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

from gin import config as gin_internals

# Numbers of a recipe end in float32 and int64 tensors.
_LARGEST = {float: 3.4e38, int: 2**63 - 1}


class Offered:
    """Part of the annotation of a parameter that is a function: what it may ask for.

    Args:
      names: arguments that the caller passes to a function that has them, beside those that it
        passes to every function.
    """

    def __init__(self, *names: str):
        self.names = names


def unfit(function: Callable, parameter: str, value: Any, bound: set[str]) -> str | None:
    """Returns in words what a parameter must be, if `value` cannot be passed; else None.

    Args:
      function: the configurable, without gin's wrapper.
      parameter: the parameter's name.
      value: the value that gin would pass, or the reference to it.
      bound: the parameters that bindings set, if `value` is a reference.
    """
    hints = typing.get_type_hints(inspect.unwrap(function), include_extras=True)
    if parameter not in hints:
        return None
    hint, *others = _parts(hints[parameter])
    offered = {name for other in others if isinstance(other, Offered) for name in other.names}
    examples = [other for other in others if not isinstance(other, Offered)]
    if not _fits(value, hint, bound):
        return _describe(hint) + _limit(value)
    if not isinstance(value, gin_internals.ConfigurableReference):
        return None
    default = inspect.signature(function).parameters[parameter].default
    # An example says by its arguments which function a parameter takes beside a number.
    like = next(filter(None, map(configurable_of, (default, *examples))), None)
    if like is None or (examples and value.evaluate):
        return None
    unlike = _unlike(like, value, bound | offered)
    return f"{_describe(hint)}: {unlike}" if unlike and examples else unlike


def configurable_of(value: Any) -> Any:
    """Returns gin's record of a function; None if it has none, or `value` is no function."""
    return gin_internals._inverse_lookup(value) if inspect.isfunction(value) else None


def _unlike(
    default: Any, value: gin_internals.ConfigurableReference, bound: set[str]
) -> str | None:
    """Returns in words what must replace a default, if `value` cannot; else None.

    Callers pass by name exactly the arguments that the default needs.
    """
    given = _needed(default.wrapped)
    taken = inspect.signature(value.configurable.wrapped).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    lacking = _needed(value.configurable.wrapped) - given - bound
    if not value.evaluate and not lacking and (takes_all or given <= taken.keys()):
        return None
    arguments = f" of {', '.join(sorted(given))}" if given else ""
    return f"a @function{arguments}, as @{default.selector.rpartition('.')[2]} is"


def _needed(function: Callable) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty}


def _fits(value: Any, hint: Any, bound: set[str]) -> bool:
    """Returns whether a gin value fits the type `hint`; an int is also a float."""
    if isinstance(value, gin_internals.ConfigurableReference):
        if value.evaluate:
            return _returns(value, hint, bound)
        wants_function = any(_origin(h) is collections.abc.Callable for h in _alternatives(hint))
        return wants_function or hint is Any
    return any(_fits_one(value, alternative) for alternative in _alternatives(hint))


def _returns(value: gin_internals.ConfigurableReference, hint: Any, bound: set[str]) -> bool:
    """Returns whether gin can call the function, and its result may fit the type `hint`."""
    function = value.configurable.wrapped
    result = typing.get_type_hints(inspect.unwrap(function)).get("return", Any)
    if _needed(function) - bound:
        return False
    kinds = {_origin(h) for h in _alternatives(hint)}
    results = {_origin(h) for h in _alternatives(result)}
    return bool(kinds & results) or Any in (hint, result) or (float in kinds and int in results)


def _fits_one(value: Any, hint: Any) -> bool:
    origin, arguments = _origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is typing.Literal:
        return value in arguments
    if origin in _LARGEST:
        of_kind = isinstance(value, (int, origin)) and not isinstance(value, bool)
        return of_kind and abs(value) <= _LARGEST[origin]
    if origin in (list, tuple, collections.abc.Sequence):
        if not isinstance(value, (list, tuple)):
            return False
        fixed = origin is tuple and arguments and Ellipsis not in arguments
        if fixed and len(value) != len(arguments):
            return False
        return all(_fits(item, item_hint, set()) for item, item_hint in _pair(value, hint))
    return isinstance(value, origin)


def _pair(value: Sequence, hint: Any) -> Iterator[tuple[Any, Any]]:
    arguments = [a for a in typing.get_args(hint) if a is not Ellipsis]
    if _origin(hint) is tuple and Ellipsis not in typing.get_args(hint) and arguments:
        return zip(value, arguments, strict=False)
    return ((item, arguments[0] if arguments else Any) for item in value)


def _limit(value: Any) -> str:
    """Returns the largest number in words, if that is what a value exceeds."""
    numbers = value if isinstance(value, (list, tuple)) else [value]
    for kind, largest in _LARGEST.items():
        if any(isinstance(n, kind) and not abs(n) <= largest for n in numbers):
            return f", finite and at most {largest:.2g} in size"
    return ""


def _parts(hint: Any) -> tuple[Any, ...]:
    """Returns the type of a hint, and the examples that `Annotated` adds to it."""
    return typing.get_args(hint) if _origin(hint) is Annotated else (hint,)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if _origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _origin(hint: Any) -> Any:
    return typing.get_origin(hint) or hint


def _describe(hint: Any) -> str:
    names = []
    for alternative in _alternatives(hint):
        if _origin(alternative) is typing.Literal:
            names.extend(repr(a) for a in typing.get_args(alternative))
        elif alternative is type(None):
            names.append("None")
        else:
            origin = _origin(alternative)
            name = "a @function" if origin is collections.abc.Callable else origin.__name__
            names.append(name)
    return " or ".join(names)
