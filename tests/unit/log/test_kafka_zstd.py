"""The level of zstd: ours on our threads, aiokafka's own on all others."""

from __future__ import annotations

import threading

from aiokafka.codec import zstd_encode
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from callmeter.log.kafka_zstd import LEVEL, fast_zstd

PAYLOAD = b"\n".join(
    b'{"kind":"call_end","call_id":"%016x","n":%d}' % (n * 0x9E3779B97F4A7C15 % 2**64, n)
    for n in range(2_000)
)


def batch() -> bytes:
    builder = DefaultRecordBatchBuilder(
        2, DefaultRecordBatch.CODEC_ZSTD, 0, -1, -1, 0, 10 * len(PAYLOAD)
    )
    builder.append(0, 1, b"key", PAYLOAD, [])
    return bytes(builder.build())


def on_a_thread(*, asked: bool) -> bytes:
    made: list[bytes] = []

    def run() -> None:
        if asked:
            fast_zstd()
        made.append(batch())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return made[0]


def test_level_1_on_the_thread_that_asked_and_the_librarys_level_on_others():
    plain = on_a_thread(asked=False)
    fast = on_a_thread(asked=True)
    assert fast != plain
    assert on_a_thread(asked=False) == plain
    # the payload is what makes the difference, and both levels are what they are said to be
    assert zstd_encode(PAYLOAD, LEVEL) != zstd_encode(PAYLOAD)


def test_asking_twice_wraps_once():
    assert on_a_thread(asked=True) == on_a_thread(asked=True)


def test_what_was_compressed_reads_back():
    records = list(DefaultRecordBatch(on_a_thread(asked=True)))
    assert [record.value for record in records] == [PAYLOAD]
