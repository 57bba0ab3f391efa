"""Where ``callmeter notify`` reads alerts: on Kafka, or in a directory's log."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from callmeter.embedded import LOG_FILE
from callmeter.errors import ConfigError, UnreachableError
from callmeter.log.record import LogRecord
from callmeter.schema.topics import ALERTS

if TYPE_CHECKING:
    from callmeter.log.kafka_settings import KafkaSettings

#: The next offset of each partition, by the log's id.
Positions = Callable[[str], Mapping[int, int]]

_POLL_S = 0.25
_AGAIN_S = 2.0


class Take(Protocol):
    """Takes the log's id, records and where to go on; on return all of it is durable."""

    def __call__(
        self, log_id: str, records: Sequence[LogRecord], positions: Mapping[int, int] = ..., /
    ) -> None: ...


class Voice(Protocol):
    """Whom a source tells how it goes; every method may raise to end it."""

    def check(self) -> None:
        """Called now and then while all is well."""
        ...

    def trouble(self, exc: UnreachableError) -> None:
        """The log is away; it is tried again."""
        ...

    def lost(self, records: int) -> None:
        """Retention removed up to so many records before they were read here."""
        ...


@dataclass(frozen=True, slots=True)
class Following:
    """One run over a source: from where, to whom, and how it ends.

    What the log had before ``begin_us`` may be left out where ``positions`` has none. It ends when
    ``stopping`` is set; with ``drain`` at the end of the log as it was at the start.
    """

    positions: Positions
    take: Take
    voice: Voice
    stopping: threading.Event
    begin_us: int
    drain: bool


class AlertSource(Protocol):
    """Records of the topic ``alerts``, committed ones only, in the order of each partition."""

    def follow(self, run: Following) -> None:
        """Hand on what there is and what comes, until the run ends.

        A log that cannot be reached is tried again; with ``drain``, and where it cannot be reached
        at the start, ``UnreachableError`` is raised.
        """
        ...


class SqliteAlerts:
    """The alerts of a data directory; ``callmeter up`` may run on it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOG_FILE
        if not self._path.exists():
            raise ConfigError(
                f"no log in {directory}: start `callmeter up`, or give --dir or --kafka"
            )

    def follow(self, run: Following) -> None:
        from callmeter.log.sqlite_log import SqliteLog
        from callmeter.log.sqlite_tail import SqliteTail

        with ExitStack() as stack:
            log = stack.enter_context(SqliteLog(self._path))
            begin = run.positions(log.log_id)
            tail = SqliteTail(log, [ALERTS.name], _begin(begin))
            while not run.stopping.is_set():
                run.take(log.log_id, tail.poll())
                if run.drain:
                    return
                run.voice.check()
                run.stopping.wait(_POLL_S)


class KafkaAlerts:
    """The alerts of a prefix on Kafka."""

    def __init__(self, url: str) -> None:
        from callmeter.log.kafka_settings import KafkaSettings

        self._settings: KafkaSettings = KafkaSettings.from_url(url)

    def follow(self, run: Following) -> None:
        asyncio.run(self._follow(run))

    async def _follow(self, run: Following) -> None:
        from callmeter.log.kafka_admin import check_topics, read_log_id
        from callmeter.log.kafka_tail import KafkaTail

        await check_topics(self._settings)
        log_id = await read_log_id(self._settings)
        tail = KafkaTail(self._settings, [ALERTS.name], _begin(run.positions(log_id)))
        try:
            while not run.stopping.is_set():
                try:
                    records = await tail.poll()
                except UnreachableError as exc:
                    if run.drain:
                        raise
                    run.voice.trouble(exc)
                    await asyncio.to_thread(run.stopping.wait, _AGAIN_S)
                    continue
                if tail.removed:
                    run.voice.lost(tail.removed)
                    tail.removed = 0
                run.take(log_id, records)
                run.voice.check()
                if run.drain and tail.caught_up:
                    return
        finally:
            await tail.close()


def _begin(positions: Mapping[int, int]) -> dict[tuple[str, int], int]:
    return {(ALERTS.name, partition): offset for partition, offset in positions.items()}
