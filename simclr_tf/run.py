"""The command line: flags -> recipe -> job.

    python -m simclr_tf.run --gin_file=gin/quickstart.gin --model_dir=runs/quickstart

Exit codes: 0 done; 2 the request is wrong; 3 training diverged; 42 stopped after saving, safe to
start again with the same command. A fault of this program itself ends with its traceback, and 1.

From Python, one run at a time: `code = main(["--gin_file=gin/quickstart.gin"])`.
"""

from __future__ import annotations

import contextlib
import gc
import logging as std_logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence

from absl import flags, logging

from simclr_tf import jobs, names
from simclr_tf.distribute import environment, tpu_runtime
from simclr_tf.errors import PreemptedError, RequestError, RunError
from simclr_tf.tensorflow_start import import_tensorflow

# gin's bindings and TensorFlow's devices belong to the process.
_RUNNING = threading.Lock()


def _define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    _define_what(values)
    _define_where(values)
    flags.DEFINE_bool(
        "debug",
        False,
        "Print the whole traceback of whatever ends the run, before its message.",
        flag_values=values,
    )
    flags.DEFINE_bool("help", False, "Print this and exit.", flag_values=values)
    return values


def _define_what(values: flags.FlagValues) -> None:
    flags.DEFINE_multi_string(
        "gin_file", [], "A recipe. May be repeated: later files win.", flag_values=values
    )
    flags.DEFINE_multi_string(
        "gin_bindings",
        [],
        "One binding, such as 'pretrain.epochs = 10' or 'data.source = \"tfds:cifar10\"' (text "
        "needs its own quotes). May be repeated: wins over every file.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "job",
        None,
        f"What to do: {', '.join(jobs.MODULES)}. Default: the recipe's.",
        flag_values=values,
    )


def _define_where(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "model_dir",
        None,
        "Where the run's files are written, and from where it is resumed. Default: runs/<recipe>.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "Where prepared data sets lie; for a source 'folder:' the folder of images itself. "
        "Default: that of tensorflow_datasets.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "tpu",
        "auto",
        "auto: a TPU where there is one; local: this host's; none; or the name of a TPU.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "runtime",
        "tensorflow",
        ("tensorflow", "pjrt"),
        "What takes the steps of training. pjrt: jax's client, for TPUs, GPUs or "
        "strategy.cpu_replicas devices of the CPU beside TensorFlow's wheel for CPUs.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "tpu_runtime",
        "auto",
        tpu_runtime.NAMES,
        "What drives this host's TPU. auto: TensorFlow's PJRT plug-in for v5e and later, its older "
        "StreamExecutor for v2 to v4.",
        flag_values=values,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the program on `argv` (default: the command line's) and returns its exit code.

    A Python program may call it again and again, in any thread, one run at a time. Outside of the
    main thread, SIGTERM and Ctrl-C do not save first.
    """
    names.print_anything()
    values = _define_flags()
    try:
        rest = values(["run", *(sys.argv[1:] if argv is None else argv)])[1:]
        if values.help:
            print(f"{__doc__}\nFlags:\n{values.get_help(include_special_flags=False)}")
            return 0
        if rest:
            raise RequestError(f"Every argument must be a --flag=value. Received: {rest[0]!r}.")
        with _alone():
            _run(values)
        return 0
    except flags.Error as error:
        print(f"error: {error}\nSee --help.", file=sys.stderr)
        return RequestError.exit_code
    except KeyboardInterrupt as error:
        _tell(error, "Interrupted. The same command goes on from the last save.", values.debug)
        return PreemptedError.exit_code
    except RunError as error:
        # gin appends where in the recipe's tree the error was raised, which a person need not see.
        _tell(error, str(error).partition("\n  In call to configurable")[0], values.debug)
        return error.exit_code


def _tell(error: BaseException, message: str, debug: bool) -> None:
    if debug:
        # gin raises a copy of an error at each call that it passes; only the first has its cause.
        first = error
        while first.__cause__ is None and first.__context__ is not None:
            first = first.__context__
        error.__cause__ = first.__cause__
        traceback.print_exception(type(error), error, error.__traceback__)
    print(f"error: {message}", file=sys.stderr)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """While open, refuses a second run in this process."""
    if not _RUNNING.acquire(blocking=False):
        raise RequestError(
            "A process does one run at a time. Received: a second one before the first has ended. "
            "Wait for it, or start this one in another process: python -m simclr_tf.run ..."
        )
    try:
        yield
    finally:
        _RUNNING.release()


def _is_shown(record: std_logging.LogRecord) -> bool:
    """Returns whether a line is logged: from libraries only warnings."""
    return record.levelno > std_logging.INFO or "simclr_tf" in record.pathname


def _run(values: flags.FlagValues) -> None:
    flags.FLAGS.mark_as_parsed()  # or absl's first line would be that they are not
    flags.FLAGS.logtostderr = True
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    logging.get_absl_handler().addFilter(_is_shown)  # added once, however often this is called
    if not values.gin_file and not values.gin_bindings:
        raise RequestError("A recipe must be given, such as --gin_file=gin/quickstart.gin.")
    model_dir = names.local(values.model_dir or jobs.default_model_dir(values.gin_file))
    problem = environment.libtpu_problem()
    if problem:  # importing TensorFlow would end the process
        raise RequestError(f"{problem} To mend it, {environment.reinstall('tpu')}")
    tpu = _tensorflow_tpu(values)
    _choose_tpu_runtime(values.tpu_runtime, tpu)
    import_tensorflow()
    known = jobs.load()

    from simclr_tf import custom_gradients

    with _recipe_loaded(values), custom_gradients.forgotten():
        job = jobs.checked(values.job)
        gc.collect()  # networks and graphs of an earlier run, which hold themselves in cycles
        known[job](
            jobs.Context(
                model_dir=model_dir,
                data_dir=values.data_dir and os.path.expanduser(values.data_dir),
                tpu=tpu,
                runtime=values.runtime,
                arguments=_given(values),
            )
        )


def _given(values: flags.FlagValues) -> tuple[str, ...]:
    """Returns the given flags that a run with another job in another folder would have too."""
    several = [(name, v) for name in ("gin_file", "gin_bindings") for v in values[name].value]
    kept = ("data_dir", "tpu", "runtime", "tpu_runtime")
    single = [(name, values[name].value) for name in kept if values[name].present]
    return tuple(f"--{name}={value}" for name, value in (*several, *single))


@contextlib.contextmanager
def _recipe_loaded(values: flags.FlagValues) -> Iterator[None]:
    """While open, gin has the recipe's bindings; none is left for what this process does next."""
    import gin

    from simclr_tf import config

    try:
        config.load([*map(os.path.expanduser, values.gin_file)], values.gin_bindings)
        yield
    finally:
        gin.clear_config()


def _tensorflow_tpu(values: flags.FlagValues) -> str:
    """Returns the TPU that TensorFlow shall use, as `--tpu` names it."""
    if values.runtime == "tensorflow":
        return values.tpu
    for name, left_out in (("tpu", ("auto", "none")), ("tpu_runtime", ("auto",))):
        if values[name].value not in left_out:
            raise RequestError(
                f"--{name} is for TensorFlow, and --runtime=pjrt finds TPUs by itself. Received: "
                f"--{name}={values[name].value}. Leave one of them out."
            )
    return "none"


def _choose_tpu_runtime(asked: str, tpu: str) -> None:
    before = tpu_runtime.loaded_library()
    runtime = tpu_runtime.choose(asked, tpu)
    if runtime:
        logging.info("TPU runtime: %s", runtime)
    if "tensorflow" in sys.modules and tpu_runtime.loaded_library() != before:
        logging.warning(
            "TensorFlow was imported before this runtime was chosen, and loaded another. Call "
            "simclr_tf.run.main before anything imports TensorFlow."
        )


if __name__ == "__main__":
    sys.exit(main())
