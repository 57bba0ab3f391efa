"""Where ``callmeter notify`` reads alerts: on Kafka, or in a directory's log."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from callmeter.embedded import LOG_FILE
from callmeter.errors import ConfigError, UnreachableError
from callmeter.log.record import LogRecord
from callmeter.schema.topics import ALERTS

if TYPE_CHECKING:
    from callmeter.log.kafka_settings import KafkaSettings

#: Takes the log's id and records; on return they are durable.
Take = Callable[[str, Sequence[LogRecord]], None]
#: The next offset of each partition, by the log's id.
Positions = Callable[[str], Mapping[int, int]]
#: The outside world fails for a while; see ``AlertSource.follow``.
Trouble = Callable[[UnreachableError], None]

_POLL_S = 0.25
_AGAIN_S = 2.0


class AlertSource(Protocol):
    """Records of the topic ``alerts``, committed ones only, in the order of each partition."""

    def follow(
        self,
        positions: Positions,
        take: Take,
        stopping: threading.Event,
        *,
        trouble: Trouble,
        check: Callable[[], None],
        drain: bool,
    ) -> None:
        """Hand on what there is and what comes, until ``stopping`` is set.

        With ``drain`` it returns at the end as it was at the start. ``check`` is called now and
        then and may raise. A log that cannot be reached is tried again, and ``trouble`` told; with
        ``drain``, and where it cannot be reached at the start, ``UnreachableError`` is raised.
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

    def follow(
        self,
        positions: Positions,
        take: Take,
        stopping: threading.Event,
        *,
        trouble: Trouble,
        check: Callable[[], None],
        drain: bool,
    ) -> None:
        from callmeter.log.sqlite_log import SqliteLog
        from callmeter.log.sqlite_tail import SqliteTail

        with ExitStack() as stack:
            log = stack.enter_context(SqliteLog(self._path))
            begin = positions(log.log_id)
            tail = SqliteTail(log, [ALERTS.name], _begin(begin))
            while not stopping.is_set():
                take(log.log_id, tail.poll())
                if drain:
                    return
                check()
                stopping.wait(_POLL_S)


class KafkaAlerts:
    """The alerts of a prefix on Kafka."""

    def __init__(self, url: str) -> None:
        from callmeter.log.kafka_settings import KafkaSettings

        self._settings: KafkaSettings = KafkaSettings.from_url(url)

    def follow(
        self,
        positions: Positions,
        take: Take,
        stopping: threading.Event,
        *,
        trouble: Trouble,
        check: Callable[[], None],
        drain: bool,
    ) -> None:
        asyncio.run(self._follow(positions, take, stopping, trouble, check, drain=drain))

    async def _follow(
        self,
        positions: Positions,
        take: Take,
        stopping: threading.Event,
        trouble: Trouble,
        check: Callable[[], None],
        *,
        drain: bool,
    ) -> None:
        from callmeter.log.kafka_admin import check_topics, read_log_id
        from callmeter.log.kafka_tail import KafkaTail

        await check_topics(self._settings)
        log_id = await read_log_id(self._settings)
        tail = KafkaTail(self._settings, [ALERTS.name], _begin(positions(log_id)))
        try:
            while not stopping.is_set():
                try:
                    records = await tail.poll()
                except UnreachableError as exc:
                    if drain:
                        raise
                    trouble(exc)
                    await asyncio.to_thread(stopping.wait, _AGAIN_S)
                    continue
                take(log_id, records)
                check()
                if drain and tail.caught_up:
                    return
        finally:
            await tail.close()


def _begin(positions: Mapping[int, int]) -> dict[tuple[str, int], int]:
    return {(ALERTS.name, partition): offset for partition, offset in positions.items()}
