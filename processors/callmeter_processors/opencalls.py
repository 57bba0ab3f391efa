"""Calls that have begun and not ended: counted and exposed, and told of when they hang.

Per source, bounded in number. An end that comes before its begin is remembered as long as its
source has a gap in which the begin may be. All times are the log's (see ``logtime``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from msgspec import UNSET, Struct

from callmeter.schema.alerts import Alert, AlertKind
from callmeter.schema.events import CallBegin, CallEnd, Heartbeat
from callmeter.schema.header import EnvelopeHeader
from callmeter_processors.limits import MeterLimits
from callmeter_processors.matching import Dimensions
from callmeter_processors.rowformat import readable
from callmeter_processors.telling import told

OPEN_PREFIX = b"o:"
OPEN_VERSION = 1


class OpenCall(Struct, omit_defaults=True, kw_only=True):
    """What is remembered of an open call. ``stuck`` and ``orphaned``: that was said of it."""

    call_id: str
    trace_id: str
    started_us: int
    project: str
    environment: str = ""
    service: str = ""
    provider: str = ""
    model: str = ""
    program: str = ""
    user: str = ""
    session: str = ""
    tags: dict[str, str] = {}
    estimate_pico: str = "0"
    stuck: bool = False
    orphaned: bool = False

    @property
    def dims(self) -> Dimensions:
        """The dimensions that budgets look at."""
        return self.project, self.environment, self.service, self.provider, self.model


class _OpenRow(Struct):
    v: int
    log: str
    calls: list[OpenCall]
    ended: list[str] = []


class Change(NamedTuple):
    """A call that was begun (+1), or is open no more (-1)."""

    call: OpenCall
    sign: int


class StuckLimit(NamedTuple):
    """How long a call may be open, and the rule that says so ("": the default)."""

    us: int
    rule: str = ""


class _Source:
    __slots__ = ("calls", "closed", "ended", "heard_us")

    def __init__(self) -> None:
        self.calls: dict[str, OpenCall] = {}
        #: Ends without a begin while there was a gap, oldest first.
        self.ended: dict[str, None] = {}
        self.heard_us = 0
        self.closed = False


_decoder = msgspec.json.Decoder(_OpenRow)
_encoder = msgspec.json.Encoder()


class OpenCalls:
    """The open calls of one partition's sources. ``alerts`` and ``changes`` are drained."""

    def __init__(self, log_id: str, limits: MeterLimits) -> None:
        self._log_id = log_id
        self._limits = limits
        self._sources: dict[str, _Source] = {}
        self._dirty: set[str] = set()
        self.alerts: list[Alert] = []
        self.changes: list[Change] = []

    def restore(self, rows: Mapping[bytes, bytes], heard_us: Mapping[str, int]) -> None:
        """Take over the rows. ``heard_us`` says when a source was last heard of, as far as known:
        a source that is not in it has closed.
        """
        for key, value in rows.items():
            if not key.startswith(OPEN_PREFIX):
                continue
            if not readable(key, value, self._log_id, OPEN_VERSION):
                continue
            row = _decoder.decode(value)
            name = key[len(OPEN_PREFIX) :].decode()
            source = self._sources[name] = _Source()
            source.calls = {call.call_id: call for call in row.calls}
            source.ended = dict.fromkeys(row.ended)
            source.heard_us = heard_us.get(name, 0)
            source.closed = name not in heard_us

    def __len__(self) -> int:
        return sum(len(source.calls) for source in self._sources.values())

    @property
    def rows(self) -> int:
        """State rows: one for each source that has open calls."""
        return len(self._sources)

    def calls(self) -> Iterator[OpenCall]:
        """Every call that counts as open."""
        for source in self._sources.values():
            yield from (call for call in source.calls.values() if not call.orphaned)

    def concerns(self, source: str) -> bool:
        """Whether ends of this source have to be looked at."""
        return source in self._sources

    def take(
        self,
        header: EnvelopeHeader,
        events: Iterable[object],
        log_us: int,
        *,
        gap_us: int | None,
        closed: bool,
    ) -> None:
        """Take one accepted envelope's begins, ends and heartbeats, in their order.

        To be called for envelopes that have a begin, for sources it ``concerns``, and for all of a
        source that has gaps: ``gap_us`` is when the newest of them was noticed, None without one.
        ``closed``: nothing more will come of the source.
        """
        source = self._sources.get(header.source)
        if source is None:
            source = self._sources[header.source] = _Source()
        source.heard_us = max(source.heard_us, log_us)
        source.closed = closed
        for event in events:
            if isinstance(event, CallEnd):
                self._end(header.source, source, event, log_us, gap_us=gap_us)
            elif isinstance(event, CallBegin):
                self._begin(header, source, event)
            elif isinstance(event, Heartbeat) and not event.open and gap_us is None:
                # It says that nothing is open: the ends of these were dropped.
                for call in [c for c in source.calls.values() if c.started_us <= event.ts_us]:
                    self._close(header.source, source, call)
        if source.ended and gap_us is None:
            source.ended.clear()
            self._dirty.add(header.source)
        if not source.calls and not source.ended:
            del self._sources[header.source]

    def _begin(self, header: EnvelopeHeader, source: _Source, event: CallBegin) -> None:
        if event.call_id in source.ended:
            del source.ended[event.call_id]
            self._dirty.add(header.source)
            return
        full = len(source.calls) >= self._limits.open_per_source
        if full or event.call_id in source.calls:
            return
        call = OpenCall(
            call_id=event.call_id,
            trace_id=event.trace_id,
            started_us=event.started_us,
            project=header.project,
            environment=header.environment,
            service=header.service,
            provider=event.provider,
            model=event.model,
            program=event.program,
            user=event.user,
            session=event.session,
            tags=event.tags,
            estimate_pico="0" if event.estimate_pico is UNSET else event.estimate_pico,
        )
        source.calls[event.call_id] = call
        self._dirty.add(header.source)
        self.changes.append(Change(call, 1))

    def _end(
        self, name: str, source: _Source, event: CallEnd, log_us: int, *, gap_us: int | None
    ) -> None:
        call = source.calls.get(event.call_id)
        if call is not None:
            self._close(name, source, call)
            for kind, told in ((AlertKind.STUCK, call.stuck), (AlertKind.ORPHANED, call.orphaned)):
                if told:
                    self.alerts.append(self._alert(AlertKind.ENDED, kind, name, call, log_us))
        elif gap_us is not None and event.started_us <= gap_us + self._limits.future_us:
            # The begin may be in the gap: the gap's envelopes were sealed before it was noticed,
            # give or take the source's clock.
            source.ended[event.call_id] = None
            while len(source.ended) > self._limits.open_per_source:
                del source.ended[next(iter(source.ended))]
            self._dirty.add(name)

    def _close(self, name: str, source: _Source, call: OpenCall) -> None:
        del source.calls[call.call_id]
        self._dirty.add(name)
        if not call.orphaned:
            self.changes.append(Change(call, -1))

    def look(self, now_us: int, since_us: int, limit_of: Callable[[OpenCall], StuckLimit]) -> None:
        """Tell of calls that are stuck or orphaned at the log's time ``now_us``.

        Nobody could be heard before ``since_us``: see ``LogTime``.
        """
        limits = self._limits
        for name, source in self._sources.items():
            heard_us = max(source.heard_us, since_us)
            silent = source.closed or now_us - heard_us >= limits.silent_us
            for call in source.calls.values():
                if silent and not call.orphaned:
                    call.orphaned = True
                    self.changes.append(Change(call, -1))
                    self._tell(AlertKind.ORPHANED, name, call, now_us)
                elif not (call.stuck or call.orphaned):
                    limit = limit_of(call)
                    if now_us - call.started_us >= limit.us:
                        call.stuck = True
                        self._tell(AlertKind.STUCK, name, call, now_us, limit.rule)

    def forget(self, sources: Iterable[str]) -> None:
        """Sources that the meter has forgotten: nothing of them can end any more."""
        for name in sources:
            source = self._sources.pop(name, None)
            if source is None:
                continue
            self._dirty.add(name)
            self.changes.extend(Change(c, -1) for c in source.calls.values() if not c.orphaned)

    def drain(self) -> dict[bytes, bytes | None]:
        """The rows that changed since the last call."""
        rows: dict[bytes, bytes | None] = {}
        for name in self._dirty:
            source = self._sources.get(name)
            key = OPEN_PREFIX + name.encode()
            if source is None or not (source.calls or source.ended):
                rows[key] = None
                continue
            row = _OpenRow(OPEN_VERSION, self._log_id, [*source.calls.values()], [*source.ended])
            rows[key] = _encoder.encode(row)
        self._dirty.clear()
        return rows

    def _tell(
        self, kind: AlertKind, name: str, call: OpenCall, now_us: int, rule: str = ""
    ) -> None:
        self._dirty.add(name)
        alert = self._alert(kind, kind, name, call, now_us)
        alert.rule = rule or alert.rule
        self.alerts.append(alert)

    def _alert(
        self, kind: AlertKind, first: AlertKind, source: str, call: OpenCall, at_us: int
    ) -> Alert:
        """``first`` is the kind that was said of the call at first; ``ENDED`` corrects it."""
        open_s = (at_us - call.started_us) // 1_000_000
        what = f"call {call.call_id} of {call.model or 'an unknown model'}"
        says = {
            AlertKind.STUCK: f"{what} is open for {open_s} s",
            AlertKind.ORPHANED: f"{what} is open and its source is silent or closed",
            AlertKind.ENDED: f"{what} ended after all",
        }[kind]
        alert = told(
            kind,
            first,
            log=self._log_id,
            source=source,
            about=call.call_id,
            at_us=at_us,
            message=says,
        )
        alert.call_id, alert.trace_id = call.call_id, call.trace_id
        alert.project, alert.provider, alert.model = call.project, call.provider, call.model
        alert.program, alert.user, alert.session = call.program, call.user, call.session
        alert.started_us = call.started_us
        return alert


def net(changes: Sequence[Change]) -> Iterator[Change]:
    """What is left when calls that began and ended in between are taken out."""
    left: dict[str, Change | None] = {}
    for change in changes:
        before = left.get(change.call.call_id)
        left[change.call.call_id] = change if before is None else None
    return (change for change in left.values() if change is not None)
