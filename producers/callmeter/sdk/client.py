"""A client: one project and backend, one queue, one background thread.

Most programs have one, made by ``callmeter.init`` and used through the module's functions. Whoever
needs several makes them and calls the same methods on each.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from callmeter.clock import Clock, SystemClock
from callmeter.errors import DeliveryError, UsageError
from callmeter.money import to_pico
from callmeter.sdk import lifecycle
from callmeter.sdk.call import NO_CALL, Call, frame_of, merged_tags, new_call
from callmeter.sdk.connect import connect, find_url
from callmeter.sdk.containment import CONTAINMENT
from callmeter.sdk.encode import EVENT, METRIC
from callmeter.sdk.experiment import Experiment
from callmeter.sdk.freezing import freeze, freeze_map
from callmeter.sdk.intake import Intake
from callmeter.sdk.results import FlushResult, Stats
from callmeter.sdk.shipper import Shipper
from callmeter.settings import Settings
from callmeter.transports.protocol import Transport

#: Pause between the rounds of ``flush_or_raise``.
RETRY_PAUSE_S = 0.25


class Client:
    """Meters calls of one program. Thread-safe; usable after a fork (the child is a new source).

    ``transport`` takes the place of the settings' URL. With neither a URL nor a local collector,
    and when disabled, everything is a no-op. ``threaded=False`` starts no thread: ``flush`` does
    the work on the caller's, for tests.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        transport: Transport | None = None,
        clock: Clock | None = None,
        threaded: bool = True,
    ) -> None:
        self.settings = settings or Settings()
        self._clock: Clock = SystemClock() if clock is None else clock
        self._threaded = threaded
        #: What calls are handed to; None while nothing is metered.
        self.intake: Intake | None = None
        self._shipper: Shipper | None = None
        self._drops_told = 0
        self.url: str | None = None
        if self.settings.disabled:
            return
        if transport is None:
            self.url = find_url(self.settings)
            transport = None if self.url is None else connect(self.url, self.settings)
        if transport is not None:
            shipper = self._open(transport)
            lifecycle.watch(self)
            shipper.recover()

    def _open(self, transport: Transport) -> Shipper:
        intake = Intake(self.settings, self._clock)
        shipper = self._shipper = Shipper(intake, transport, self.settings, self._clock)
        intake.on_first = shipper.start if self._threaded else (lambda: None)
        self.intake = intake
        return shipper

    def after_fork(self) -> object:
        """In a forked child: a new source with an empty queue. Returns what the parent owns.

        A client with a transport of its own, not a URL, cannot open another and becomes a no-op.
        """
        inherited = (self._shipper, self.intake)
        if self._shipper is not None:
            self._shipper.forked()
        if self.intake is not None:
            self.intake.disown()
            self.intake = self._shipper = None
            if self.url is not None:
                self._open(connect(self.url, self.settings))
        return inherited

    # -- events ----------------------------------------------------------------------------------

    def generation(
        self,
        name: str | None = None,
        *,
        model: str,
        provider: str | None = None,
        operation: str = "chat",
        inputs: Any = None,
        parent: Call | str | None = None,
        estimate: Decimal | str | int | None = None,
        tags: Mapping[str, Any] | None = None,
        **attributes: Any,
    ) -> Call:
        """A call to a model, as a sync or async context manager. See ``callmeter.generation``."""
        intake = self.intake
        if intake is None:
            return self.absent()
        try:
            fields = freeze_map(attributes) if gc.is_tracked(attributes) else attributes
            fields["model"] = model
            fields["operation"] = operation
            if provider is not None:
                fields["provider"] = provider
            extra: dict[str, Any] = {}
            if inputs is not None and intake.record_inputs:
                extra["inputs"] = freeze(inputs)
            if (frame := frame_of(parent)) is not None:
                extra["frame"] = frame
            if estimate is not None:
                extra["estimate_pico"] = str(to_pico(estimate))
            if tags:
                extra["tags"] = merged_tags(tags)
            return new_call(intake, name, fields, extra or None)
        except Exception as exc:  # noqa: BLE001  # the host's call goes on unmetered
            CONTAINMENT.caught("generation", exc)
            return NO_CALL

    def metric(
        self,
        name: str,
        value: float,
        *,
        step: int | None = None,
        ts: float | None = None,
        labels: Mapping[str, Any] | None = None,
        experiment: str | None = None,
        event_id: str | None = None,
    ) -> None:
        """One finite number; NaN and infinity are refused. ``ts`` in seconds since the epoch."""
        intake = self.intake
        if intake is None:
            self.absent()
            return
        try:
            if type(value) is not float:
                value = float(value)
            if value - value != 0.0:  # NaN and both infinities, and nothing else
                raise ValueError(f"metric {name!r} is not finite")
            more = None
            if experiment is not None or event_id is not None:
                more = _some(experiment=experiment, event_id=event_id)
            queue = intake.queue
            queue.append(
                (
                    METRIC,
                    intake.anchor,
                    intake.mono(),
                    name,
                    value,
                    step,
                    None if labels is None else freeze_map(labels),
                    None if ts is None else _micros(ts),
                    more,
                )
            )
            if len(queue) >= intake.alarm:
                intake.ring()
        except Exception as exc:  # noqa: BLE001
            CONTAINMENT.caught("metric", exc)

    def annotation(
        self,
        text: str,
        *,
        call: Call | str | None = None,
        experiment: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        ts: float | None = None,
        event_id: str | None = None,
    ) -> None:
        """Text on a call (or its id), an experiment or the project, with JSON metadata."""

        def build() -> dict[str, Any]:
            return {
                "kind": "annotation",
                "ts_us": None if ts is None else _micros(ts),
                "text": str(text),
                **_some(call_id=_call_id(call), experiment=experiment, event_id=event_id),
                **({} if metadata is None else {"metadata": freeze(metadata)}),
            }

        self._emit("annotation", build)

    def cost(
        self,
        usd: Decimal | str | int,
        *,
        call: Call | str | None = None,
        provider: str | None = None,
        model: str | None = None,
        started: float | None = None,
        source: str,
        note: str | None = None,
    ) -> None:
        """Money apart from its call, in USD: a bill, a correction; it may be negative.

        ``started`` (seconds since the epoch) is when the call it belongs to began. With a ``Call``
        its model, provider and start are taken from it.
        """

        def build() -> dict[str, Any]:
            event: dict[str, Any] = {
                "kind": "cost",
                "ts_us": None,
                "started_us": None if started is None else _micros(started),
                "cost_pico": str(to_pico(usd)),
                "source": source,
                **_some(call_id=_call_id(call), provider=provider, model=model, note=note),
            }
            if isinstance(call, Call) and call is not NO_CALL:
                for key in ("provider", "model", "operation", "user", "session"):
                    if (value := call.attribute(key)) is not None:
                        event.setdefault(key, str(value))
                event.setdefault("operation", "chat")
                if started is None:
                    event["started_us"] = call.started_ns // 1000
            return event

        self._emit("cost", build)

    def experiment(
        self,
        slug: str,
        *,
        description: str | None = None,
        meta: Mapping[str, Any] | None = None,
        resume: bool = True,
    ) -> Experiment:
        """Open an experiment. ``resume`` says that one with this slug may exist and is joined."""
        more = _some(description=description)
        if meta is not None:
            more["meta"] = freeze(meta)
        if not resume:
            more["status"] = "new"
        self.emit_event({"kind": "experiment", "slug": slug, **more})
        return Experiment(self, slug)

    def emit_event(self, event: dict[str, Any]) -> None:
        """Queue an event built elsewhere; ``ts_us`` is filled in. For facades and integrations."""
        self._emit(str(event.get("kind", "event")), lambda: event)

    def _emit(self, what: str, build: Callable[[], dict[str, Any]]) -> None:
        intake = self.intake
        if intake is None:
            self.absent()
            return
        try:
            event = build()
            if event.get("ts_us") is None:
                wall_ns, mono_ns = intake.anchor
                event["ts_us"] = (wall_ns + intake.mono() - mono_ns) // 1000
            if event.get("started_us", 0) is None:
                event["started_us"] = event["ts_us"]
            intake.offer((EVENT, event))
        except Exception as exc:  # noqa: BLE001
            CONTAINMENT.caught(what, exc)

    def absent(self) -> Call:
        """Disabled or nowhere to send: nothing. Closed: counted, and an error under test."""
        if self._shipper is not None:
            self._shipper.refuse()
            if CONTAINMENT.raising:
                raise UsageError("this client is closed")
        return NO_CALL

    # -- delivery --------------------------------------------------------------------------------

    def flush(self, timeout_s: float = 5.0) -> FlushResult:
        """Send what was accepted and wait for the backend's word, ``timeout_s`` at most."""
        try:
            result = self._flush(timeout_s)
        except Exception as exc:  # noqa: BLE001
            CONTAINMENT.caught("flush", exc)
            return FlushResult(False, 0, 0, 0, 0, {}, f"{type(exc).__name__}: {exc}")
        self._drops_told = sum(result.dropped.values())
        return result

    def flush_or_raise(self, timeout_s: float = 5.0, retries: int = 3) -> FlushResult:
        """Flush, up to ``retries`` more times; ``DeliveryError`` if anything is pending or was
        lost.

        ``ValueError`` for negative retries.
        """
        if retries < 0:
            raise ValueError("retries must not be negative")
        result = self._flush(timeout_s)
        for _ in range(retries):
            if result.ok or not result.pending:
                break
            result = self._flush(timeout_s)
        self._drops_told = sum(result.dropped.values())
        if result.ok:
            return result
        lost = ", ".join(f"{n} {reason}" for reason, n in result.dropped.items()) or "none"
        raise DeliveryError(
            f"not everything was delivered: {result.delivered} of {result.accepted} events "
            f"delivered, {result.pending} pending, dropped: {lost}"
            + (f"; last error: {result.error}" if result.error else "")
        )

    def _flush(self, timeout_s: float) -> FlushResult:
        shipper = self._shipper
        if shipper is None:
            return FlushResult(True, 0, 0, 0, 0, {})
        pending = shipper.flush(timeout_s)
        stats = shipper.stats()
        lost = sum(stats.dropped.values())
        return FlushResult(
            ok=pending == 0 and lost == self._drops_told,
            accepted=stats.delivered + lost + pending,
            delivered=stats.delivered,
            pending=pending,
            spooled=min(stats.spooled, pending),
            dropped=stats.dropped,
            error=stats.error,
        )

    def stats(self) -> Stats:
        """The counters at this moment."""
        return Stats(source="") if self._shipper is None else self._shipper.stats()

    def close(self, timeout_s: float | None = None) -> None:
        """Deliver within the time (default ``shutdown_timeout_s``) and end; idempotent.

        What then is not delivered and not spooled is counted as dropped: ``shutdown``. Using the
        client afterwards does nothing but count, and is an error under test.
        """
        if self.intake is None or self._shipper is None:
            return
        seconds = self.settings.shutdown_timeout_s if timeout_s is None else timeout_s
        try:
            lifecycle.begin_close(self, seconds)
            self.intake = None
            self._shipper.close(seconds)
        except Exception as exc:  # noqa: BLE001
            CONTAINMENT.caught("close", exc)
        finally:
            lifecycle.end_close(self)


def _some(**values: Any) -> dict[str, Any]:
    """What is not None, as text."""
    return {k: str(v) for k, v in values.items() if v is not None}


def _call_id(call: Call | str | None) -> str | None:
    return (call.id or None) if isinstance(call, Call) else call


def _micros(seconds: float) -> int:
    """Seconds since the epoch to microseconds."""
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(f"not a time in seconds: {seconds!r}")
    return round(seconds * 1_000_000)
