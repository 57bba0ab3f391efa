"""The body of a request, within the collector's bounds of size, time and memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from callmeter.collector.body import (
    BadBodyError,
    BodyTooLargeError,
    SlowBodyError,
    UnknownEncodingError,
    read_body,
)
from callmeter.collector.context import ApiError, Context

#: Bodies other than envelopes and spans; those have the collector's own limit.
SMALL_BODY_BYTES = 2**20
#: A guess until the body is there: packed envelopes are about a tenth of themselves.
_PACKED = 10


@asynccontextmanager
async def body_in_hand(
    request: web.Request, context: Context, limit: int, *, mark: bytes = b"{"
) -> AsyncIterator[bytes]:
    """The plain body, counted among what all requests hold until the block ends.

    ``ApiError`` 408, 413, 415, 400, and 503 where too much is in hand.
    """
    declared = request.content_length
    if declared is not None and declared > limit:
        raise _too_large(limit)
    packed = "Content-Encoding" in request.headers
    held = limit if declared is None else min(declared * _PACKED if packed else declared, limit)
    if not context.memory.enter(held):
        raise ApiError(503, "busy", "too much in hand: come back", retry_after_s=1)
    try:
        body = await _read(request, context, limit, mark)
        context.memory.held += len(body) - held
        held = len(body)
        yield body
    finally:
        context.memory.leave(held)


async def small_body(request: web.Request, context: Context) -> bytes:
    """The body of a request that is never large, at most 1 MiB; ``ApiError`` as above."""
    async with body_in_hand(request, context, SMALL_BODY_BYTES) as body:
        return body


async def _read(request: web.Request, context: Context, limit: int, mark: bytes) -> bytes:
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    config = context.config
    loop = asyncio.get_running_loop()
    started_s = loop.time()

    def keep_pace(received: int) -> None:
        """A body that comes drop by drop holds a place that others could have."""
        late_s = loop.time() - started_s - config.body_grace_s
        if late_s > 0 and received < late_s * config.min_body_bytes_per_s:
            raise SlowBodyError

    try:
        async with asyncio.timeout(config.body_timeout_s):
            return await read_body(request.content, encoding, limit, on_chunk=keep_pace, mark=mark)
    except BodyTooLargeError:
        raise _too_large(limit) from None
    except BadBodyError:
        raise ApiError(
            400, "bad_encoding", f"line 1: the body is not {encoding}", details={"line": 1}
        ) from None
    except UnknownEncodingError:
        raise ApiError(415, "unknown_encoding", "send gzip, zstd or a plain body") from None
    except web.RequestPayloadError:
        raise ApiError(400, "bad_transfer", "the body broke off") from None
    except (TimeoutError, SlowBodyError):
        raise ApiError(408, "slow_body", "the body did not arrive in time") from None


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "body_too_large", f"the body is over the limit of {limit} bytes")
