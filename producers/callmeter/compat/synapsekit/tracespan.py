"""``TraceSpan``: a span while it runs, over a call of callmeter's.

Its ids are the call's, so the store, headers and OpenTelemetry all have the same ones. Where
nothing is metered it makes ids of its own, and traces still hang together.
"""

from __future__ import annotations

import secrets
import time
from contextvars import Token
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self

from callmeter.compat.synapsekit.spans import Span, finished
from callmeter.compat.synapsekit.switches import hidden_keys, root_is_kept
from callmeter.sdk.call import NO_CALL, Call
from callmeter.sdk.context import FRAME, ForeignTrace, Frame, Surroundings, restore
from callmeter.sdk.errors_told import describe_error
from callmeter.sdk.freezing import freeze
from callmeter.sdk.scrub import redact

STATUSES = ("ok", "error")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TraceSpan:
    """Started when made. Use it in a ``with`` block, or end it with ``end``.

    Inside the block it is the parent of spans and metered calls that start there.
    """

    def __init__(
        self,
        name: str,
        call: Call = NO_CALL,
        *,
        parent: Frame | None = None,
    ) -> None:
        around = FRAME.get() if parent is None else parent
        self.call = call
        self._token: Token[Frame] | None = None
        self._failure: BaseException | None = None
        self.frame: Frame
        if call is NO_CALL:
            self._begun_ns = time.monotonic_ns()
            start_ns, self.frame = time.time_ns(), _own_frame(around)
        else:
            if parent is not None:
                call.extra = {**(call.extra or {}), "frame": parent}
            call.start()
            start_ns, self.frame = call.started_ns, call
        self.span = Span(
            span_id=id_of(self.frame) or "",
            trace_id=self.frame.trace_id,
            parent_span_id=id_of(around),
            name=name,
            start_time=_EPOCH + timedelta(microseconds=start_ns // 1000),
        )

    @property
    def span_id(self) -> str:
        """16 hex digits."""
        return self.span.span_id

    @property
    def trace_id(self) -> str:
        """32 hex digits."""
        return self.span.trace_id

    @property
    def sampled(self) -> bool:
        """Whether this trace is recorded: its root has decided."""
        return self.frame.sampled

    def set_attribute(self, key: str, value: Any) -> None:
        """Say something about the span; the last word on a key wins."""
        if self.span.end_time is None:
            self.call.set(**{key: value})
            self.note(key, value)

    def note(self, key: str, value: Any) -> None:
        """An attribute of the span that the call has a field of its own for."""
        if self.span.end_time is None:
            self.span.attributes.update(_clean({key: value}))

    def add_event(self, name: str, attributes: dict[str, Any] | None = None) -> None:
        """Something that happened at this moment."""
        if self.span.end_time is None:
            said = _clean(attributes or {})
            self.span.events.append(
                {"name": name, "timestamp": self._now(), "attributes": said},
            )

    def record_exception(self, exc: BaseException) -> None:
        """An event of an exception, with its type and message. The status stays as it is."""
        _, kind, text, _ = describe_error(exc)
        self.add_event("exception", {"exception.type": kind, "exception.message": text})

    def set_status(self, status: str) -> None:
        """``ok`` or ``error``; ``ValueError`` for anything else."""
        if status not in STATUSES:
            raise ValueError(f"a status is one of {', '.join(STATUSES)}, not {status!r}")
        if self.span.end_time is None:
            self.span.status = status

    def fail(self, exc: BaseException) -> None:
        """The span has failed with an exception."""
        self.record_exception(exc)
        self.set_status("error")
        self.span.error = describe_error(exc)[2]
        self._failure = exc

    def end(self) -> None:
        """The span is over; a second end changes nothing. Without a status it has gone well."""
        span = self.span
        if span.end_time is not None:
            return
        if span.status == "unset":
            span.status = "ok"
        if span.events:
            self.call.set(events=[{**e, "timestamp": str(e["timestamp"])} for e in span.events])
        if self._failure is not None:
            self.call.error(self._failure)
        elif span.status == "error":
            self.call.failed("error", span.error or "")
        self._failure = None
        self.call.finish()
        span.end_time = self._now()
        span.duration_ms = (span.end_time - span.start_time) / timedelta(milliseconds=1)
        if self.sampled:
            finished(span)

    def _now(self) -> datetime:
        call = self.call
        if call is NO_CALL:
            passed_ns = time.monotonic_ns() - self._begun_ns
        else:
            end_ns = getattr(call, "end_ns", None)
            passed_ns = (call.intake.mono() if end_ns is None else end_ns) - call.start_ns
        return self.span.start_time + timedelta(microseconds=passed_ns // 1000)

    def __enter__(self) -> Self:
        self._token = FRAME.set(self.frame)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self._token is not None:
            restore(self._token)
            self._token = None
        if exc is not None and self.span.end_time is None:
            self.fail(exc)
        self.end()


def id_of(frame: Frame) -> str | None:
    """The span that a frame stands for, as 16 hex digits; None outside of any."""
    span = frame.span
    return f"{1 << 63 | span:016x}" if isinstance(span, int) else span


def _own_frame(around: Frame) -> Surroundings:
    span_id = f"{secrets.randbits(63) | 1 << 63:016x}"
    if around.span is None:
        trace = ForeignTrace(secrets.token_hex(16))
        return Surroundings(trace, span_id, root_is_kept(), around.labels)
    root = around if around.root is None else around.root
    return Surroundings(root, span_id, around.sampled, around.labels)


def _clean(attributes: dict[str, Any]) -> dict[str, Any]:
    """A copy that nobody changes later, with what must not leave redacted."""
    frozen = {str(key): freeze(value) for key, value in attributes.items()}
    hidden = hidden_keys()
    return dict(redact(frozen, hidden)) if hidden else frozen
