"""Checks values of recipe parameters, by type and by the arguments that callers pass."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gin import config as gin_internals


def unfit(function: Callable, parameter: str, value: Any, bound: set[str]) -> str | None:
    """Returns in words what a parameter must be, if `value` cannot be passed; else None.

    Args:
      function: the configurable, without gin's wrapper.
      parameter: the parameter's name.
      value: the value that gin would pass, or the reference to it.
      bound: the parameters that bindings set, if `value` is a reference.
    """
    hints = typing.get_type_hints(inspect.unwrap(function))
    if parameter not in hints:
        return None
    if not _fits(value, hints[parameter]):
        return _describe(hints[parameter])
    default = configurable_of(inspect.signature(function).parameters[parameter].default)
    if default is None or not isinstance(value, gin_internals.ConfigurableReference):
        return None
    return _unlike(default, value, bound)


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


def _fits(value: Any, hint: Any) -> bool:
    """Returns whether a gin value fits the type `hint`; an int is also a float."""
    if isinstance(value, gin_internals.ConfigurableReference):
        wants_function = any(_origin(h) is collections.abc.Callable for h in _alternatives(hint))
        return value.evaluate or wants_function or hint is Any
    return any(_fits_one(value, alternative) for alternative in _alternatives(hint))


def _fits_one(value: Any, hint: Any) -> bool:
    origin, arguments = _origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is typing.Literal:
        return value in arguments
    if origin is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if origin is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if origin in (list, tuple, collections.abc.Sequence):
        return isinstance(value, (list, tuple)) and all(_fits(v, h) for v, h in _pair(value, hint))
    return isinstance(value, origin)


def _pair(value: Sequence, hint: Any) -> Iterator[tuple[Any, Any]]:
    arguments = [a for a in typing.get_args(hint) if a is not Ellipsis]
    if _origin(hint) is tuple and Ellipsis not in typing.get_args(hint) and arguments:
        return zip(value, arguments, strict=False)
    return ((item, arguments[0] if arguments else Any) for item in value)


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
            names.append("a @function" if origin is collections.abc.Callable else origin.__name__)
    return " or ".join(names)
