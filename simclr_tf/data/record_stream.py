"""Reads records of files in order: shuffled for training, unshuffled for evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

from simclr_tf.distribute.strategy import HostSlice
from simclr_tf.errors import RequestError

RECORDS_PER_FILE = 2**20
# A record's number is file number * 2^20 + record number.
# Files that are open at a time; records come from them in turn.
_OPEN_FILES = 16
# Places counted at a time: 128 KiB.
_PLACES = 2**14
_SECOND_SEED = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordFile:
    """The `count` records of a TFRecord file that come after the first `skip`.

    Attributes:
      compression: of the whole file: '' (none), 'GZIP' or 'ZLIB'.
    """

    path: str
    skip: int
    count: int
    compression: str = ""


def epochs(
    files: Sequence[RecordFile],
    seed: int,
    shuffle_buffer: int,
    host: HostSlice,
    start: int,
    block: int,
    after: int,
    name: str,
) -> tf.data.Dataset:
    """Returns a host's records of epoch 0, 1, 2, ..., each in its own order, from `start` on.

    Files are distributed over hosts; with fewer files than hosts, records are.

    Returns:
      An endless dataset of {'record': string [K + A], 'index': int64 [K + A], 'epoch': int64
      [K + A]}: K = `block` records, and the next A = `after` records, which may replace records
      that do not decode. (Earlier records would have to be read again when a run resumes.)
    """
    host_epochs = HostEpochs.of(files, seed, shuffle_buffer, host, name)
    first, done = divmod(start, host_epochs.total)
    stream = tf.data.Dataset.range(first + (done > 0), tf.int64.max).flat_map(host_epochs.whole)
    if done:
        one = tf.data.Dataset.range(first, first + 1)
        stream = one.flat_map(lambda epoch: host_epochs.rest(epoch, done)).concatenate(stream)
    return _blocks(stream, block, after)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostEpochs:
    """The epochs of a host, which reads whole files or, with fewer files than hosts, some records.

    Attributes:
      files: the files that it reads, with their numbers.
      read: i -> the records of the i-th of `files`.
      counts: the number of records of each file, int64 [F].
      total: the number of records of an epoch.
      seed: the run's seed.
      shuffle_buffer: records held to shuffle.
      share: the host, if it takes every num_hosts-th record; None if it takes all.
    """

    files: Sequence[tuple[int, RecordFile]]
    read: Callable[[tf.Tensor], tf.data.Dataset]
    counts: tf.Tensor
    total: int
    seed: int
    shuffle_buffer: int
    share: HostSlice | None

    @classmethod
    def of(
        cls,
        files: Sequence[RecordFile],
        seed: int,
        shuffle_buffer: int,
        host: HostSlice,
        name: str,
    ) -> HostEpochs:
        """Returns the epochs of `host`, from the files of the source called `name`.

        Raises:
          RequestError: the host has no records.
        """
        numbered = list(enumerate(files))
        by_file = len(numbered) >= host.num_hosts
        mine = numbered[host.index :: host.num_hosts] if by_file else numbered
        total = sum(file.count for _, file in mine)
        if not by_file:
            total = len(range(host.index, total, host.num_hosts))
        if not total:
            raise RequestError(
                f"Every host needs records. Received: none for host {host.index} of "
                f"{host.num_hosts} from {name}. Repack the data into more files."
            )
        return cls(
            files=mine,
            read=_reader(mine),
            counts=tf.constant([file.count for _, file in mine], tf.int64),
            total=total,
            seed=seed,
            shuffle_buffer=shuffle_buffer,
            share=None if by_file else host,
        )

    def whole(self, epoch: tf.Tensor) -> tf.data.Dataset:
        """Returns the records of an epoch."""

        def read_all(i: tf.Tensor) -> tf.data.Dataset:
            return _exactly(self.read(i), self.counts[i])

        return _of_epoch(epoch, self._shuffled(epoch, read_all, _OPEN_FILES))

    def rest(self, epoch: tf.Tensor, done: tf.Tensor | int) -> tf.data.Dataset:
        """Returns an epoch without its first `done` records, reading no file further than needed.

        Empty records stand for those already used, and are skipped.
        """
        needed = self.needed(epoch, done)

        def read_needed(i: tf.Tensor) -> tf.data.Dataset:
            empty = {"record": tf.constant(""), "index": tf.constant(-1, tf.int64)}
            others = tf.data.Dataset.from_tensors(empty).repeat(self.counts[i] - needed[i])
            return _exactly(self.read(i).take(needed[i]), needed[i]).concatenate(others)

        return _of_epoch(epoch, self._shuffled(epoch, read_needed, _OPEN_FILES).skip(done))

    def needed(self, epoch: tf.Tensor, done: tf.Tensor | int) -> tf.Tensor:
        """Counts the records of each file, int64 [F], to read for all but the first `done`.

        The order depends on the counts of the files alone, so this reads no file.
        """
        places = self._shuffled(epoch, lambda i: _places(i, self.counts[i]), None).skip(done)

        def add(needed: tf.Tensor, some: tf.Tensor) -> tf.Tensor:
            file, record = some // RECORDS_PER_FILE, some % RECORDS_PER_FILE
            return tf.tensor_scatter_nd_max(needed, file[:, None], record + 1)

        return places.batch(_PLACES).reduce(tf.zeros_like(self.counts), add)

    def _shuffled(
        self, epoch: tf.Tensor, read: Callable[[tf.Tensor], tf.data.Dataset], readers: int | None
    ) -> tf.data.Dataset:
        """Shuffles what `read` returns for each file, by the epoch's order."""
        # Sets the second seed of `shuffle` below. Otherwise the order would depend on the program's
        # global seed, which TensorFlow 2.21 cannot combine with a tensor if it is 0.
        tf.compat.v1.set_random_seed(self.seed or _SECOND_SEED)
        seed = tf.cast(self.seed, tf.int64)
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(self.files)), tf.stack([seed, epoch])
        )
        records = tf.data.Dataset.from_tensor_slices(order).interleave(
            read,
            cycle_length=_OPEN_FILES,
            num_parallel_calls=readers,
            deterministic=True if readers else None,
        )
        if self.share:
            records = records.shard(self.share.num_hosts, self.share.index)
        return records.shuffle(self.shuffle_buffer, seed=seed * 2**20 + epoch)


def in_order(files: Sequence[RecordFile]) -> tf.data.Dataset:
    """Returns every record once, in the order of the files: (record, index)."""
    read = _reader(list(enumerate(files)))
    records = tf.data.Dataset.range(len(files)).flat_map(read)
    return records.map(lambda record: (record["record"], record["index"]))


def _reader(files: Sequence[tuple[int, RecordFile]]):
    paths = tf.constant([file.path for _, file in files], tf.string)
    numbers = tf.constant([number for number, _ in files], tf.int64)
    skips = tf.constant([file.skip for _, file in files], tf.int64)
    counts = tf.constant([file.count for _, file in files], tf.int64)
    compressions = tf.constant([file.compression for _, file in files], tf.string)

    def read(i: tf.Tensor) -> tf.data.Dataset:
        records = tf.data.TFRecordDataset(paths[i], compressions[i])
        records = records.skip(skips[i]).take(counts[i])
        return records.enumerate(skips[i]).map(
            lambda n, record: {"record": record, "index": numbers[i] * RECORDS_PER_FILE + n}
        )

    return read


def _of_epoch(epoch: tf.Tensor, records: tf.data.Dataset) -> tf.data.Dataset:
    return records.map(lambda record: record | {"epoch": epoch})


def _exactly(records: tf.data.Dataset, count: tf.Tensor) -> tf.data.Dataset:
    """Asserts the count: a file that became shorter would silently shift all later positions."""
    return records.apply(tf.data.experimental.assert_cardinality(count))


def _places(i: tf.Tensor, count: tf.Tensor) -> tf.data.Dataset:
    """Returns, in place of the records of file i, their numbers, i * 2^20 + 0, 1, 2, ..."""
    first = tf.cast(i, tf.int64) * RECORDS_PER_FILE
    return tf.data.Dataset.range(first, first + count)


def _blocks(records: tf.data.Dataset, size: int, after: int) -> tf.data.Dataset:
    """Returns blocks of `size` consecutive records, each with the next `after` records."""
    windows = records.window(size + after, shift=size, drop_remainder=True)

    def joined(window: dict[str, tf.data.Dataset]) -> tf.data.Dataset:
        parts = {k: v.batch(size + after, drop_remainder=True) for k, v in window.items()}
        return tf.data.Dataset.zip(parts)

    return windows.flat_map(joined)
