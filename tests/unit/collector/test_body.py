"""Bodies are read and decompressed within their bound, bombs included."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest
import zstandard

from callmeter.collector.body import (
    BadBodyError,
    BodyTooLargeError,
    UnknownEncodingError,
    read_body,
)

PLAIN = b'{"v":1}\n' * 1000
LIMIT = 100_000


class Chunks:
    """A body that comes in pieces; ``read`` counts what was asked for."""

    def __init__(self, data: bytes, size: int = 1000) -> None:
        self._parts = [data[i : i + size] for i in range(0, len(data), size)]
        self.read = 0

    async def readany(self) -> bytes:
        if not self._parts:
            return b""
        part = self._parts.pop(0)
        self.read += len(part)
        return part


def pack(encoding: str, data: bytes) -> bytes:
    return gzip.compress(data) if encoding == "gzip" else zstandard.compress(data)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_compressed(encoding: str) -> None:
    assert await read_body(Chunks(pack(encoding, PLAIN)), encoding, LIMIT) == PLAIN


@pytest.mark.parametrize("encoding", ["", "identity", "gzip", "zstd"])
async def test_plain_even_where_a_server_in_front_unpacked_it(encoding: str) -> None:
    assert await read_body(Chunks(PLAIN), encoding, LIMIT) == PLAIN


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_several_members(encoding: str) -> None:
    packed = pack(encoding, PLAIN) + pack(encoding, PLAIN)
    assert await read_body(Chunks(packed), encoding, LIMIT) == PLAIN * 2


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1])
async def test_the_limit_is_of_the_plain_body(encoding: str, size: int) -> None:
    packed = pack(encoding, b"x" * size)
    if size > LIMIT:
        with pytest.raises(BodyTooLargeError):
            await read_body(Chunks(packed), encoding, LIMIT)
    else:
        assert len(await read_body(Chunks(packed), encoding, LIMIT)) == LIMIT


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
async def test_a_bomb_is_not_inflated(encoding: str) -> None:
    bomb = pack(encoding, bytes(200 * 2**20))
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError):
            await read_body(Chunks(bomb), encoding, LIMIT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40 * 2**20


async def test_the_worst_frame_there_is() -> None:
    """Four bytes for 128 KiB, again and again: 12 GiB in 400 kB, as no compressor makes it."""
    block = ((128 * 1024) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    bomb = b"\x28\xb5\x2f\xfd\x00\x58" + block * 100_000
    tracemalloc.start()
    try:
        with pytest.raises(BodyTooLargeError):
            await read_body(Chunks(bomb, 64 * 1024), "zstd", 8 * 2**20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 72 * 2**20


async def test_reading_stops_at_the_limit() -> None:
    chunks = Chunks(b"x" * 10 * LIMIT)
    with pytest.raises(BodyTooLargeError):
        await read_body(chunks, "", LIMIT)
    assert chunks.read <= LIMIT + 1000


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("size", [10, 100_000])
async def test_not_what_it_says(encoding: str, size: int) -> None:
    with pytest.raises(BadBodyError):
        await read_body(Chunks(b"\x00" * size), encoding, 10 * LIMIT)


async def test_a_gzip_body_that_ends_early() -> None:
    with pytest.raises(BadBodyError):
        await read_body(Chunks(gzip.compress(PLAIN)[:-9]), "gzip", LIMIT)


async def test_other_encodings() -> None:
    with pytest.raises(UnknownEncodingError):
        await read_body(Chunks(b"abc"), "br", LIMIT)
