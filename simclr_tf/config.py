"""gin: finds recipes, reads them, and checks them before anything runs.

A recipe is a tree: the job is its root, and every `@factory` that a binding or a default of a
reachable function names hangs below it. A binding outside that tree would silently have no effect,
so it is refused. The only exception are bindings of a recipe that the command line cuts off, such
as the settings of an optimizer that it replaces.

Recipes also come from other people. They can call only functions that are registered with gin
here: a statement that imports is refused, and a file is included by its path alone.
"""

from __future__ import annotations

import difflib
import inspect
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import gin
from gin import config as gin_internals

from simclr_tf.errors import RequestError
from simclr_tf.gin_sandbox import sandboxed_gin
from simclr_tf.gin_types import configurable_of, unfit

_PACKAGE = pathlib.Path(__file__).resolve().parent
# A checkout has the recipes in gin/ beside the package; an installed wheel has them inside.
_RECIPE_ROOTS = (_PACKAGE.parent, _PACKAGE)

# Limits of a binding's value, in lists and through macros.
_MAX_VALUES, _MAX_DEPTH = 100_000, 32
# This parameter names a program to run.
_COMMAND_LINE_ONLY = ("simclr_tf.jobs.preflight.preflight", "compiler_python")
# Functions that build an encoder beside `pretrain`.
_WITH_ENCODER = ("frozen_encoder", "train_classifier", "export")

# A comment, or text in quotes.
_TEXT = re.compile(r"#[^\n]*|(['\"])(?:\\.|(?!\1).)*\1", re.DOTALL)

Bindings = dict[tuple[str, str], dict[str, Any]]  # (scope, selector) -> parameter -> value
# Bindings of the recipes alone, without the command line's.
_RECIPE: Bindings = {}
# Jobs of the recipes; each recipe may hold settings for its own job.
_RECIPE_JOBS: set[str] = set()


@gin.configurable("run")
def default_job(job: str = "pretrain") -> str:
    """Returns the job of a recipe, for a command line that names none."""
    return job


def load(gin_files: Sequence[str], gin_bindings: Sequence[str]) -> None:
    """Parses recipes and bindings; later files win over earlier ones, bindings over all files.

    The modules of all configurables that they name must be imported before.

    Raises:
      RequestError: a file is missing, a line does not parse or imports, or a name is unknown.
    """
    gin.clear_config()
    folders = (*_RECIPE_ROOTS, *(pathlib.Path(f).parent for f in gin_files))
    try:
        with sandboxed_gin([*map(str, folders)]):
            _RECIPE_JOBS.clear()
            for file in gin_files:
                gin.parse_config_file(file)
                _RECIPE_JOBS.add(_recipe_job())
            _RECIPE.clear()
            _RECIPE.update({key: dict(bound) for key, bound in gin_internals._CONFIG.items()})
            gin.parse_config([*map(_with_escapes, gin_bindings)])
    except RequestError:
        raise
    except RecursionError as error:
        raise RequestError("The recipe does not load. Its values are nested too deep.") from error
    # gin raises errors of many kinds for text that is no recipe.
    except Exception as error:
        raise RequestError(f"The recipe does not load. {_first_lines(error)}") from error
    selector, parameter = _COMMAND_LINE_ONLY
    if any(s == selector and bound.get(parameter) for (_, s), bound in _RECIPE.items()):
        raise RequestError(
            f"preflight.{parameter} names a program to run, so a file must not set it. Give it on "
            f"the command line: --gin_bindings='preflight.{parameter} = \"PYTHON\"'."
        )


def _with_escapes(binding: str) -> str:
    """Writes what names may hold and Python's text may not, newlines and no UTF-8, as escapes."""

    def escaped(match: re.Match) -> str:
        return match[0].replace("\n", r"\n").replace("\r", r"\r") if match[1] else match[0]

    return _TEXT.sub(escaped, binding).encode(errors="backslashreplace").decode()


def _recipe_job() -> str:
    """Returns the job so far, after checking its bound value before gin builds it."""
    for (_, selector), bound in gin_internals._CONFIG.items():
        if selector == gin_internals._REGISTRY.get_match("run").selector:
            _resolved(bound.get("job"), "run.job")
    return default_job()


def check(roots: Iterable[str]) -> None:
    """Checks the loaded bindings, for the jobs in `roots`, and locks them.

    Raises:
      RequestError: a value has the wrong type, a required one is missing, or a binding is not
        reachable from any of the jobs.
    """
    roots = {"run", *roots}
    used = _reachable(roots, gin_internals._CONFIG)
    used_in_recipe = _reachable(roots, _RECIPE)
    problems = []
    for (scope, selector), bindings in gin_internals._CONFIG.items():
        if (scope, selector) not in used and _is_cut_off((scope, selector), used_in_recipe):
            continue
        function = gin_internals._REGISTRY[selector].wrapped
        name = selector.rpartition(".")[2]
        if _is_macro(selector):
            if (scope, selector) not in used:
                problems.append(f"The macro {scope} is set, but nothing refers to it.")
            elif _is_required(bindings.get("value")):
                problems.append(f"{scope} must be chosen: add --gin_bindings='{scope} = ...'.")
            continue
        if (scope, selector) not in used and ("", selector) not in used:
            problems.append(
                f"Nothing uses {name}.{next(iter(bindings))} in this run: {name} is not part of "
                f"{' or '.join(sorted(roots - {'run'}))} as configured. Remove it, or refer "
                f"to @{name} where it should act."
            )
            continue
        for parameter, value in bindings.items():
            value = _resolved(value, f"{name}.{parameter}")
            if _is_required(value):
                problems.append(f"{name}.{parameter} must be set: it has no default.")
            elif wanted := unfit(function, parameter, value, _bound_to(value)):
                problems.append(
                    f"{name}.{parameter} must be {wanted}. Received: {name}.{parameter}={value!r}."
                )
    if problems:
        raise RequestError("\n".join(problems))
    _bind_encoder_everywhere()
    gin.finalize()


def _bind_encoder_everywhere() -> None:
    """Has every job build the encoder that the recipe pretrains, unless it is bound there."""
    bound = {s: b.get("encoder") for (scope, s), b in gin_internals._CONFIG.items() if not scope}
    encoder, *others = (
        gin_internals._REGISTRY.get_match(name) for name in ("pretrain", *_WITH_ENCODER)
    )
    if encoder and bound.get(encoder.selector) is not None:
        for other in others:
            if other and bound.get(other.selector) is None:
                gin.bind_parameter(f"{other.selector}.encoder", bound[encoder.selector])


def recipe_jobs() -> set[str]:
    """Returns the jobs of the recipes, including those that a later recipe replaced."""
    return set(_RECIPE_JOBS)


def job_name(requested: str | None, known: Sequence[str]) -> str:
    """Returns the job to run: the command line's, otherwise the recipe's."""
    name = requested or default_job()
    if name not in known:
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise RequestError(f"The job must be one of {', '.join(known)}. Received: {name!r}.{hint}")
    return name


def record() -> str:
    """Returns all values in force so far, defaults included, as a gin file for the same run."""
    return gin.operative_config_str()


def in_force() -> dict[str, str]:
    """Returns the values of every function called so far: 'function.parameter' -> gin's text.

    Macros are replaced by their values. Defaults that gin cannot write, such as functions, are
    skipped.
    """
    found = {}
    for (scope, selector), parameters in gin_internals._OPERATIVE_CONFIG.items():
        if not _is_macro(selector):
            for parameter, value in parameters.items():
                name = f"{scope}/{selector.rpartition('.')[2]}.{parameter}".lstrip("/")
                found[name] = repr(_resolved(value, name))
    return found


def defaults() -> dict[str, str | None]:
    """Returns the defaults of all parameters: 'function.parameter' -> text as of `in_force`.

    A function that gin knows becomes a reference, such as '@lars'; None means that there is no
    default.
    """
    return {
        f"{selector.rpartition('.')[2]}.{name}": _default_text(parameter.default)
        for selector, configurable in gin_internals._REGISTRY.items()
        for name, parameter in inspect.signature(configurable.wrapped).parameters.items()
    }


def _default_text(value: Any) -> str | None:
    if value is inspect.Parameter.empty or _is_required(value):
        return None
    configurable = configurable_of(value)
    return f"@{configurable.selector.rpartition('.')[2]}" if configurable else repr(value)


def _is_cut_off(key: tuple[str, str], used_in_recipe: set[tuple[str, str]]) -> bool:
    """Returns whether only the recipe uses `key`, and the command line adds no parameter to it."""
    in_recipe = _RECIPE.get(key, {})
    return key in used_in_recipe and gin_internals._CONFIG[key].keys() == in_recipe.keys()


def _reachable(roots: Iterable[str], bound: Bindings) -> set[tuple[str, str]]:
    """Returns the (scope, selector) keys in the trees of references under `roots`."""
    seen: set[tuple[str, str]] = set()
    waiting = [("", gin_internals._REGISTRY.get_match(root).selector) for root in roots]
    while waiting:
        key = waiting.pop()
        if key in seen:
            continue
        seen.add(key)
        scope, selector = key
        bindings = dict(bound.get(("", selector), {}))
        bindings.update(bound.get(key, {}))
        for value in bindings.values():
            waiting.extend(ref.config_key for ref in gin_internals.iterate_references(value))
        function = gin_internals._REGISTRY[selector].wrapped
        for name, parameter in inspect.signature(function).parameters.items():
            configurable = name not in bindings and configurable_of(parameter.default)
            if configurable:
                waiting.append((scope, configurable.selector))
    return seen


def _bound_to(value: Any) -> set[str]:
    """Returns the parameters that bindings set for a reference."""
    if not isinstance(value, gin_internals.ConfigurableReference):
        return set()
    scope, selector = value.config_key
    keys = {("", selector), (scope, selector)}
    return {name for key in keys for name in gin_internals._CONFIG.get(key, {})}


def _is_macro(selector: str) -> bool:
    return selector == "gin.macro"


def _is_required(value: Any) -> bool:
    return value is gin.REQUIRED or "gin.REQUIRED" in repr(value)


def _resolved(value: Any, name: str) -> Any:
    """Replaces macros by their values, so that checks see the value that the function receives.

    Raises:
      RequestError: the value is infinite or too large.
    """
    count = 0

    def resolve(value: Any, depth: int = 0) -> Any:
        nonlocal count
        count += 1
        if count > _MAX_VALUES or depth > _MAX_DEPTH:
            raise RecursionError
        is_reference = isinstance(value, gin_internals.ConfigurableReference)
        if is_reference and value.evaluate and _is_macro(value.configurable.selector):
            bound = gin_internals._CONFIG.get(value.config_key, {})
            if "value" not in bound:
                raise RequestError(f"{name} refers to {value}, which must be set. It is not.")
            return resolve(bound["value"], depth + 1)
        if isinstance(value, (list, tuple)):
            return type(value)([resolve(item, depth + 1) for item in value])
        if isinstance(value, dict):
            return {key: resolve(item, depth + 1) for key, item in value.items()}
        return value

    try:
        return resolve(value)
    except RecursionError as error:
        raise RequestError(
            f"{name} must hold at most {_MAX_VALUES:,} values, {_MAX_DEPTH} deep. Received: "
            "lists or macros that make more, or that hold themselves."
        ) from error


def _first_lines(error: BaseException, limit: int = 4) -> str:
    return "\n".join(str(error).strip().splitlines()[:limit])
