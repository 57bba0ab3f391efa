"""The whole pipeline in one process: collector, log, meter, sink and store under one directory.

    DIR/lock        who owns the directory (flock, with the pid)
    DIR/log.db      the log: topics, state and positions in one SQLite file
    DIR/store/      ClickHouse's data, opened in this process
    DIR/notify/     which alerts were delivered, if it notifies
    DIR/running     where the owner serves: JSON with pid, url and store_url

This module and the command line alone see all three packages.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from callmeter.log.dirlock import DirectoryLock
from callmeter.schema.topics import BY_NAME, EMBEDDED_PARTITIONS

if TYPE_CHECKING:
    from callmeter.collector.config import CollectorConfig
    from callmeter.collector.context import RouteInstaller
    from callmeter.collector.keys import KeyRing
    from callmeter.log.sqlite_log import SqliteLog
    from callmeter_processors.notify.thread import NotifyThread
    from callmeter_processors.runtime.stats import RuntimeStats
    from callmeter_sinks.clickhouse.store import Store
    from callmeter_sinks.dashboard import Access
    from callmeter_sinks.thread import SinkThread

logger = logging.getLogger("callmeter.embedded")

LOG_FILE = "log.db"
STORE_DIRECTORY = "store"
RUNNING_FILE = "running"
_PRICES_S = 2.0
_PRUNE_S = 3600.0


class Running(msgspec.Struct):
    """What ``DIR/running`` says of the process that owns the directory."""

    pid: int
    url: str
    store_url: str


def running(directory: Path) -> Running | None:
    """The living owner of a data directory, or None. Nothing is made or changed."""
    if not DirectoryLock(directory).held_by_another():
        return None
    with suppress(OSError, msgspec.DecodeError):  # still starting: there is no file yet
        return msgspec.json.decode((directory / RUNNING_FILE).read_bytes(), type=Running)
    return None


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """How the embedded form is set up. ``port`` 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 0
    api_keys: tuple[str, ...] = ()
    read_keys: tuple[str, ...] = ()
    partitions: int = EMBEDDED_PARTITIONS
    #: The collector's settings in full; instead of address and keys above.
    collector: CollectorConfig | None = None
    #: Whom to tell of alerts: docs/guides/notify.md.
    notify_config: Path | None = None
    #: Further routes of the collector, over the parts that run by then.
    routes: Callable[[Embedded], Iterable[RouteInstaller]] = lambda _: ()


class Embedded:
    """The pipeline over one directory, as a context manager.

    ``start`` returns when the collector answers; ``stop`` drains: what the collector acknowledged
    is in the store when it returns. ``check`` raises what made a part fail. After a kill -9 the
    next start goes on where the log stands.

    >>> with Embedded(Path("./.callmeter")) as pipeline:  # doctest: +SKIP
    ...     callmeter.init(pipeline.url, project="mine")
    """

    url: str
    store: Store
    _log: SqliteLog
    #: What runs, for whoever shows how it is: the runtimes' figures by stage, the sink, notify.
    stages: Mapping[str, RuntimeStats]
    sink: SinkThread
    notify: NotifyThread | None = None

    def __init__(self, directory: Path, settings: EmbeddedOptions | None = None) -> None:
        self.directory = directory
        self._settings = settings or EmbeddedOptions()
        self._stack = ExitStack()
        self._parts: list[Callable[[], BaseException | None]] = []
        self._pruned_s = time.monotonic() - _PRUNE_S  # the first check prunes

    def start(self) -> None:
        """Start every part; if one cannot start, those before it are stopped and it raises."""
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise

    def stop(self) -> None:
        """Stop in the order of the flow, each part after what feeds it; raises what failed."""
        self._stack.close()

    def check(self) -> None:
        """Raise what made a part fail, if one has; once an hour, let go of what retention ends."""
        for failed in self._parts:
            exc = failed()
            if exc is not None:
                raise exc
        if time.monotonic() - self._pruned_s > _PRUNE_S:
            self._pruned_s = time.monotonic()
            prune(self._log, self.store)

    def _start(self) -> None:
        # What is pushed later is closed first, so this is the flow backwards: store … collector.
        self._stack.enter_context(DirectoryLock(self.directory))
        running_file = self.directory / RUNNING_FILE
        running_file.unlink(missing_ok=True)
        store_url = self._start_store()
        self._start_sink()
        self._start_notify()
        self._start_processors()
        self._start_collector()
        state = Running(pid=os.getpid(), url=self.url, store_url=store_url)
        running_file.write_bytes(msgspec.json.encode(state))
        self._stack.callback(running_file.unlink, missing_ok=True)

    def _start_store(self) -> str:
        """Log and store; the URL at which others may read the store."""
        from callmeter.log.sqlite_log import SqliteLog
        from callmeter_sinks.clickhouse.chdb_store import ChdbStore
        from callmeter_sinks.clickhouse.migrate import migrate
        from callmeter_sinks.clickhouse.shim import ShimServer

        self._log = SqliteLog(self.directory / LOG_FILE, partitions=self._settings.partitions)
        self._stack.callback(self._log.close)
        store = ChdbStore(self.directory / STORE_DIRECTORY)
        self._stack.callback(store.close)
        migrate(store)
        self.store = store
        return self._stack.enter_context(ShimServer(store)).url

    def _start_sink(self) -> None:
        from callmeter_sinks.group import SinkGroup
        from callmeter_sinks.sink import Sink
        from callmeter_sinks.source import SqliteSource
        from callmeter_sinks.streams import STREAMS
        from callmeter_sinks.thread import SinkThread

        sinks = [Sink(self.store, SqliteSource(self._log, topic)) for topic in STREAMS]
        self.sink = sink = SinkThread(SinkGroup(sinks))
        self._stack.callback(sink.stop)
        sink.start()
        self._parts.append(lambda: sink.failed)

    def _start_notify(self) -> None:
        """Before the processors, so that it ends after them and takes their last alerts."""
        if self._settings.notify_config is None:
            return
        from callmeter_processors.notify.config import read_config
        from callmeter_processors.notify.thread import NotifyThread

        config = read_config(self._settings.notify_config)
        self.notify = notify = NotifyThread(self._log, self.directory, config)
        notify.start()
        self._stack.callback(notify.stop)
        self._parts.append(lambda: notify.failed)

    def _start_processors(self) -> None:
        from callmeter.pricing.watching import BookWatch
        from callmeter_processors.meter import meter_factory
        from callmeter_processors.runtime.local import LocalRuntime
        from callmeter_processors.watch.step import watch_factory

        log = self._log
        prices = BookWatch(_published(log), lambda: _published(log), _PRICES_S)
        prices.start()
        self._stack.callback(prices.stop)
        watch = LocalRuntime(log, watch_factory(), source="spend", state="watch-state")
        meter = LocalRuntime(log, meter_factory(prices.pricer))
        for runtime in (watch, meter):
            self._stack.callback(runtime.stop)
            runtime.start()
            self._stack.callback(runtime.drain)
        self._parts += [lambda: meter.failed, lambda: watch.failed]
        self.stages = {"meter": meter.stats, "watch": watch.stats}

    def _start_collector(self) -> None:
        from callmeter.collector.alert_sources import SqliteAlertRecords
        from callmeter.collector.alerts import alert_routes
        from callmeter.collector.budget_sources import SqliteBudgets
        from callmeter.collector.budgets import budget_routes
        from callmeter.collector.config import CollectorConfig
        from callmeter.collector.experiments import experiment_routes
        from callmeter.collector.keys import KeyRing
        from callmeter.collector.thread import CollectorThread
        from callmeter.log.sqlite_appender import SqliteAppender
        from callmeter_sinks.queries import Queries

        settings = self._settings
        config = settings.collector or CollectorConfig(
            host=settings.host,
            port=settings.port,
            keys=KeyRing.parse(settings.api_keys, settings.read_keys),
        )
        keys = config.keys
        routes = [
            budget_routes(SqliteBudgets(self._log)),
            alert_routes(SqliteAlertRecords(self._log)),
            *experiment_routes(Queries(self.store)),
            _dashboard(self.store, keys, self._log),
            *settings.routes(self),
        ]
        collector = CollectorThread(SqliteAppender(self._log), config, extra_routes=routes)
        self._stack.callback(collector.stop)
        collector.start()
        self.url = collector.url
        self._parts.append(lambda: collector.failed)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _dashboard(store: Store, keys: KeyRing, log: SqliteLog) -> RouteInstaller:
    """The dashboard among the collector's routes; its streams end when the collector drains."""
    from callmeter.collector.context import CONTEXT
    from callmeter_sinks.dashboard import dashboard_routes, end_streams, ends_of

    add = dashboard_routes(store, access=reading_access(keys), ends=ends_of(log))

    def install(app: Any) -> None:
        add(app)
        app[CONTEXT].on_drain.append(lambda: end_streams(app))

    return install


def reading_access(keys: KeyRing) -> Access:
    """The collector's keys as the dashboard asks for them: who may read, and of which projects."""
    from callmeter.collector.keys import ANY
    from callmeter_sinks.dashboard import Reader

    def access(authorization: str | None) -> Reader | None:
        grant = keys.find(authorization)
        if grant is None or not grant.may_read:
            return None
        return Reader(None if ANY in grant.projects else grant.projects)

    return access


def _published(log: SqliteLog) -> bytes:
    """The published price book; the installed one is published on a log that has none."""
    from callmeter.pricing import installed_book
    from callmeter.pricing.live import BOOK_KEY, book_record

    rows = log.rows("prices", 0)
    if BOOK_KEY not in rows:
        log.append([book_record(installed_book())])
        rows = log.rows("prices", 0)
    return rows[BOOK_KEY]


def prune(log: SqliteLog, store: Store) -> None:
    """Delete what is past its topic's retention and has been read by whoever reads it.

    ``events`` and ``spend`` are read by the processors, whose positions are in the log; ``metered``
    by the sink, whose progress is in the store. What is not read stays, however old.
    """
    read = {
        "events": _positions(log, "meter-state"),
        "spend": _positions(log, "watch-state"),
        "metered": dict(store.query(_STORED, {"log": log.log_id}).rows),
    }
    now_us = time.time_ns() // 1000
    for topic, below in read.items():
        kept_us = int(BY_NAME[topic].config["retention.ms"]) * 1000
        deleted = log.prune(topic, before_us=now_us - kept_us, below=below)
        if deleted:
            logger.info("%d records of %s are past their retention", deleted, topic)


#: What lies below the newest intent is stored. The intent's own records may be read once more.
_STORED = """SELECT toUInt32(partition), argMax(first, (generation, owner, last, -toInt64(records)))
FROM sink_intents WHERE topic = 'metered' AND log_id = {log:UUID} GROUP BY partition"""


def _positions(log: SqliteLog, state: str) -> dict[int, int]:
    return {part: log.position(state, part) or 0 for part in range(log.partitions)}
