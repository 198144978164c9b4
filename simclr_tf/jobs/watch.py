"""`watch`: follows a run, and evaluates each of its checkpoints."""

from __future__ import annotations

import contextlib
import functools
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence

import gin

from simclr_tf import jobs
from simclr_tf.context import Context
from simclr_tf.errors import PreemptedError, RequestError
from simclr_tf.evaluation.checkpoint_follower import Follower
from simclr_tf.evaluation.frozen_encoder import Frozen, frozen_encoder
from simclr_tf.evaluation.history import History
from simclr_tf.evaluation.result import Result
from simclr_tf.export.weights import UNTRAINED, PretrainedWeights, pretrained
from simclr_tf.jobs.embed import embed
from simclr_tf.jobs.knn import knn
from simclr_tf.jobs.label_free import label_free
from simclr_tf.jobs.lbfgs import lbfgs
from simclr_tf.jobs.linear_eval import cached
from simclr_tf.jobs.probe_invariance import probe_invariance
from simclr_tf.training.failures import as_request_error
from simclr_tf.training.preemption import handling

_WITHOUT_LABELS = {"embed", "label_free"}
_FOREVER = 1e9  # the system sleeps no longer than some 100 years


@gin.configurable(denylist=["context"])
def watch(
    context: Context,
    *,
    pretrained: Callable[..., PretrainedWeights] = pretrained,
    encoder: Callable[..., Frozen] = frozen_encoder,
    knn: Callable[..., Result] = knn,
    linear_eval: Callable[..., Result] = cached,
    lbfgs: Callable[..., Result] = lbfgs,
    probe_invariance: Callable[..., Result] = probe_invariance,
    label_free: Callable[..., Result] = label_free,
    embed: Callable[..., Result] = embed,
    evaluations: Sequence[str] = ("knn", "linear_eval"),
    poll_seconds: float = 30.0,
    patience_minutes: float = 180.0,
) -> None:
    """Evaluates every checkpoint of a run, during training or later, up to its last step.

    The run is not changed, and no features are kept: the numbers go into `results/watch.jsonl` and
    TensorBoard. A restart skips what that file already holds.

    Args:
      context: the command line's values.
      pretrained: finds the run by its folder, which need not exist yet.
      encoder: builds the networks, and gives the data.
      knn: the evaluation of that name, as are the next five.
      linear_eval: on features that are computed once.
      lbfgs: the transfer protocol.
      probe_invariance: needs `frozen_encoder.layer = 'projection'`.
      label_free: needs no labels, nor does `embed`.
      embed: overwrites its files of the previous checkpoint.
      evaluations: which of these run on each checkpoint.
      poll_seconds: time between two looks at the run's folder.
      patience_minutes: how long an unfinished run may show neither a new checkpoint nor a new
        report.

    Raises:
      RequestError: recipe or data differ from the run's, or patience has run out.
      PreemptedError: stopped by SIGTERM or SIGINT.
    """
    known = {
        "knn": knn,
        "linear_eval": linear_eval,
        "lbfgs": lbfgs,
        "probe_invariance": probe_invariance,
        "label_free": label_free,
        "embed": embed,
        **jobs.added_evaluations(),
    }
    _check(evaluations, known, poll_seconds=poll_seconds, patience_minutes=patience_minutes)
    with _stopped_on_request():
        with as_request_error():
            run = pretrained(model_dir=context.model_dir, followed=True)
            frozen = encoder(
                context=context,
                pretrained=functools.partial(pretrained, path=UNTRAINED),
                keep_features=False,
            )
            _open(frozen, evaluations)
            history = History(context.model_dir, run.path)
        chosen = {name: known[name] for name in evaluations}

        def evaluate(weights: PretrainedWeights, names: Sequence[str]) -> None:
            looked_at = frozen.refilled(weights)

            def encoder_of(context: Context, layer: str = frozen.layer) -> Frozen:
                return looked_at.of_layer(layer)

            for name in names:
                history.add(weights.step, name, chosen[name](context, encoder=encoder_of))

        follower = Follower(run, frozen.networks, history, tuple(chosen), evaluate)
        follower.follow(poll_seconds, 60 * patience_minutes)


def _open(frozen: Frozen, evaluations: Sequence[str]) -> None:
    """Refuses wrong data before the first checkpoint."""
    if set(evaluations) <= _WITHOUT_LABELS:
        frozen.data.train()
    else:
        frozen.sources()


@contextlib.contextmanager
def _stopped_on_request() -> Iterator[None]:
    """SIGTERM ends the job at once, as Ctrl-C does: a restart loses nothing but time."""
    try:
        with handling(signal.default_int_handler):
            yield
    except KeyboardInterrupt as error:
        raise PreemptedError(
            "Stopped on request. What was evaluated is noted; the same command goes on from there."
        ) from error


def _check(evaluations: Sequence[str], known: Mapping[str, Callable], **positive: float) -> None:
    if not evaluations or set(evaluations) - known.keys():
        raise RequestError(
            f"watch.evaluations must hold some of {', '.join(known)}. Received: "
            f"watch.evaluations={tuple(evaluations)!r}."
        )
    for name, value in positive.items():
        if not 0 < value <= _FOREVER:
            raise RequestError(
                f"watch.{name} must be positive, and at most {_FOREVER:g}. Received: "
                f"watch.{name}={value:g}."
            )
