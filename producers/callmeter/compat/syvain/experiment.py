"""The experiment that a Collector hands out."""

from __future__ import annotations

import math
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from callmeter.compat.syvain import limits
from callmeter.compat.syvain.cardinality import MAX_SERIES, OVERFLOW, CardinalityGuard
from callmeter.compat.syvain.hooks import ProcessHooks
from callmeter.compat.syvain.items import LINE_BYTES, EventIds, Item, Kind, now_us
from callmeter.compat.syvain.lane import Lane
from callmeter.compat.syvain.outlet import DEFAULT_FLUSH_RETRIES
from callmeter.compat.syvain.results import FlushResult

if TYPE_CHECKING:
    from callmeter.compat.syvain.api import Series
    from callmeter.compat.syvain.base import BaseCollector

_IDS = EventIds()


class Experiment:
    """One run's record: metrics, annotations and status under one slug.

    ``started`` and ``terminal`` say where the run is; ``id`` and ``url`` are the server's.
    """

    def __init__(
        self, collector: BaseCollector, lane: Lane, description: str, meta: dict[str, Any]
    ) -> None:
        self.collector = collector
        self.slug = lane.slug
        self.description = description
        self.meta = meta
        self.id = ""
        self.url = ""
        self.started = False
        self.terminal = False
        self._lane = lane
        self._guard = CardinalityGuard()
        self._state = threading.RLock()
        self._final: dict[str, Any] | None = None
        self._hooks = ProcessHooks(self.error, self._on_exit)

    def metric(
        self,
        name: str,
        value: float,
        step: int | None,
        metadata: Mapping[str, str] | None = None,
        timestamp: float | None = None,
    ) -> None:
        """Queue one number of a series, which is its name and its metadata.

        ``timestamp`` is seconds or milliseconds since the epoch, by default now. A value that is
        not finite is dropped with a warning. ``TypeError`` or ``ValueError`` for what is no number
        or over the limits; nothing is queued then.
        """
        number = float(value)
        limits.checked_name(name)
        step = limits.checked_step(step)
        labels, size = limits.checked_labels(metadata)
        at_us = None if timestamp is None else limits.timestamp_ms(timestamp) * 1000
        if not math.isfinite(number):
            self.collector.logger.warning(
                "syvain metrics dropped a value of %s that is not finite: %s", name, number
            )
            return
        if not self._guard.admits(name, labels):
            labels = dict(OVERFLOW)
            if self._guard.first_time(name):
                self.collector.logger.warning(
                    "syvain metrics: %s of experiment %s has more than %d series; new ones are "
                    "counted as one, with the metadata %s",
                    name,
                    self.slug,
                    MAX_SERIES,
                    labels,
                )
        if self.terminal:
            self._reopen()
        self.started = True
        body = {"name": name, "value": number, "step": step, "metadata": labels}
        self._put(Kind.METRIC, body, LINE_BYTES + len(name) + size, at_us)

    def annotation(self, annotation: str, metadata: Mapping[str, Any] | None = None) -> None:
        """Queue a note, with JSON metadata. ``ValueError`` for one that is over the limits."""
        text_bytes = limits.checked_annotation(annotation)
        facts, size = limits.checked_json(
            metadata, "annotation metadata", limits.MAX_ANNOTATION_METADATA_BYTES
        )
        body = {"annotation": annotation, "metadata": facts}
        self._put(Kind.ANNOTATION, body, LINE_BYTES + text_bytes + size)

    def start(self, *, install_hooks: bool = True) -> None:
        """The run begins: status ``running``. ``MetricsCollectorError`` while another one runs."""
        self.collector._activate(self)
        if install_hooks:
            self._hooks.install()
        with self._state:
            self.started, self.terminal = True, False
            self._lane.queue.settle_final()
            self._put(Kind.STATUS, {"status": "running"})

    def done(self) -> None:
        """The run has ended well."""
        self._end({"status": "done"})

    def error(self, error: BaseException | str) -> None:
        """The run has failed. A long detail keeps its end, where the exception is."""
        if isinstance(error, str):
            name, detail = "Error", error
        else:
            name = type(error).__name__
            detail = "".join(traceback.format_exception(error))
        if len(detail) > limits.MAX_ERROR_CHARS:
            detail = "…" + detail[1 - limits.MAX_ERROR_CHARS :]
        self._end({"status": "error", "error": {"name": name, "detail": detail}})

    @contextmanager
    def run(self, *, install_hooks: bool = True) -> Iterator[Experiment]:
        """``start``, then ``done`` or ``error``, then a flush that neither raises nor drops."""
        self.start(install_hooks=install_hooks)
        try:
            yield self
        except BaseException as exc:
            self.error(exc)
            self.collector._outlet.flush_quietly("experiment context exit")
            raise
        self.done()
        self.collector._outlet.flush_quietly("experiment context exit")

    def flush(self) -> FlushResult:
        """Flush the collector. See ``BaseCollector.flush``."""
        return self.collector.flush()

    def flush_or_raise(self, retries: int = DEFAULT_FLUSH_RETRIES) -> FlushResult:
        """Flush the collector or raise. See ``BaseCollector.flush_or_raise``."""
        return self.collector.flush_or_raise(retries)

    def series(
        self,
        name: str,
        metadata: Sequence[str] = (),
        *,
        order_by: str = "step",
        direction: str = "asc",
        limit: int = 100_000,
    ) -> Series:
        """Stored points of a metric: steps, timestamps and values of equal length.

        ``metadata`` are filters, each ``key`` or ``key=value``; ``order_by`` is ``step`` or
        ``timestamp``, ``direction`` ``asc`` or ``desc``.
        """
        return self.collector.series(
            self, name, metadata=metadata, order_by=order_by, direction=direction, limit=limit
        )

    def _put(
        self, kind: Kind, body: dict[str, Any], size: int = LINE_BYTES, at_us: int | None = None
    ) -> None:
        item = Item(kind, now_us() if at_us is None else at_us, _IDS.new(), body, size)
        self.collector._outlet.put(self._lane, item)

    def _end(self, status: dict[str, Any]) -> None:
        try:
            with self._state:
                self.terminal = True
                self._final = status
                self._put_final(status)
        finally:
            self._hooks.remove()
            self.collector._deactivate(self)

    def _put_final(self, status: dict[str, Any]) -> None:
        # A character takes at most six bytes of JSON.
        item = Item(Kind.STATUS, now_us(), _IDS.new(), status, LINE_BYTES + 6 * len(str(status)))
        self.collector._outlet.put_final(self._lane, item)

    def _reopen(self) -> None:
        """A metric after the end. A final status that still waits stays last; one that has gone is
        taken back by ``running`` and told again after what comes now.
        """
        with self._state:
            if self._final is not None and not self._lane.queue.has_final():
                self._put(Kind.STATUS, {"status": "running"})
                self._put_final(self._final)

    def _on_exit(self) -> None:
        if self.started and not self.terminal:
            self.done()
        self.collector._outlet.flush_quietly("process exit")
