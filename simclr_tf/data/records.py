"""Record files read in order: shuffled epoch by epoch for training, or plainly for evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from simclr_tf.data import cache
from simclr_tf.data.source import RECORDS_PER_FILE, RecordFile, RecordSource
from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.errors import RequestError

_READERS = 16
_SECOND_SEED = 1


def epochs(
    source: RecordSource,
    seed: int,
    shuffle_buffer: int,
    host: HostSlice,
    start: int,
    block: int,
    before: int,
) -> tf.data.Dataset:
    """A host's records of epoch 0, 1, 2, ..., each in its own order, from its `start`-th on.

    Files are dealt out over hosts; with fewer files than hosts, records are.

    Returns:
      An endless dataset of {'record': string [P + K], 'index': int64 [P + K], 'epoch': int64
      [P + K]}: K = `block` records, and the P = `before` that came before them, which may take the
      places of records that do not decode.
    """
    # From some blocks earlier, whose records take the places of bad ones after `start`.
    earlier = min(start // block, -(-before // block))
    start -= earlier * block
    numbered = list(enumerate(source.files))
    by_file = len(numbered) >= host.num_hosts
    mine = numbered[host.index :: host.num_hosts] if by_file else numbered
    total = sum(file.count for _, file in mine)
    if not by_file:
        total = len(range(host.index, total, host.num_hosts))
    if not total:
        raise RequestError(
            f"Every host needs records. Received: none for host {host.index} of {host.num_hosts} "
            f"from {source.name}. Repack the data into more files."
        )

    read = _reader(source, mine)
    counts = tf.constant([file.count for _, file in mine], tf.int64)

    def read_whole(i: tf.Tensor) -> tf.data.Dataset:
        # A file that has become shorter would move all positions after it, without a word.
        return read(i).apply(tf.data.experimental.assert_cardinality(counts[i]))

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        # The second seed of `shuffle` below: else it is the program's global one, which the order
        # would depend on, and which TensorFlow 2.21 cannot combine with a tensor if it is 0.
        tf.compat.v1.set_random_seed(seed or _SECOND_SEED)
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(mine)), tf.stack([tf.cast(seed, tf.int64), epoch])
        )
        files = tf.data.Dataset.from_tensor_slices(order)
        records = files.interleave(
            read_whole,
            cycle_length=_READERS,
            num_parallel_calls=_READERS,
            deterministic=True,
        )
        if not by_file:
            records = records.shard(host.num_hosts, host.index)
        records = records.shuffle(shuffle_buffer, seed=tf.cast(seed, tf.int64) * 2**20 + epoch).map(
            lambda record: record | {"epoch": epoch}
        )
        done = tf.constant(start % total, tf.int64)
        return records.skip(tf.where(epoch == start // total, done, 0))

    stream = tf.data.Dataset.range(start // total, tf.int64.max).flat_map(one_epoch)
    blocks = _with_predecessors(stream.batch(block, drop_remainder=True), before)
    return blocks.skip(earlier)


def in_order(source: RecordSource) -> tf.data.Dataset:
    """Every record once, in the order of the files: (record, index)."""
    read = _reader(source, list(enumerate(source.files)))
    records = tf.data.Dataset.range(len(source.files)).flat_map(read)
    return records.map(lambda record: (record["record"], record["index"]))


def _reader(source: RecordSource, files: Sequence[tuple[int, RecordFile]]):
    paths = tf.constant([cache.location(file.path, source.cache) for _, file in files], tf.string)
    numbers = tf.constant([number for number, _ in files], tf.int64)
    skips = tf.constant([file.skip for _, file in files], tf.int64)
    counts = tf.constant([file.count for _, file in files], tf.int64)

    def read(i: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(paths[i]).skip(skips[i]).take(counts[i])
        return records.enumerate(skips[i]).map(
            lambda n, record: {"record": record, "index": numbers[i] * RECORDS_PER_FILE + n}
        )

    return read


def _with_predecessors(blocks: tf.data.Dataset, count: int) -> tf.data.Dataset:
    """Puts before each block the last `count` rows of those before; before the first, its own."""
    empty = {n: tf.zeros([count], spec.dtype) for n, spec in blocks.element_spec.items()}

    def step(state, block):
        before, first = state
        size = block["index"].shape[0]
        own = tf.range(-count, 0) % size
        rows = {
            k: tf.concat([tf.where(first, tf.gather(v, own), before[k]), v], axis=0)
            for k, v in block.items()
        }
        return ({k: v[-count:] for k, v in rows.items()}, False), rows

    return blocks.scan((empty, True), step)
