"""The process from which cells' runs are forked; `python -m simclr_tf.study.worker` starts it.

It has imported what a run needs and done nothing else, so a run starts at once, and the memory and
the devices that it takes return to the system with it. If the study's process is gone, the run is
told to stop, as by SIGTERM: it saves, and the next start of the study goes on from there.

It reads lines of JSON from its standard input: first the modules that extend the program, then
requests; and it answers each with an exit code. Any line during a run stops the run.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from typing import IO, Any

from simclr_tf import jobs, run
from simclr_tf.study import claims
from simclr_tf.tensorflow_start import import_tensorflow


def main() -> None:
    """Serves requests until standard input ends."""
    # A scheduler signals every process of a job; the study's own process tells when to stop.
    # Blocked and not ignored: a run that is stopped as it starts must not lose the signal.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    answers = os.dup(1)
    os.dup2(2, 1)  # what is printed while modules are imported is no answer
    requests = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115
    extensions = json.loads(requests.readline())
    jobs.EXTENSIONS += extensions["extensions"]
    jobs.MODULES.update(extensions["modules"])
    import_tensorflow()
    jobs.load()
    while request := requests.readline():
        code = _run(json.loads(request), requests, answers)
        os.write(answers, f"{code}\n".encode())


def _run(request: dict[str, Any], requests: IO[bytes], answers: int) -> int:
    """Runs one command in a process of its own, and returns its exit code, negative for a signal.

    Args:
      request: `arguments` of `simclr_tf.run`, `log` for its output, and the `claim` of its cell.
      requests: the study's process at its other end.
      answers: a pipe to that, which ends with this process, whatever becomes of the run.
    """
    ended, held = os.pipe()  # the run holds the second end as long as it lives
    process = os.fork()
    if not process:
        os.close(answers)
        _become(request)
    os.close(held)
    if ended not in select.select([ended, requests], [], [])[0]:
        requests.readline()
        os.kill(process, signal.SIGTERM)
    _, status = os.waitpid(process, 0)
    os.close(ended)
    return os.waitstatus_to_exitcode(status)


def _become(request: dict[str, Any]) -> None:
    """Turns this process into the run."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    claims.hold(os.open(request["claim"], os.O_RDWR))
    arguments = request["arguments"]
    sys.orig_argv = ["python", "-m", "simclr_tf.run", *arguments]  # which run.json records
    sys.exit(run.main(arguments))


if __name__ == "__main__":
    main()
