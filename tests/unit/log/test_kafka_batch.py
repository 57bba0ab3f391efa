"""Record batches of our own: byte for byte aiokafka's, and read back by its reader."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from callmeter.log.kafka_batch import KeyValue, RecordBatch, batch_codec

TIME_MS = 1_700_000_000_123
KEYS = st.binary(min_size=1, max_size=200)
VALUES = st.one_of(st.binary(max_size=300), st.binary(min_size=1).map(lambda one: one * 3000))
RECORDS = st.lists(st.tuples(st.none() | KEYS, st.none() | VALUES), min_size=1, max_size=70)

Records = Sequence[KeyValue]


def ours(codec: str | None, records: Records, *, transactional: bool = False) -> bytes:
    batch = RecordBatch(batch_codec(codec), records, TIME_MS, transactional=transactional)
    assert batch.closed()
    assert batch.record_count() == len(records)
    batch._set_producer_state(77, 3, 1234)
    assert batch._build() is batch._build()
    return batch._build()


def theirs(records: Records, *, transactional: bool) -> bytes:
    builder = DefaultRecordBatchBuilder(
        2, 0, is_transactional=int(transactional), producer_id=77, producer_epoch=3,
        base_sequence=1234, batch_size=2**30,
    )  # fmt: skip
    for offset, (key, value) in enumerate(records):
        assert builder.append(offset, TIME_MS, key, value, []) is not None
    return bytes(builder.build())


@given(RECORDS, st.booleans())
def test_a_plain_batch_is_the_one_that_aiokafka_makes(
    records: Records, transactional: bool
) -> None:
    # The epoch of the leader is the broker's to fill in; it is not in the checksum.
    ignored = slice(12, 16)
    made, expected = (
        bytearray(make(records, transactional=transactional))
        for make in (partial(ours, None), theirs)
    )
    made[ignored] = expected[ignored]
    assert made == expected


@pytest.mark.parametrize("codec", ["zstd", "lz4", "gzip", None])
def test_every_codec_is_read_back(codec: str | None) -> None:
    records = [(b"source-%d" % (n % 3), b'{"v":1}\n' * (n * 500 + 1)) for n in range(5)]
    built = ours(codec, records)
    batch = DefaultRecordBatch(built)
    assert batch.validate_crc()
    assert [(one.key, one.value, one.timestamp, one.offset) for one in batch] == [
        (key, value, TIME_MS, offset) for offset, (key, value) in enumerate(records)
    ]
    assert codec is None or len(built) < sum(len(value) for _, value in records) / 10


def test_without_the_zstandard_package_zstd_is_cramjams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    records = [(b"key", b"value" * 1000)]
    assert [one.value for one in DefaultRecordBatch(ours("zstd", records))] == [records[0][1]]


def test_what_does_not_shrink_travels_as_it_is() -> None:
    records = [(b"k", bytes(range(256)))]
    assert ours("zstd", records) == ours(None, records)


def test_a_batch_without_a_producer_is_not_sent() -> None:
    with pytest.raises(RuntimeError, match="idempotent"):
        RecordBatch(batch_codec(None), [(b"k", b"v")], TIME_MS)._build()
