"""A request's body, read and decompressed within bounds: what is not there yet costs nothing."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

ENCODINGS = ("gzip", "zstd")
#: A zstd block of 4 bytes may stand for 128 KiB (RFC 8878, section 3.1.1.2), and the decoder gives
#: all that its input stands for at once, so it is fed little at a time: 32 MiB at the very worst,
#: for a moment and for one request, as no other is looked at meanwhile.
_ZSTD_SLICE = 1024
#: A gzip stream is inflated in steps of so many plain bytes.
_GZIP_STEP = 256 * 1024
#: A frame names the memory its decoder needs; RFC 8878 asks for 8 MiB from every decoder.
_ZSTD_WINDOW = 8 * 2**20


class BodyTooLargeError(ValueError):
    """Over the limit, before or after decompression."""


class BadBodyError(ValueError):
    """Not what its ``Content-Encoding`` says."""


class UnknownEncodingError(ValueError):
    """A ``Content-Encoding`` that is not served."""


class SlowBodyError(ValueError):
    """It comes too slowly to be waited for."""


class Chunks(Protocol):
    """A stream of bytes, as aiohttp's ``request.content``."""

    async def readany(self) -> bytes:
        """The next bytes, empty at the end."""
        ...


class Inflater(Protocol):
    """Turns pieces of a packed body into plain pieces; ``complete`` at the end of a stream."""

    complete: bool

    def feed(self, data: bytes) -> Iterator[bytes]: ...


async def read_body(
    content: Chunks,
    encoding: str,
    limit: int,
    *,
    on_chunk: Callable[[int], None] = lambda _received: None,
    mark: bytes = b"{",
) -> bytes:
    """All of the body, plain, at most ``limit`` bytes.

    Unpacked as it comes: reading stops at the first byte over the limit, packed or plain, so a bomb
    is never inflated. ``on_chunk`` is told what has come so far and may raise. A body that begins
    with ``mark`` has been unpacked by a server in front already and is taken as it is.
    """
    parts: list[bytes] = []
    received = size = 0
    inflater: Inflater | None = None
    first = True
    while chunk := await content.readany():
        received += len(chunk)
        on_chunk(received)
        if received > limit:
            raise BodyTooLargeError
        if first:
            first = False
            if encoding not in ("", "identity") and not (mark and chunk.startswith(mark)):
                inflater = _inflater(encoding)
        for plain in (chunk,) if inflater is None else inflater.feed(chunk):
            size += len(plain)
            if size > limit:
                raise BodyTooLargeError
            parts.append(plain)
    if inflater is not None and not inflater.complete:
        raise BadBodyError
    return b"".join(parts)


def _inflater(encoding: str) -> Inflater:
    if encoding == "gzip":
        return _Gunzip()
    if encoding == "zstd":
        return _Unzstd()
    raise UnknownEncodingError


class _Gunzip:
    """A gzip body may have several members (RFC 1952, section 2.2)."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self.complete = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self.complete:
                self._member = zlib.decompressobj(wbits=31)
                self.complete = False
            try:
                yield self._member.decompress(data, _GZIP_STEP)
                while not self._member.eof and self._member.unconsumed_tail:
                    yield self._member.decompress(self._member.unconsumed_tail, _GZIP_STEP)
            except zlib.error:
                raise BadBodyError from None
            self.complete = self._member.eof
            data = self._member.unused_data


class _Unzstd:
    def __init__(self) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._frame = self._context.decompressobj()
        self.complete = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        view = memoryview(data)
        for start in range(0, len(view), _ZSTD_SLICE):
            piece = bytes(view[start : start + _ZSTD_SLICE])
            while piece:
                if self.complete:
                    self._frame = self._context.decompressobj()
                    self.complete = False
                try:
                    yield self._frame.decompress(piece)
                except self._error:
                    raise BadBodyError from None
                self.complete = self._frame.eof
                piece = self._frame.unused_data if self.complete else b""
