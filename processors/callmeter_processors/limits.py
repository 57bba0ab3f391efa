"""Limits of the meter: what is refused, how long it remembers, how large its outputs get."""

from __future__ import annotations

from dataclasses import dataclass

from callmeter.schema.envelope import MAX_BYTES, MAX_EVENTS

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US


@dataclass(frozen=True, slots=True)
class MeterLimits:
    """Settings of a ``PartitionMeter``; times in microseconds of log time.

    ``max_events`` and ``max_bytes`` have no tolerance: producers cut at them and the collector
    refuses at them, so an envelope has the same fate on every road.
    """

    max_events: int = MAX_EVENTS
    max_bytes: int = MAX_BYTES
    future_us: int = 600 * SECOND_US
    dedupe_horizon_us: int = 30 * DAY_US
    #: Characters of a refused line, or of a refused envelope's beginning, that are kept.
    dead_letter_chars: int = 2000
    #: Missing ranges remembered for a source; one more gives up the lowest.
    gaps_per_source: int = 512
    #: Sources forgotten at one checkpoint, so that a day of them does not stall it.
    forget_per_checkpoint: int = 1000
    #: A deltas or spend record is split above this size.
    delta_part_bytes: int = 512 * 1024
    #: A gap is told of when it has been open for so long.
    gap_alert_us: int = 60 * SECOND_US
    #: A source that was not heard of for so long has left its open calls behind, and has ended.
    silent_us: int = 60 * SECOND_US
    #: The same for the end of a source that has never begun a call nor sent a heartbeat: it may
    #: have nothing to say for long.
    quiet_us: int = 3600 * SECOND_US
    #: Ends told of at one look, so that a fleet's end does not stall it.
    ends_per_look: int = 500
    #: Nothing at all for so long: nobody was silent, the log was away.
    blank_us: int = 20 * SECOND_US
    #: A source's clock is told of when it is ahead of the log's by more than this, or when all it
    #: sends comes later than this for ``skew_steady_us``, as late at the end as in the beginning.
    skew_us: int = 10 * SECOND_US
    skew_steady_us: int = 60 * SECOND_US
    #: A call is stuck when it has been open for so long, unless a rule says otherwise.
    stuck_us: int = 600 * SECOND_US
    #: Open calls remembered for a source; further ones are not told of.
    open_per_source: int = 1000

    @property
    def keep_us(self) -> int:
        """How long a silent source is remembered.

        An accepted envelope's ``sent_us`` is at most ``future_us`` after its log time, so a copy of
        it that comes after the source is forgotten is past the horizon: ``too_late``, never twice.
        """
        return self.dedupe_horizon_us + 2 * self.future_us + DAY_US
