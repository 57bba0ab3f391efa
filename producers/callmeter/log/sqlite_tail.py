"""Follows whole topics of an embedded log from the beginning or from offsets: every record once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from callmeter.log.record import LogRecord
from callmeter.log.sqlite_log import SqliteLog

_RECORDS = 500


class SqliteTail:
    """Records of the topics in the order of each partition. Used from one thread at a time.

    ``begin`` maps (topic, partition) to the offset to begin at; 0 where it says none.
    """

    def __init__(
        self,
        log: SqliteLog,
        topics: Sequence[str],
        begin: Mapping[tuple[str, int], int] | None = None,
    ) -> None:
        self._log = log
        self._next = {
            (topic, partition): (begin or {}).get((topic, partition), 0)
            for topic in topics
            for partition in log.end_offsets(topic)
        }

    def poll(self) -> list[LogRecord]:
        """What has come since the last call, to the end as it is now; does not wait."""
        found: list[LogRecord] = []
        for (topic, partition), offset in self._next.items():
            end = self._log.end_offset(topic, partition)
            at = offset
            while at < end:
                records = self._log.read(topic, partition, at, max_records=_RECORDS)
                found += records
                at = records[-1].offset + 1 if records else end
            self._next[topic, partition] = at
        return found
