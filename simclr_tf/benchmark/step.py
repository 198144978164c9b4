"""The cost of a training step, compared with a plain one and with the machine's matrix products."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import tensorflow as tf

from simclr_tf.benchmark.plain import plain_copy, plain_step
from simclr_tf.benchmark.timing import Timing, median_and_range, take_turns
from simclr_tf.distribute.strategy import host_slice
from simclr_tf.errors import RequestError
from simclr_tf.preflight.flop import training_flop
from simclr_tf.training.loss_scale import rule_of
from simclr_tf.training.plan import plan_text
from simclr_tf.training.probe import online_probe
from simclr_tf.training.run import Run
from simclr_tf.training.step import gradients_at_once, make_train_step

PLAIN = "plain Keras step, float32"
# Size of the matrices whose product measures the machine, and how many products are timed at once.
_PRODUCT_SIDE, _PRODUCTS = 2048, 4

Step = Callable[[dict[str, tf.Tensor]], object]


def measure(run: Run, rounds: int) -> str:
    """Times the recipe's step on one batch that is already on the device.

    Returns:
      Two tables. The first compares the step with a plain one and with itself in float32, and shows
      its share of the floating-point rate of large matrix products; the second shows where its
      time goes.

    Raises:
      RequestError: the recipe needs several replicas or micro-batches; a plain step has neither.
    """
    plan = run.plan
    if plan.num_replicas > 1 or plan.num_microbatches > 1:
        raise RequestError(
            "A step is compared with a plain one, of one replica that works off its batch at once. "
            f"Received: {plan.num_replicas} replicas, micro-batches of {plan.microbatch_size}. "
            "Leave out strategy.cpu_replicas and pretrain.microbatch_size, and set "
            "pretrain.global_batch_size to the share of one replica."
        )
    batch = one_batch(run)
    ours = f"this step, {plan.precision}"
    parts = _parts(run)
    steps = {PLAIN: _plain_step(run)}
    if plan.precision != "float32":
        steps["this step, float32"] = _step_in_float32(run)
    steps[ours] = run.train_step()
    flop = training_flop(run.method, plan.global_batch_size)
    precisions = dict.fromkeys(["float32", plan.precision.removeprefix("mixed_")])
    contestants = {name: timed(run, step, batch, flop) for name, step in (steps | parts).items()}
    contestants |= {_product_name(dtype): _product(dtype) for dtype in precisions}
    timings = {t.name: t for t in take_turns(contestants, rounds=rounds, baseline=PLAIN)}
    views = batch["images"].shape[0]
    product = timings[_product_name(list(precisions)[-1])]
    return "\n\n".join(
        [
            plan_text(run.plan_lines()),
            _table([timings[name] for name in steps], flop / views, product),
            "\n".join(
                f"{_product_name(d)}: {_giga(timings[_product_name(d)])}" for d in precisions
            ),
            _table_of_parts([*(timings[name] for name in parts), timings[ours]]),
        ]
    )


def one_batch(run: Run) -> dict[str, tf.Tensor]:
    """Returns the first batch of the run's last stage, whose views have their full size."""
    host = host_slice(tf.distribute.InputContext(), run.plan.global_batch_size)
    return tf.nest.map_structure(tf.identity, next(iter(run.pipeline.dataset(host))))


def _plain_step(run: Run) -> Step:
    with run.strategy.scope():
        networks = run.method.networks
        return plain_step(plain_copy(networks["encoder"]), plain_copy(networks["projection_head"]))


def _step_in_float32(run: Run) -> Step:
    with run.strategy.scope():
        method = run.rebuild()
        classes = run.plan.source.num_classes if run.probe else None
        probe = online_probe(classes, method.networks["encoder"])
        rule = rule_of(run.optimizer)
        optimizer = type(rule).from_config(rule.get_config())
        optimizer.build(method.networks.trainable_variables)
    return make_train_step(method, optimizer, probe=probe)


def _parts(run: Run) -> dict[str, Step]:
    """Returns all parts of a step but the last, each including the parts before it."""

    def forward_pass(batch):
        return run.method.embed(batch, training=True)

    def with_loss(batch):
        return run.method.loss(forward_pass(batch), run.method.targets(batch))

    def with_gradients(batch):
        return gradients_at_once(run.method, batch)

    return {"forward": forward_pass, "loss, metrics": with_loss, "backward": with_gradients}


def timed(run: Run, step: Step, batch: dict[str, tf.Tensor], units: int) -> Callable[[], int]:
    """Returns a function that runs one step to its end, and returns the units of work it counts."""
    # All outputs of the step are returned; otherwise TensorFlow would prune their computation.
    compiled = tf.function(lambda: run.strategy.run(step, args=(batch,)), autograph=False)

    def once() -> int:
        tf.nest.flatten(compiled())[0].numpy()
        return units

    return once


def _product(dtype: str):
    a = tf.cast(tf.random.stateless_uniform([_PRODUCT_SIDE] * 2, (0, 1), -1, 1), dtype)

    def once() -> int:
        for _ in range(_PRODUCTS):
            c = tf.matmul(a, a)
        c[0, 0].numpy()
        return _PRODUCTS * 2 * _PRODUCT_SIDE**3

    return once


def _product_name(dtype: str) -> str:
    return f"product of two {_PRODUCT_SIDE} x {_PRODUCT_SIDE} matrices, {dtype}"


def _table(steps: Sequence[Timing], flop_per_view: float, product: Timing) -> str:
    lines = [
        "| | views/s | ratio | GFLOP/s | of the product's | peak growth (MiB) |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for t in steps:
        views = [rate / flop_per_view for rate in t.rates]
        share = statistics.median(a / b for a, b in zip(t.rates, product.rates, strict=True))
        peak = "" if t.peak_mib is None else f"{t.peak_mib:,.0f}"
        lines.append(
            f"| {t.name} | {median_and_range(views, '.1f')} | {median_and_range(t.ratios, '.2f')}"
            f" | {t.rate / 1e9:,.0f} | {share:.0%} | {peak} |"
        )
    return "\n".join(lines)


def _table_of_parts(ends: Sequence[Timing]) -> str:
    """Shows the share of each part: the time until its end minus that of the previous part.

    The fastest round of each counts, since other work on the machine can only add time.
    """
    lines = ["| part | share of the step |", "| --- | ---: |"]
    names = [*(t.name for t in ends[:-1]), "optimizer, probe"]
    whole, before = max(ends[-1].rates), 0.0
    for name, t in zip(names, ends, strict=True):
        until = whole / max(t.rates)
        lines.append(f"| {name} | {until - before:.0%} |")
        before = until
    return "\n".join(lines)


def _giga(t: Timing) -> str:
    return f"{median_and_range([rate / 1e9 for rate in t.rates], ',.0f')} GFLOP/s"
