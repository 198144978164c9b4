"""Tells, without a TPU, whether a recipe compiles for one, fits, and how long a step might take.

    python tools/preflight.py --gin_file=gin/r50_4x.gin --topology=v3:8x8 --topology=v5e:16x16

The same as `python -m simclr_tf.run --job=preflight` with preflight.topologies bound; all other
flags are passed on. Needs the extra [preflight].
"""

import sys

from simclr_tf import run


def main(argv: list[str]) -> int:
    """Runs the job, and returns the program's exit code."""
    topologies = [a.partition("=")[2] for a in argv if a.startswith("--topology=")]
    rest = [a for a in argv if not a.startswith("--topology=")]
    if "--suggest" in rest:
        rest[rest.index("--suggest")] = "--gin_bindings=preflight.suggest = True"
    if "--help" in rest:
        print(__doc__)
    if topologies:
        rest.append(f"--gin_bindings=preflight.topologies = {topologies}")
    return run.main(["--job=preflight", *rest])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
