"""`RecordSource`: encoded images in records of TFRecord files, which are read in order."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import tensorflow as tf

from simclr_tf.data import record_stream
from simclr_tf.data.first_valid import SUBSTITUTES, Block
from simclr_tf.data.order import Order
from simclr_tf.data.places import Place
from simclr_tf.data.record_stream import RECORDS_PER_FILE, RecordFile
from simclr_tf.data.source import Source, file_state, identity_of_files

# Placeholder of the label until the record is parsed.
_UNKNOWN = np.int64(-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordSource(Source):
    """Records of TFRecord files.

    Attributes:
      files: the files, each with its range of records.
      parse: serialized record -> (encoded image, label); the label is -1 where there is none.
      features: names of the features that `parse` reads.
      counts: images of each class, int64 [C], if labels were read when the source was opened.
    """

    files: Sequence[RecordFile]
    parse: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
    features: Sequence[str | None] = ()
    counts: np.ndarray | None = None

    def class_counts(self) -> np.ndarray | None:
        return self.counts

    def select(self, positions: Sequence[int] | np.ndarray) -> Source:
        positions = np.asarray(positions)
        return self._part(positions, files=_runs(self.files, positions), counts=None)

    def sample_positions(self, count: int, seed: int) -> np.ndarray:
        """Returns the first records of every file, in proportion to its length; ignores `seed`."""
        ends = np.cumsum([file.count for file in self.files])
        shares = np.diff(ends * count // self.num_examples, prepend=0)
        starts = ends - [file.count for file in self.files]
        return np.concatenate(
            [start + np.arange(share) for start, share in zip(starts, shares, strict=True)]
        )

    def files_read(self) -> list[str]:
        return sorted({file.path for file in self.files})

    def places(self) -> list[Place]:
        return [Place(f.path, f.skip, f.skip + f.count) for f in self.files]

    def unpack(self, stored: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = self.parse(stored)
        return self.with_upper_bits(encoded), label

    def stored(self) -> tf.data.Dataset:
        records = record_stream.in_order(self._located())
        return records.map(lambda record, index: (record, _UNKNOWN, index))

    def blocks(self, order: Order) -> tuple[tf.data.Dataset, Callable[..., Block]]:
        size, host = order.block_size, order.host
        records = record_stream.epochs(
            self._located(),
            order.seed,
            order.shuffle_buffer,
            host,
            order.start_step * host.per_host,
            size,
            after=SUBSTITUTES,
            name=self.name,
        )

        def opened(block: dict[str, tf.Tensor]) -> Block:
            def other(n: tf.Tensor, attempt: tf.Tensor):
                row = n + attempt
                return block["record"][row], _UNKNOWN, block["index"][row]

            epoch, record, asked = (block[k][:size] for k in ("epoch", "record", "index"))
            return Block(epoch, record, tf.fill([size], _UNKNOWN), asked, other)

        return records, opened

    def indices(self) -> np.ndarray:
        """Returns file number * 2^20 + record number, which needs no reading of earlier files."""
        return np.concatenate(
            [
                number * RECORDS_PER_FILE + file.skip + np.arange(file.count)
                for number, file in enumerate(self.files)
            ]
        )

    def name_of(self, index: int) -> str:
        number, record = divmod(index, RECORDS_PER_FILE)
        return f"{self.files[number].path}, record {record}"

    def identity(self) -> str:
        return identity_of_files(
            f"{os.path.basename(f.path)} {f.skip} {f.count}" for f in self.files
        )

    def _contents(self) -> Iterator[bytes]:
        yield repr(tuple(self.features)).encode()
        for file in self.files:
            yield repr((file.skip, file.count)).encode() + file_state(file.path)

    def _located(self) -> list[RecordFile]:
        return [dataclasses.replace(f, path=self.location(f.path)) for f in self.files]


def _runs(files: Sequence[RecordFile], positions: np.ndarray) -> list[RecordFile]:
    """Groups positions into runs of consecutive records, each a `RecordFile`."""
    ends = np.cumsum([file.count for file in files])
    runs: list[RecordFile] = []
    for position in positions:
        number = int(np.searchsorted(ends, position, side="right"))
        file = files[number]
        record = file.skip + int(position - (ends[number] - file.count))
        last = runs[-1] if runs else None
        if last and last.path == file.path and last.skip + last.count == record:
            runs[-1] = dataclasses.replace(last, count=last.count + 1)
        else:
            runs.append(dataclasses.replace(file, skip=record, count=1))
    return runs
