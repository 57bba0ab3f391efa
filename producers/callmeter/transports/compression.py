"""Which codec a body is sent with, and the function that does it."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass

from callmeter.errors import MissingExtraError

#: Fast levels: envelopes are repetitive, and the sender's CPU is the user's.
_GZIP_LEVEL = 1
_ZSTD_LEVEL = 1
#: Below this a body travels as it is: a packet is a packet.
MIN_BYTES = 1024


@dataclass(frozen=True, slots=True)
class BodyCodec:
    """``encoding`` is the ``Content-Encoding`` token; None sends bytes as they are."""

    encoding: str | None
    compress: Callable[[bytes], bytes]

    def weaker(self) -> BodyCodec:
        """The next codec to try with a server that does not know this one."""
        return _gzip() if self.encoding == "zstd" else BodyCodec(None, _identity)


def body_codec(choice: str, *, loopback: bool) -> BodyCodec:
    """The codec for HTTP. ``auto``: none to this machine, else zstd if installed, else gzip.

    ``MissingExtraError`` if zstd is asked for by name and not installed. lz4 is Kafka's alone and
    means gzip here.
    """
    if choice == "none" or (choice == "auto" and loopback):
        return BodyCodec(None, _identity)
    if choice in ("auto", "zstd"):
        try:
            import zstandard
        except ImportError:
            if choice == "zstd":
                raise MissingExtraError("zstd compression", "collector") from None
        else:
            return BodyCodec("zstd", zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress)
    return _gzip()


def _gzip() -> BodyCodec:
    return BodyCodec("gzip", lambda body: gzip.compress(body, _GZIP_LEVEL, mtime=0))


def _identity(body: bytes) -> bytes:
    return body
