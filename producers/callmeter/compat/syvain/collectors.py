"""The three Collectors: over a callmeter collector, into a file, and into nothing."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from callmeter.compat.syvain import api
from callmeter.compat.syvain.base import BaseCollector
from callmeter.compat.syvain.client_backend import ClientBackend
from callmeter.compat.syvain.delivery import JsonlBackend
from callmeter.compat.syvain.errors import MetricsCollectorError
from callmeter.compat.syvain.experiment import Experiment
from callmeter.compat.syvain.lane import Lane
from callmeter.compat.syvain.link import Link, Pipe
from callmeter.errors import ConfigError
from callmeter.schema.envelope import MAX_EVENTS
from callmeter.settings import Settings, resolve

DEFAULT_HOST = "https://metrics.syvain.com"
#: Where a key is looked for, beside callmeter's own settings.
KEY_VARIABLE = "SYVAIN_METRICS_API_KEY"


class NoopCollector(BaseCollector):
    """The same calls, without network or file; everything counts as delivered."""

    def _open(
        self, experiment: Experiment, lane: Lane, folder_id: str | None, folder_path: str | None
    ) -> tuple[str, str]:
        return _local(lane.slug)


class JsonlCollector(BaseCollector):
    """Appends one compact JSON object a line to a file: no network.

    An experiment whose own line cannot be written raises ``OSError``; what fails later is pending
    and tried again.
    """

    def __init__(self, path: str | Path = "metrics.jsonl", **options: Any) -> None:
        super().__init__(**options)
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._writing = threading.Lock()

    def _open(
        self, experiment: Experiment, lane: Lane, folder_id: str | None, folder_path: str | None
    ) -> tuple[str, str]:
        backend = JsonlBackend(self.path, lane.slug, self._writing)
        backend.opened(experiment.description, experiment.meta)
        lane.backend = backend
        return _local(lane.slug)


class Collector(BaseCollector):
    """Sends to a callmeter collector (``callmeter up``, ``callmeter collector``).

    The key comes from ``api_key``, ``CALLMETER_API_KEY`` or ``SYVAIN_METRICS_API_KEY``; without one
    nothing is made. The address is ``host``, else ``CALLMETER_URL``, else the default shown.
    ``project`` is by default the one the key is bound to. ``timeout`` bounds requests about
    experiments and ``ingest_timeout`` those with metrics, in seconds. ``sleep`` is for tests.

    >>> collector = Collector("key", host="http://127.0.0.1:4248")  # doctest: +SKIP
    """

    def __init__(
        self,
        api_key: str | None = None,
        host: str = DEFAULT_HOST,
        timeout: float = 10.0,
        ingest_timeout: float = 60.0,
        *,
        flush_delay_seconds: float = 0.25,
        max_queue_items: int = 100_000,
        max_batch_items: int = 500,
        max_retries: int | None = None,
        project: str | None = None,
        logger: logging.Logger | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if not timeout > 0:
            raise ValueError("timeout must be above 0")
        if not ingest_timeout > 0:
            raise ValueError("ingest_timeout must be above 0")
        super().__init__(
            flush_delay_seconds=flush_delay_seconds,
            max_queue_items=max_queue_items,
            max_batch_items=max_batch_items,
            max_retries=max_retries,
            logger=logger,
        )
        settings = resolve({"api_key": api_key, "project": project})
        key = settings.api_key or os.environ.get(KEY_VARIABLE)
        if not key:
            raise MetricsCollectorError(
                f"no API key: pass api_key, or set CALLMETER_API_KEY or {KEY_VARIABLE}"
            )
        given = host if host != DEFAULT_HOST else settings.url or DEFAULT_HOST
        if not given.lower().startswith(("http://", "https://")):
            raise ConfigError("the Syvain facade speaks HTTP: give the collector's URL as host")
        self.host = given.rstrip("/")
        self._settings = settings
        # The default project is nobody's choice: then the key decides.
        self._project = None if settings.project == Settings().project else settings.project
        self._link = Link(
            self.host,
            key,
            settings,
            timeout_s=timeout,
            ingest_timeout_s=ingest_timeout,
            sleep=sleep,
        )

    def catalog(self, experiments: Sequence[str | Experiment] = ()) -> list[api.CatalogEntry]:
        slugs = [each if isinstance(each, str) else each.slug for each in experiments]
        return api.catalog(self._link, slugs, self._project)

    def series(self, experiment: Experiment, name: str, **question: Any) -> api.Series:
        if self._settings.disabled:
            return super().series(experiment, name, **question)
        return api.series(self._link, experiment.id, name, **question)

    def _open(
        self, experiment: Experiment, lane: Lane, folder_id: str | None, folder_path: str | None
    ) -> tuple[str, str]:
        if self._settings.disabled:
            return _local(lane.slug)
        if folder_path is not None:
            folder_id = api.folder_at(self._link, folder_path, self._project)
        made = api.create(
            self._link,
            lane.slug,
            description=experiment.description,
            meta=experiment.meta,
            project=self._project,
            folder_id=folder_id,
        )
        # Delivery is by hand, so the client's own timers are off; so is its spool, whose directory
        # has one owner, and an experiment is not it.
        settings = replace(
            self._settings,
            url=None,
            project=made.project,
            max_batch_events=MAX_EVENTS,
            heartbeat_s=0.0,
            spool_dir=None,
            durable=False,
        )
        lane.backend = ClientBackend(lane.slug, settings, Pipe(self._link), lane.last_items)
        return made.id, made.url


def _local(slug: str) -> tuple[str, str]:
    name = f"local_{hashlib.sha256(slug.encode()).hexdigest()[:16]}"
    return name, f"local://syvain-metrics/experiments/{quote(name)}"
