"""How far each part has come, where the log itself is at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from callmeter.schema.topics import EVENTS, METER_STATE, METERED

if TYPE_CHECKING:
    from callmeter.log.sqlite_log import SqliteLog


@dataclass(frozen=True, slots=True)
class Ends:
    """Next offsets of one partition: of the log, of the meter in it, of the metered records."""

    events: int
    meter: int
    metered: int

    @property
    def unmetered(self) -> int:
        """Envelopes that wait for the meter."""
        return max(self.events - self.meter, 0)


#: Tells how far every partition is; blocks.
EndsOf = Callable[[], Mapping[int, Ends]]


def ends_of(log: SqliteLog) -> EndsOf:
    """The ends of an embedded log, read anew at each call. The log stays its owner's."""

    def ends() -> Mapping[int, Ends]:
        metered = log.end_offsets(METERED.name)
        return {
            part: Ends(end, log.position(METER_STATE.name, part) or 0, metered.get(part, 0))
            for part, end in log.end_offsets(EVENTS.name).items()
        }

    return ends
