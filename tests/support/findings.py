"""What a method's rules find in a report."""

from collections.abc import Mapping

from simclr_tf.methods.base import Method
from simclr_tf.methods.rules import Report, first_finding

# A run that is learning, some epochs after its start.
SOUND = {
    "step": 100,
    "epoch": 2.0,
    "global_batch_size": 8,
    "chance": None,
    "warmup_steps": 0,
    "num_classes": None,
    "progress": 0.9,
    "progress_before": 0.8,
    "best_progress": 0.9,
}


def findings(method: Method, numbers: Mapping[str, float], **facts) -> list[str]:
    """Returns the kinds of faults in numbers, of a sound run but for `facts`."""
    report = Report(numbers=numbers, **{**SOUND, **facts})
    found = (first_finding(report, chain) for chain in method.rules())
    return [finding.kind for finding in found if finding]
