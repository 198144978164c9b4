"""The command line: flags -> recipe -> job.

    python -m simclr_tf.run --gin_file=gin/quickstart.gin --model_dir=runs/quickstart

Exit codes: 0 done; 2 the request is wrong; 3 training diverged; 42 stopped after saving, safe to
start again with the same command.
"""

from __future__ import annotations

import os
import sys

from absl import flags, logging

from simclr_tf import jobs
from simclr_tf.errors import RequestError, RunError

_FLAGS = flags.FlagValues()
_GIN_FILE = flags.DEFINE_multi_string(
    "gin_file", [], "A recipe. May be repeated: later files win.", flag_values=_FLAGS
)
_GIN_BINDINGS = flags.DEFINE_multi_string(
    "gin_bindings",
    [],
    "One binding, such as 'pretrain.epochs = 10' or 'data.source = \"tfds:cifar10\"' (text needs "
    "its own quotes). May be repeated: wins over every file.",
    flag_values=_FLAGS,
)
_JOB = flags.DEFINE_string(
    "job",
    None,
    f"What to do: {', '.join(jobs.NAMES)}. Default: the recipe's.",
    flag_values=_FLAGS,
)
_MODEL_DIR = flags.DEFINE_string(
    "model_dir",
    None,
    "Where the run's files are written, and from where it is resumed. Default: runs/<recipe>.",
    flag_values=_FLAGS,
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Where prepared data sets lie; for a source 'folder:' the folder of images itself. Default: "
    "that of tensorflow_datasets.",
    flag_values=_FLAGS,
)
_TPU = flags.DEFINE_string(
    "tpu",
    "auto",
    "auto: a TPU where there is one; local: this host's; none; or the name of a TPU.",
    flag_values=_FLAGS,
)
_HELP = flags.DEFINE_bool("help", False, "Print this and exit.", flag_values=_FLAGS)


def main(argv: list[str] | None = None) -> int:
    """Runs the program and returns its exit code."""
    try:
        rest = _FLAGS(sys.argv if argv is None else ["run", *argv])[1:]
        if _HELP.value:
            print(f"{__doc__}\nFlags:\n{_FLAGS.main_module_help() or _FLAGS.get_help()}")
            return 0
        if rest:
            raise RequestError(f"Every argument must be a --flag=value. Received: {rest[0]!r}.")
        _run()
        return 0
    except flags.Error as error:
        print(f"error: {error}\nSee --help.", file=sys.stderr)
        return RequestError.exit_code
    except RunError as error:
        # gin adds where in the recipe's tree it was raised, which is not for the person.
        message = str(error).partition("\n  In call to configurable")[0]
        print(f"error: {message}", file=sys.stderr)
        return error.exit_code


def _run() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    if not _GIN_FILE.value and not _GIN_BINDINGS.value:
        raise RequestError("A recipe must be given, such as --gin_file=gin/quickstart.gin.")
    known = jobs.load()  # imports TensorFlow

    from simclr_tf import config

    config.load(_GIN_FILE.value, _GIN_BINDINGS.value)
    recipe_job = config.job_name(None, jobs.NAMES)
    job = config.job_name(_JOB.value, jobs.NAMES)
    config.check({recipe_job, job})
    known[job](
        jobs.Context(
            model_dir=_MODEL_DIR.value or jobs.default_model_dir(_GIN_FILE.value),
            data_dir=_DATA_DIR.value,
            tpu=_TPU.value,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
