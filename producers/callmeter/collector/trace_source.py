"""A source of the collector's own: numbers the traces of one project and gets them into the log."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass

import msgspec

from callmeter._version import __version__
from callmeter.clock import Clock
from callmeter.collector.context import ApiError, Context
from callmeter.collector.ingest import append
from callmeter.collector.trace_events import TraceEvent
from callmeter.ids import uuid7
from callmeter.log.record import NewRecord
from callmeter.schema.envelope import MAX_BYTES, MAX_EVENTS, Header, encode
from callmeter.schema.events import Heartbeat
from callmeter.schema.reasons import DropReason
from callmeter.schema.topics import EVENTS

log = logging.getLogger("callmeter.collector")

#: Traces that wait for a log that is away; beyond it the hook is told 503 and the trace is counted
#: as dropped in the source's headers.
MAX_PENDING = 10_000
MAX_PENDING_BYTES = 32 * 2**20
HEARTBEAT_S = 10.0
#: A source without a trace for so long is closed cleanly; the next trace opens another.
IDLE_S = 60.0
#: A call whose end never came is not waited for longer than this.
MAX_OPEN_S = 3600.0
MAX_OPEN = 10_000
_LONG_OPEN_S = 30.0
_RETRY_S = 1.0
_HEADER_ROOM = 4096


@dataclass(slots=True)
class _Waiting:
    line: bytes
    done: asyncio.Future[None]


class TraceSource:
    """One source, one project. An envelope is re-sent until the log has it: seq has no holes."""

    def __init__(self, context: Context, project: str, *, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._context = context
        self._clock: Clock = context.clock
        self._project = project
        self._heartbeat_s = heartbeat_s
        self._source = uuid7(self._clock.now_us() // 1000)
        self._seq = 0
        self._accepted = 0
        self._dropped = 0
        self._waiting: deque[_Waiting] = deque()
        self._sending: list[_Waiting] = []
        self._bytes = 0
        self._open: OrderedDict[str, float] = OrderedDict()  # call id -> when it began
        self._last_trace_s = self._clock.monotonic_s()
        self._work = asyncio.Event()
        self._closing = False
        self._task = asyncio.create_task(self._live())

    @property
    def closed(self) -> bool:
        """Whether it has said its last word; a trace needs a new source then."""
        return self._closing

    def add(self, event: TraceEvent) -> asyncio.Future[None]:
        """Queue an event; the future is done once the log has it. ``ApiError`` 503 when full."""
        if len(self._waiting) >= MAX_PENDING or self._bytes + len(event.line) > MAX_PENDING_BYTES:
            self._dropped += 1
            raise ApiError(503, "trace_queue_full", "the log is away", retry_after_s=5)
        self._last_trace_s = self._clock.monotonic_s()
        if not event.begins:
            self._open.pop(event.call_id, None)
        elif len(self._open) < MAX_OPEN:
            self._open[event.call_id] = self._last_trace_s
        return self._queue(event.line)

    async def close(self, timeout_s: float) -> None:
        """Send what waits and a clean last word, within the time."""
        self._closing = True
        self._work.set()
        await asyncio.wait({self._task}, timeout=timeout_s)
        self._task.cancel()

    def _queue(self, line: bytes) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(line, done))
        self._bytes += len(line)
        self._work.set()
        return done

    async def _live(self) -> None:
        try:
            await self._run()
        except Exception:
            # A bug. Nobody waits for ever, and the next trace gets another source: this one shows
            # up as ended uncleanly.
            log.exception("a source of traces failed")
            self._closing = True
            for waiting in (*self._sending, *self._waiting):
                waiting.done.cancel()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await self._work.wait()
            except TimeoutError:
                self._forget_stale()
                idle_s = self._clock.monotonic_s() - self._last_trace_s
                self._closing = self._closing or (idle_s >= IDLE_S and not self._open)
                self._queue(self._heartbeat())
            self._work.clear()
            if self._closing and not self._waiting:
                self._queue(self._heartbeat())
            while self._waiting:
                self._sending = self._cut()
                await self._send(self._sending)
            if self._closing:
                return

    def _cut(self) -> list[_Waiting]:
        """The oldest lines that fit into one envelope."""
        lines: list[_Waiting] = []
        size = _HEADER_ROOM
        while self._waiting and len(lines) < MAX_EVENTS:
            size += len(self._waiting[0].line) + 1
            if lines and size > MAX_BYTES:
                break
            lines.append(self._waiting.popleft())
            self._bytes -= len(lines[-1].line)
        return lines

    async def _send(self, lines: list[_Waiting]) -> None:
        self._accepted += len(lines)
        header = Header(
            source=self._source,
            seq=self._seq,
            n=len(lines),
            sent_us=self._clock.now_us(),
            project=self._project,
            environment=self._context.config.trace_environment,
            sdk=f"callmeter-collector/{__version__}",
            accepted=self._accepted,
            dropped={DropReason.QUEUE_FULL.value: self._dropped} if self._dropped else {},
            last=self._closing and not self._waiting,
        )
        self._seq += 1
        data = encode(header, [waiting.line for waiting in lines])
        record = NewRecord(EVENTS.name, self._source.encode(), data)
        while True:
            try:
                await append(self._context, [record])
                break
            except ApiError:  # the same bytes go again: a number that was given is never left out
                await asyncio.sleep(_RETRY_S)
            except Exception:
                log.exception("appending traces failed")
                await asyncio.sleep(_RETRY_S)
        for waiting in lines:
            if not waiting.done.done():
                waiting.done.set_result(None)

    def _forget_stale(self) -> None:
        oldest_s = self._clock.monotonic_s() - MAX_OPEN_S
        while self._open and next(iter(self._open.values())) < oldest_s:
            self._open.popitem(last=False)

    def _heartbeat(self) -> bytes:
        now_s = self._clock.monotonic_s()
        long_open = [call for call, began in self._open.items() if now_s - began > _LONG_OPEN_S]
        beat = Heartbeat(
            ts_us=self._clock.now_us(), open=len(self._open), open_long=long_open[:MAX_EVENTS]
        )
        return msgspec.json.encode(beat)
