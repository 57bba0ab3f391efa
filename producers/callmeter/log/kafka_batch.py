"""A Kafka record batch (magic 2) built in one go: joined, compressed, summed.

aiokafka's own builder copies each value three times, and compresses with a context made anew. What
is here is what ``AIOKafkaProducer.send_batch`` and the sender behind it ask a builder for, so that
the idempotent producer's sequence numbers and retries stay aiokafka's
(docs/decisions/0024-kafka-batches-of-our-own.md). The format: Apache Kafka's
``DefaultRecordBatch.java`` and ``DefaultRecord.java``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from aiokafka import codec
from aiokafka.record.util import calc_crc32c

from callmeter.log.kafka_zstd import LEVEL

#: Base offset, length, leader epoch, magic, crc | attributes, last offset delta, first and last
#: time in ms, producer id, its epoch, base sequence, records.
_HEAD = struct.Struct(">qiibI")
_SUMMED = struct.Struct(">hiqqqhii")
#: What the length does not count: itself and the base offset.
_BEFORE_LENGTH = 12
_MAGIC = 2
_NO_LEADER_EPOCH = -1

#: Lines repeat those right before them: 128 KiB back and a table that stays in the core's first
#: cache find as much as level 1's own tables, in three quarters of the time for a large batch.
_WINDOW_LOG, _HASH_LOG = 17, 13
#: Where no codec is named.
PLAIN = 0
_GZIP, _LZ4, _ZSTD = 1, 3, 4
_TRANSACTIONAL = 16

#: A codec's number in a batch's attributes, and its function; None sends bytes as they are.
Codec = tuple[int, Callable[[bytes], bytes] | None]
KeyValue = tuple[bytes | None, bytes | None]


def batch_codec(name: str | None) -> Codec:
    """The codec by Kafka's name for it; zstd at level 1, with a context of its own if it can be.

    A codec is used by one thread at a time.
    """
    if name is None:
        return PLAIN, None
    if name == "gzip":
        return _GZIP, codec.gzip_encode
    if name == "lz4":
        return _LZ4, codec.lz4_encode
    try:
        import zstandard
    except ImportError:
        return _ZSTD, lambda data: bytes(codec.zstd_encode(data, LEVEL))
    tables = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, window_log=_WINDOW_LOG, hash_log=_HASH_LOG
    )
    return _ZSTD, zstandard.ZstdCompressor(compression_params=tables).compress


class RecordBatch:
    """Records (key, value) without headers, as a builder that is closed from the start.

    A value of None is a tombstone. ``transactional``: it is part of its producer's transaction.
    """

    __slots__ = ("_attributes", "_body", "_built", "_count", "_time_ms")

    def __init__(
        self,
        codec: Codec,
        records: Sequence[KeyValue],
        time_ms: int,
        *,
        transactional: bool = False,
    ) -> None:
        number, compress = codec
        pieces: list[bytes] = []
        for offset, (key, value) in enumerate(records):
            around = _before_value(offset, key, value)
            needs = len(around) + len(value or b"") + 1
            pieces += (_varint(needs), around, value or b"", b"\0")
        body = b"".join(pieces)
        if compress is not None and len(packed := compress(body)) < len(body):
            self._attributes, self._body = number, packed
        else:
            self._attributes, self._body = PLAIN, body
        if transactional:
            self._attributes |= _TRANSACTIONAL
        self._count = len(records)
        self._time_ms = time_ms
        self._built: bytes | None = None

    def _set_producer_state(
        self, producer_id: int, producer_epoch: int, base_sequence: int
    ) -> None:
        """Called once by the sender, before it takes the batch for the first time."""
        last = self._count - 1
        summed = _SUMMED.pack(
            self._attributes,
            last,
            self._time_ms,
            self._time_ms,
            producer_id,
            producer_epoch,
            base_sequence,
            self._count,
        )
        rest = summed + self._body
        length = _HEAD.size + len(rest) - _BEFORE_LENGTH
        head = _HEAD.pack(0, length, _NO_LEADER_EPOCH, _MAGIC, calc_crc32c(rest))
        self._built, self._body = head + rest, b""

    def _build(self) -> bytes:
        if self._built is None:
            raise RuntimeError("a batch is sent by an idempotent producer")
        return self._built

    def size(self) -> int:
        """Bytes on the wire, but for the batch's header before it is sent."""
        return len(self._body if self._built is None else self._built)

    def record_count(self) -> int:
        """How many records are in it."""
        return self._count

    def close(self) -> None:
        """Nothing can be added anyway."""

    def closed(self) -> bool:
        return True


def _before_value(offset: int, key: bytes | None, value: bytes | None) -> bytes:
    """Attributes, time and offset relative to the batch's, the key, and the value's length."""
    place = b"\0\0" + _varint(offset)
    return place + _varint(_length(key)) + (key or b"") + _varint(_length(value))


def _length(data: bytes | None) -> int:
    return -1 if data is None else len(data)


def _varint(number: int) -> bytes:
    """A number as a zigzag varint: from -1 on, below which nothing here is."""
    left = number << 1 if number >= 0 else 1
    made = bytearray()
    while left > 0x7F:
        made.append(left & 0x7F | 0x80)
        left >>= 7
    made.append(left)
    return bytes(made)
