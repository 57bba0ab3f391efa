"""``GET /v1/alerts``: alerts from a position on, for ``callmeter notify`` and programs like it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping

import msgspec
import orjson
from aiohttp import web

from callmeter.collector.alert_query import AlertQuery
from callmeter.collector.alert_sources import AlertRecords
from callmeter.collector.context import CONTEXT, ApiError, RouteInstaller, require_read
from callmeter.collector.keys import ANY, Grant
from callmeter.errors import CallmeterError
from callmeter.log.place import Place, encode_place
from callmeter.log.record import LogRecord, Piece
from callmeter.schema.alerts import decode_alert

log = logging.getLogger("callmeter.collector")

PATH = "/v1/alerts"
#: One answer: alerts up to so many bytes and at least one; records looked through for them.
MAX_ANSWER_BYTES = 2**20
MAX_SCANNED = 5_000
_PIECE = 500
_LOOK_S = 0.25
_SAY_S = 60.0


class _Desk:
    """What the route works with. ``closing`` ends every wait."""

    def __init__(self, records: AlertRecords) -> None:
        self.records = records
        self.closing = asyncio.Event()
        self._ends: Mapping[int, int] = {}
        self._looked_s = -_LOOK_S
        self._said_s = -_SAY_S

    async def wait(self, at: Mapping[int, int], until_s: float) -> None:
        """Until there is more than ``at``, the time is over, or the collector stops."""
        while not self.closing.is_set() and (left_s := until_s - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):  # that is the pace of looking
                await asyncio.wait_for(self.closing.wait(), min(left_s, _LOOK_S))
            if any(end > at[partition] for partition, end in (await self._look()).items()):
                return

    async def _look(self) -> Mapping[int, int]:
        """The ends as of a moment ago: everybody who waits shares one look."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= _LOOK_S:
            self._looked_s = now_s
            self._ends = await self.records.ends()
        return self._ends

    def complain(self, exc: CallmeterError) -> None:
        """Into the log, once a minute."""
        now_s = time.monotonic()
        if now_s - self._said_s >= _SAY_S:
            self._said_s = now_s
            log.warning("alerts cannot be read: %s", exc)


_DESK: web.AppKey[_Desk] = web.AppKey("callmeter_alerts", _Desk)


def alert_routes(records: AlertRecords) -> RouteInstaller:
    """The route over a log's records, which it closes in the end."""

    def install(app: web.Application) -> None:
        desk = app[_DESK] = _Desk(records)

        async def serve(_app: web.Application) -> AsyncIterator[None]:
            yield
            await records.close()

        app.cleanup_ctx.append(serve)
        app[CONTEXT].on_drain.append(desk.closing.set)
        app.router.add_get(PATH, get_alerts)

    return install


async def get_alerts(request: web.Request) -> web.Response:
    """Alerts from ``after`` (a position of an earlier answer), ``since`` or the oldest on.

    ``since`` is a time (µs since the epoch) or ``90s``, ``15m``, ``2h``, ``7d`` ago; ``limit`` up
    to 500, 0 tells the position alone; ``wait`` seconds for the first alert, up to 30; ``project``
    (repeatable) chooses. Read keys alone: each sees the alerts of its projects, and those that
    name no project only if it reads all.
    """
    require_read(request)
    asked = AlertQuery.of(request)
    desk = request.app[_DESK]
    try:
        body = await _answer(request, desk, asked)
    except CallmeterError as exc:
        desk.complain(exc)
        raise ApiError(503, "log", "the log cannot be read now", retry_after_s=2) from None
    return web.Response(
        body=orjson.dumps(body),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


async def _answer(request: web.Request, desk: _Desk, asked: AlertQuery) -> dict[str, object]:
    until_s = time.monotonic() + asked.wait_s
    search = _Search(request, desk.records, asked, dict(await _begin(request, desk, asked)))
    await search.go_on()
    while asked.limit and not (search.found or search.more or desk.closing.is_set()):
        if time.monotonic() >= until_s:
            break
        await desk.wait(search.at, until_s)
        await search.go_on()
    log_id = request.app[CONTEXT].appender.log_id
    return {
        "log": log_id,
        "position": encode_place(Place(log_id, search.at)),
        "alerts": search.found,
        "more": search.more,
    }


async def _begin(request: web.Request, desk: _Desk, asked: AlertQuery) -> Mapping[int, int]:
    """Where to begin; ``ApiError`` for a position that is none of this log's, or is gone."""
    records = desk.records
    if asked.after is None:
        since_us = asked.since_us(request.app[CONTEXT].clock.now_us())
        return await (records.firsts() if since_us is None else records.at(since_us))
    log_id = request.app[CONTEXT].appender.log_id
    if asked.after.log_id != log_id:
        raise ApiError(409, "other_log", "the position is of another log", details={"log": log_id})
    given = asked.after.offsets
    ends = await records.ends()
    if any(partition not in ends for partition in given):
        raise ApiError(400, "bad_position", f"the log has {len(ends)} partitions of alerts")
    at = {partition: given.get(partition, 0) for partition in ends}
    for partition, end in ends.items():
        if at[partition] > end:
            raise ApiError(
                400, "bad_position", f"partition {partition} ends at {end}, before the position"
            )
    firsts = await records.firsts()
    gone = sum(max(0, firsts[partition] - at[partition]) for partition in at)
    if gone:
        rest = {partition: max(at[partition], firsts[partition]) for partition in at}
        raise ApiError(
            410,
            "removed",
            f"retention has removed {gone} records after the position",
            details={"removed": gone, "position": encode_place(Place(log_id, rest))},
        )
    return at


class _Search:
    """Goes through the records from ``at`` on and keeps what the caller may see and asks for."""

    def __init__(
        self, request: web.Request, records: AlertRecords, asked: AlertQuery, at: dict[int, int]
    ) -> None:
        self.at = at
        self.found: list[dict[str, object]] = []
        self.more = False
        self._request = request
        self._records = records
        self._asked = asked
        self._bytes = 0

    async def go_on(self) -> None:
        """To the end as it is now, as far as one answer goes; ``more`` says that it goes on."""
        ends = await self._records.ends()
        scanned, self.more = 0, False
        while self._asked.limit and self._behind(ends):
            if self._full() or scanned >= MAX_SCANNED:
                break
            piece = await self._records.read(self.at, _PIECE)
            scanned += len(piece.records)
            if piece.next == self.at:
                return  # nothing can be reached now: look again in a moment
            self._take(piece)
        self.more = self._behind(ends)

    def _behind(self, ends: Mapping[int, int]) -> bool:
        return any(self.at[partition] < end for partition, end in ends.items())

    def _full(self) -> bool:
        return len(self.found) >= self._asked.limit or self._bytes >= MAX_ANSWER_BYTES

    def _take(self, piece: Piece) -> None:
        """Up to the end of the piece, or of what an answer holds."""
        grant = require_read(self._request)  # a key may have been revoked while we waited
        for record in piece.records:
            if self._full():
                return
            shown = self._shown(record, grant)
            self.at[record.partition] = record.offset + 1
            if shown is not None:
                self.found.append(shown)
                self._bytes += len(record.value or b"")
        self.at.update(piece.next)

    def _shown(self, record: LogRecord, grant: Grant) -> dict[str, object] | None:
        """The record in an answer; None if it is not for this caller."""
        value = record.value or b""
        try:
            project = decode_alert(value).project
        except msgspec.DecodeError:
            # Whoever reads everything counts it; nobody else is told that it is there.
            project, value = "", b"null"
        if not grant.covers(project or ANY):
            return None
        if self._asked.projects and project not in self._asked.projects:
            return None
        return {
            "partition": record.partition,
            "offset": record.offset,
            "at_us": record.timestamp_us,
            "alert": orjson.Fragment(value),
        }
