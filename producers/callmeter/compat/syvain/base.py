"""What the Collectors share."""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from callmeter.compat.syvain import limits
from callmeter.compat.syvain.errors import MetricsCollectorError
from callmeter.compat.syvain.experiment import Experiment
from callmeter.compat.syvain.lane import Lane
from callmeter.compat.syvain.outlet import DEFAULT_FLUSH_RETRIES, Outlet
from callmeter.compat.syvain.results import FlushResult
from callmeter.sdk import lifecycle

if TYPE_CHECKING:
    from callmeter.compat.syvain.api import CatalogEntry, Series


class BaseCollector(ABC):
    """Hands out experiments and delivers what they collect.

    ``max_queue_items`` bounds the metrics and annotations of one experiment that wait, beside one
    batch that is being sent. ``max_retries`` None tries for ever. ``ValueError`` for a setting that
    cannot work.
    """

    def __init__(
        self,
        *,
        flush_delay_seconds: float = 0.25,
        max_queue_items: int = 100_000,
        max_batch_items: int = 500,
        max_retries: int | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        if max_retries is not None and max_retries < 0:
            raise ValueError("max_retries must be None or not negative")
        if not flush_delay_seconds >= 0:
            raise ValueError("flush_delay_seconds must not be negative")
        if max_queue_items < 1:
            raise ValueError("max_queue_items must be at least 1")
        if max_batch_items < 1:
            raise ValueError("max_batch_items must be at least 1")
        self.flush_delay_seconds = flush_delay_seconds
        self.max_queue_items = max_queue_items
        self.max_batch_items = max_batch_items
        self.max_retries = max_retries
        self.logger = logger or logging.getLogger("syvain.metrics")
        self._outlet = Outlet(flush_delay_seconds, self.logger)
        self._experiments: dict[str, Experiment] = {}
        self._active: Experiment | None = None
        self._lock = threading.RLock()
        if not _COLLECTORS:
            atexit.unregister(_at_exit)
            atexit.register(_at_exit)
        _COLLECTORS.add(self)

    def experiment(
        self,
        slug: str,
        description: str = "",
        meta: Mapping[str, Any] | None = None,
        *,
        folder_id: str | None = None,
        folder_path: str | None = None,
    ) -> Experiment:
        """Open the experiment ``slug``, or return the one that this collector has opened.

        ``ValueError`` for both kinds of folder or for values over their limits;
        ``MetricsCollectorError`` if it cannot be created.
        """
        if folder_id is not None and folder_path is not None:
            raise ValueError("folder_id and folder_path cannot both be given")
        limits.checked_slug(slug)
        limits.checked_description(description)
        facts, _ = limits.checked_json(meta, "experiment meta", limits.MAX_META_BYTES)
        with self._lock:
            opened = self._experiments.get(slug)
            if opened is None:
                lane = Lane(
                    slug,
                    queue_limit=self.max_queue_items,
                    max_batch=self.max_batch_items,
                    max_retries=self.max_retries,
                    books=self._outlet.books,
                    logger=self.logger,
                )
                opened = Experiment(self, lane, description, facts)
                opened.id, opened.url = self._open(opened, lane, folder_id, folder_path)
                self._outlet.add(lane)
                self._experiments[slug] = opened
            return opened

    @abstractmethod
    def _open(
        self, experiment: Experiment, lane: Lane, folder_id: str | None, folder_path: str | None
    ) -> tuple[str, str]:
        """Create the experiment and give its lane a backend; its id and its absolute URL."""

    def flush(self) -> FlushResult:
        """One attempt for everything queued; never raises for the network's sake."""
        return self._outlet.flush()

    def flush_or_raise(self, retries: int = DEFAULT_FLUSH_RETRIES) -> FlushResult:
        """Flush, and again up to ``retries`` times; ``MetricsCollectorError`` with the counts if
        anything is pending, failed, or was lost since the last such call.
        """
        return self._outlet.flush_or_raise(retries)

    def catalog(self, experiments: Sequence[str | Experiment] = ()) -> list[CatalogEntry]:
        """Metric names and metadata keys of up to 64 experiments; without any, the newest 64."""
        raise MetricsCollectorError(f"a {type(self).__name__} keeps nothing that could be asked")

    def series(self, experiment: Experiment, name: str, **question: Any) -> Series:
        """See ``Experiment.series``."""
        raise MetricsCollectorError(f"a {type(self).__name__} keeps nothing that could be asked")

    def close(self, timeout_s: float = 5.0) -> None:
        """Deliver what can be delivered in the time, and end; what is left is logged."""
        self._outlet.close(timeout_s)

    def _activate(self, experiment: Experiment) -> None:
        with self._lock:
            if self._active is not None:
                raise MetricsCollectorError(
                    f"cannot start experiment {experiment.slug!r} while experiment "
                    f"{self._active.slug!r} is active on the same collector"
                )
            self._active = experiment

    def _deactivate(self, experiment: Experiment) -> None:
        with self._lock:
            if self._active is experiment:
                self._active = None

    def _renew(self) -> None:
        self._lock = threading.RLock()
        self._outlet.renew()


_COLLECTORS: weakref.WeakSet[BaseCollector] = weakref.WeakSet()


def _in_child() -> None:
    for collector in list(_COLLECTORS):
        collector._renew()


def _at_exit() -> None:
    """Deliver what nobody has flushed, within a bound."""
    for collector in list(_COLLECTORS):
        collector.close()


lifecycle.on_fork(_in_child)
