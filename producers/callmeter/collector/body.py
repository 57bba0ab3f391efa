"""A request's body, read and decompressed within bounds: what is not there yet costs nothing."""

from __future__ import annotations

import asyncio
import io
import zlib
from typing import Protocol

#: Below this decompressing takes less time than handing it to a thread.
_INLINE_BYTES = 64 * 1024
ENCODINGS = ("gzip", "zstd")


class BodyTooLargeError(ValueError):
    """Over the limit, before or after decompression."""


class BadBodyError(ValueError):
    """Not what its ``Content-Encoding`` says."""


class UnknownEncodingError(ValueError):
    """A ``Content-Encoding`` that is not served."""


class Chunks(Protocol):
    """A stream of bytes, as aiohttp's ``request.content``."""

    async def readany(self) -> bytes:
        """The next bytes, empty at the end."""
        ...


async def read_body(content: Chunks, encoding: str, limit: int) -> bytes:
    """All of the body, plain, at most ``limit`` bytes.

    Reading stops at the first byte over the limit; decompression likewise, so a bomb is never
    inflated. A body that a server in front has decompressed already is taken as it is.
    """
    parts: list[bytes] = []
    size = 0
    while chunk := await content.readany():
        size += len(chunk)
        if size > limit:
            raise BodyTooLargeError
        parts.append(chunk)
    body = b"".join(parts)
    if encoding in ("", "identity") or body.startswith(b"{"):
        return body
    if encoding not in ENCODINGS:
        raise UnknownEncodingError
    inflate = _gunzip if encoding == "gzip" else _unzstd
    if len(body) <= _INLINE_BYTES:
        return inflate(body, limit)
    return await asyncio.to_thread(inflate, body, limit)


def _gunzip(body: bytes, limit: int) -> bytes:
    plain = b""
    while body:  # a gzip body may have several members (RFC 1952, section 2.2)
        member = zlib.decompressobj(wbits=31)
        try:
            plain += member.decompress(body, limit + 1 - len(plain))
        except zlib.error:
            raise BadBodyError from None
        if len(plain) > limit:
            raise BodyTooLargeError
        if not member.eof:
            raise BadBodyError
        body = member.unused_data
    return plain


def _unzstd(body: bytes, limit: int) -> bytes:
    import zstandard

    # A frame names the memory its decoder needs; RFC 8878 asks for 8 MiB from every decoder.
    decoder = zstandard.ZstdDecompressor(max_window_size=8 * 2**20)
    try:
        with decoder.stream_reader(io.BytesIO(body), read_across_frames=True) as reader:
            plain = reader.read(limit + 1)
            if len(plain) > limit:
                raise BodyTooLargeError
    except zstandard.ZstdError:
        raise BadBodyError from None
    return plain
