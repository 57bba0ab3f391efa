"""The topics that sinks store: how each is read, where it lands, how long it may wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from callmeter.log.record import LogRecord
from callmeter.schema.topics import ALERTS, BUDGET_STATUS, BUDGETS, LIVE, METERED, Topic
from callmeter_sinks.ranges import RangeLimits
from callmeter_sinks.rows import LANDING_COLUMNS, Metered, landing_block, parse
from callmeter_sinks.signals import SIGNAL_COLUMNS, parse_signal, signal_block


@dataclass(frozen=True, slots=True)
class Stream:
    """One topic as a sink moves it.

    ``parse`` takes a record and the id of the log it was read from; ``block`` makes the landing
    table's rows. ``rows_in`` are the tables whose rows carry the record's place, for taking one
    back. Of a compacted topic records may be gone when a range is read again: what is left is then
    what still counts. A ``quiet`` topic costs nothing until its first record: nothing is claimed.
    """

    topic: str
    landing: str
    columns: tuple[str, ...]
    parse: Callable[[LogRecord, str], Metered]
    block: Callable[[str, int, Iterable[Metered]], bytes]
    rows_in: tuple[str, ...] = ()
    compacted: bool = False
    quiet: bool = True
    limits: RangeLimits = field(default_factory=RangeLimits)


def _signals(topic: Topic, rows_in: tuple[str, ...], linger_s: float) -> Stream:
    return Stream(
        topic.name,
        "landing_signals",
        SIGNAL_COLUMNS,
        parse_signal,
        signal_block,
        rows_in,
        compacted=topic.config.get("cleanup.policy") == "compact",
        limits=RangeLimits(linger_s=linger_s),
    )


#: While more and more comes, metered records wait a second at most (``RangeLimits``), alerts less,
#: and what says how things stand is worth an insert every other second.
STREAMS: Mapping[str, Stream] = {
    stream.topic: stream
    for stream in (
        Stream(
            METERED.name,
            "landing",
            LANDING_COLUMNS,
            lambda record, _log_id: parse(record),
            landing_block,
            quiet=False,
        ),
        _signals(ALERTS, ("alerts",), 0.25),
        _signals(BUDGETS, ("budgets",), 0.25),
        _signals(BUDGET_STATUS, ("budget_status", "budget_now"), 2.0),
        _signals(LIVE, ("in_flight",), 2.0),
    )
}
#: All but the stream of metered records.
SIGNALS: tuple[str, ...] = tuple(name for name in STREAMS if name != METERED.name)
