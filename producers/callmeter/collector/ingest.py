"""``POST /v1/envelopes``: take envelopes, append them, answer once the log has them.

All of a body goes in or none: it is judged before anything is appended, so a 4xx means that nothing
was. Only headers are read here; what is in the lines is the meter's to judge.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from callmeter.collector.context import (
    CONTEXT,
    RETRY_AFTER_LOG_S,
    ApiError,
    Context,
    json_response,
    require_write,
)
from callmeter.collector.keys import Grant
from callmeter.collector.metrics import BYTES, ENVELOPES, EVENTS
from callmeter.collector.reading import body_in_hand
from callmeter.errors import CannotWriteError, UnreachableError
from callmeter.log.record import Appended, NewRecord
from callmeter.schema.envelope import Header, HeaderError, decode_header, split_envelopes
from callmeter.schema.reasons import RefusedReason
from callmeter.schema.topics import EVENTS as EVENTS_TOPIC

PATH = "/v1/envelopes"


@dataclass(frozen=True, slots=True)
class Taken:
    """An envelope of a body: its header, and its bytes as they came."""

    header: Header
    data: bytes


def install(app: web.Application) -> None:
    """Add the route."""
    app.router.add_post(PATH, post_envelopes)


async def post_envelopes(request: web.Request) -> web.Response:
    """See docs/guides/collector.md for the answers."""
    context = request.app[CONTEXT]
    grant = require_write(request)
    context.admit(grant, 0, 0)
    limit = grant.limits.body_bytes or context.config.max_body_bytes
    async with body_in_hand(request, context, limit) as body:
        taken = parse(body, grant.limits.envelope_bytes or context.config.max_envelope_bytes)
        _check_projects(taken, grant)
        context.admit(grant, len(taken), len(body))
        records = [NewRecord(EVENTS_TOPIC.name, t.header.source.encode(), t.data) for t in taken]
        places = await append(context, records)
    context.metrics.add(ENVELOPES, len(taken))
    context.metrics.add(EVENTS, sum(t.header.n for t in taken))
    context.metrics.add(BYTES, sum(len(t.data) for t in taken))
    results = [
        {**_name(t.header), "partition": p.partition, "offset": p.offset}
        for t, p in zip(taken, places, strict=True)
    ]
    return json_response({"results": results})


async def append(context: Context, records: Sequence[NewRecord]) -> list[Appended]:
    """Append within the time-out; ``ApiError`` 503 when the log is away or full.

    The records may be in the log nevertheless: sending the same envelopes again is safe.
    """
    started_s = time.perf_counter()
    try:
        async with asyncio.timeout(context.config.append_timeout_s):
            places = await context.appender.append(records)
    except TimeoutError:
        problem = "the log did not answer in time"
    except (UnreachableError, CannotWriteError) as exc:
        problem = str(exc)
    else:
        context.metrics.observe_append(time.perf_counter() - started_s)
        context.log_failed_s = None
        return places
    context.log_failed_s = context.clock.monotonic_s()
    raise ApiError(503, "log_unreachable", problem, retry_after_s=RETRY_AFTER_LOG_S)


def parse(body: bytes, max_envelope_bytes: int) -> list[Taken]:
    """The envelopes of a body; ``ApiError`` 400 or 413 names line, place and reason."""
    taken: list[Taken] = []
    start = 0
    try:
        for data in split_envelopes(body):
            end = data.find(b"\n")
            header = decode_header(data if end < 0 else data[:end])
            if len(data) > max_envelope_bytes:
                raise ApiError(
                    413,
                    RefusedReason.TOO_LARGE,
                    f"an envelope of {len(data)} bytes is over the limit of {max_envelope_bytes}",
                    details={**_where(body, start, taken), **_name(header)},
                )
            taken.append(Taken(header, data))
            start += len(data)
    except HeaderError as exc:
        where = _where(body, start, taken)
        raise ApiError(
            400, RefusedReason.BAD_HEADER, f"line {where['line']}: {exc}", details=where
        ) from None
    return taken


def _where(body: bytes, start: int, before: Sequence[Taken]) -> dict[str, object]:
    """The line of the body, from 1, and the place of the envelope, from 0."""
    return {"line": 1 + body.count(b"\n", 0, start), "envelope": len(before)}


def _name(header: Header) -> dict[str, object]:
    return {"source": header.source, "seq": header.seq}


def _check_projects(taken: Sequence[Taken], grant: Grant) -> None:
    for place, envelope in enumerate(taken):
        header = envelope.header
        if not grant.covers(header.project):
            raise ApiError(
                403,
                "project",
                f"this key does not cover the project {header.project!r}",
                details={"envelope": place, **_name(header)},
            )
