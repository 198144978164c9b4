"""Rules that find faults in the settings and numbers of DINO."""

from __future__ import annotations

from simclr_tf.methods.rules import FIRST_VERDICT, Finding, Report, Rule

# Updates in which a teacher forgets what it was. One that is the student of now, or of the update
# before, learns nothing (0.1 %, section 5.2).
SHORT_MEMORY = 2.0
# Share of ln K from which the teacher's distribution counts as uniform.
UNIFORM = 0.99
# A single prototype gives 1.
FEWEST_USED = 1.5


def fast_teacher(momentum: float) -> Finding | None:
    """Returns a finding if the teacher is hardly another network than the student, else None."""
    if (1.0 - momentum) * SHORT_MEMORY <= 1.0:
        return None
    text = (
        f"the teacher is nearly the student itself, as dino.momentum is {momentum:g}: both agree "
        "without learning. Raise dino.momentum; the paper's is 0.996."
    )
    return Finding("teacher too fast", text)


def _uniform(report: Report) -> str | None:
    if report.step <= max(report.warmup_steps, FIRST_VERDICT):
        return None
    entropy = report.numbers["teacher_entropy"]
    if entropy < UNIFORM * report.chance:
        return None
    return (
        f"the teacher gives all prototypes the same probability (entropy {entropy:.3f}, of at most "
        f"{report.chance:.3f}), so there is nothing to learn from it. Lower "
        "dino.teacher_temperature, or start it lower and warm it up."
    )


def _one_dimension(report: Report) -> str | None:
    used = report.numbers["prototypes_used"]
    if report.step <= FIRST_VERDICT or used >= FEWEST_USED:
        return None
    return (
        f"the teacher puts nearly all images on one prototype ({used:.2f} used), so the loss "
        f"({report.numbers['dino_loss']:.3f}) falls while nothing is learned. Keep "
        "dino.centre_momentum near 0.9; raise dino.teacher_temperature, or lower the learning rate."
    )


COLLAPSES = (Rule("collapse", _one_dimension), Rule("collapse to uniform", _uniform))
