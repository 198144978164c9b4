"""Looks into TFRecord files: their compression, and the number of their records.

A record is: uint64 length, uint32 checksum of the length, `length` bytes, uint32 checksum. The
whole file may be compressed, which its content tells, as its name may not.
"""

from __future__ import annotations

import concurrent.futures
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import tensorflow as tf

from simclr_tf.data.record_stream import RecordFile
from simclr_tf.errors import RequestError

_MAX_RECORD_BYTES = 2**30
_HEADER, _CHECKSUM = 12, 4
# Bytes that are inflated at a time.
_PIECE = 2**20
# For zlib: the stream says whether it is GZIP or ZLIB.
_EITHER = 32 + zlib.MAX_WBITS
# Concurrent reads; network file systems need many.
_READERS = 16


def record_files(paths: Sequence[str]) -> list[RecordFile]:
    """Returns all records of the files.

    Raises:
      RequestError: a file is cut short or damaged, or holds something else.
    """
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(_record_file, paths))


def _record_file(path: str) -> RecordFile:
    with tf.io.gfile.GFile(path, "rb") as file:
        compression = _compression(path, file)
        file.seek(0)
        content = _Inflated(file) if compression else _Plain(file, tf.io.gfile.stat(path).length)
        try:
            count = _count(path, content)
        except zlib.error as error:
            raise RequestError(
                f"{path} is damaged: its {compression} content does not inflate ({error}). Copy it "
                "again, or leave it out."
            ) from error
    return RecordFile(path=path, skip=0, count=count, compression=compression)


class _Plain:
    """Reads forward in a file."""

    def __init__(self, file: Any, size: int):
        self._file, self._position, self._size = file, 0, size

    def read(self, length: int) -> bytes:
        """Returns the next bytes, fewer where the file ends."""
        self._file.seek(self._position)
        found = self._file.read(length)
        self._position += len(found)
        return found

    def skip(self, length: int) -> bool:
        """Passes over the next bytes; returns whether there are so many."""
        self._position += length
        return self._position <= self._size


class _Inflated:
    """Reads forward in the content of a GZIP or ZLIB file, of several members if it has them."""

    def __init__(self, file: Any):
        self._file, self._packed, self._stream = file, b"", zlib.decompressobj(_EITHER)
        self._content, self._position = b"", 0

    def read(self, length: int) -> bytes:
        """Returns the next bytes, fewer where the file ends."""
        found = b""
        while len(found) < length and self._advance():
            part = self._content[self._position : self._position + length - len(found)]
            self._position += len(part)
            found += part
        return found

    def skip(self, length: int) -> bool:
        """Passes over the next bytes; returns whether there are so many."""
        while length > 0 and self._advance():
            step = min(length, len(self._content) - self._position)
            self._position += step
            length -= step
        return length == 0

    def _advance(self) -> bool:
        """Inflates the next piece if the last one is used up; returns whether any is left."""
        while self._position == len(self._content):
            if self._stream.eof:
                self._packed = self._stream.unused_data
                self._stream = zlib.decompressobj(_EITHER)
            packed = self._packed or self._file.read(_PIECE)
            self._content, self._position = self._stream.decompress(packed, _PIECE), 0
            self._packed = b"" if self._stream.eof else self._stream.unconsumed_tail
            if not (packed or self._content):
                return False
        return True


def _compression(path: str, file: Any) -> Literal["", "GZIP", "ZLIB"]:
    """Tells by the first record, since the length of one may look like a header of zlib."""
    head = file.read(_HEADER)
    gzip = head[:3] == b"\x1f\x8b\x08"
    is_zlib = head[:1] == b"\x78" and int.from_bytes(head[:2], "big") % 31 == 0
    if _begins_record(head) or not (gzip or is_zlib):
        return ""
    file.seek(0)
    try:
        first = _Inflated(file).read(_HEADER)
    except zlib.error:
        first = b"damaged"
    if not first or _begins_record(first):
        return "GZIP" if gzip else "ZLIB"
    if is_zlib:
        return ""  # two bytes may be anything
    raise RequestError(
        f"A file of records must be a TFRecord file, plain or compressed. Received: {path}, a GZIP "
        "file of something else, or damaged. Unpack it, or leave it out."
    )


def _begins_record(head: bytes) -> bool:
    return len(head) == _HEADER and int.from_bytes(head[8:], "little") == _masked_crc(head[:8])


def _masked_crc(content: bytes) -> int:
    """Returns the checksum of TFRecord files: CRC-32C (Castagnoli), rotated and shifted."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _count(path: str, content: _Plain | _Inflated) -> int:
    """Counts records by their headers alone."""
    count = 0
    while head := content.read(_HEADER):
        length = int.from_bytes(head[:8], "little")
        if count == 0 and len(head) == _HEADER and not _begins_record(head):
            raise RequestError(
                f"A file of records must be a TFRecord file. Received: {path}, which does not "
                "begin with a record's length and checksum. Leave it out, or copy it again."
            )
        if len(head) == _HEADER and length > _MAX_RECORD_BYTES:
            raise RequestError(
                f"A record must have at most {_MAX_RECORD_BYTES >> 20} MiB. Received: "
                f"{length >> 20} in record {count} of {path}. Leave the file out."
            )
        if len(head) < _HEADER or not content.skip(length + _CHECKSUM):
            raise RequestError(
                f"{path} is cut short after record {count}. Copy it again, or leave it out."
            )
        count += 1
    return count
