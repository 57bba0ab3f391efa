"""Gaps are told of after a minute by the log's time, once, and closed when all has come."""

from __future__ import annotations

import json

from callmeter.schema.alerts import alert_id, decode_alert
from callmeter_processors.limits import MeterLimits
from callmeter_processors.meter import PartitionMeter
from support.metering import LOG, NOW_US, TablePricer, envelope, record, source

S = 1_000_000


class Meter:
    def __init__(self, limits: MeterLimits | None = None):
        self.rows: dict[bytes, bytes] = {}
        self.said: list[tuple[str, int, int]] = []
        self.alerts = []
        self._limits = limits
        self._offset = 0
        self.restart()

    def restart(self) -> None:
        self.meter = PartitionMeter(LOG, 0, TablePricer(), self._limits)
        self.meter.restore(dict(self.rows))

    def take(self, *seqs: int, at_s: int = 0, **header) -> None:
        for seq in seqs:
            value = envelope([], seq=seq, sent_us=NOW_US + at_s * S, **header)
            rec = record(value, offset=self._offset, timestamp_us=NOW_US + at_s * S)
            self.meter.process(rec)
            self._offset += 1

    def look(self, at_s: int) -> list[tuple[str, int, int]]:
        self.meter.tick(NOW_US + at_s * S)
        done = self.meter.checkpoint()
        self.rows = {k: v for k, v in (self.rows | dict(done.rows)).items() if v is not None}
        for output in done.outputs:
            if output.topic == "alerts":
                alert = decode_alert(output.value or b"")
                self.alerts.append(alert)
                self.said.append((alert.kind, alert.first_seq, alert.last_seq))
        return self.said


def test_a_gap_is_told_of_after_a_minute_and_closed_when_all_has_come():
    meter = Meter()
    meter.take(0, 5)
    assert meter.look(0) == []
    meter.take(6, at_s=59)
    assert meter.look(59) == []
    meter.take(7, at_s=60)
    assert meter.look(60) == [("gap", 1, 4)]
    assert meter.alerts[0].id == alert_id("gap", LOG, source(1), 1)
    meter.restart()
    meter.take(8, at_s=61)
    assert len(meter.look(61)) == 1
    meter.take(1, 3, 4, at_s=62)
    assert len(meter.look(62)) == 1, "2 is missing still"
    meter.restart()
    meter.take(2, at_s=63)
    assert meter.look(63) == [("gap", 1, 4), ("gap_closed", 1, 4)]
    assert meter.alerts[1].corrects == meter.alerts[0].id
    assert "alerted" not in json.loads(meter.rows[b"s:" + source(1).encode()])
    assert len(meter.look(400)) == 2


def test_a_gap_that_closes_in_time_is_not_told_of():
    meter = Meter()
    meter.take(0, 2)
    meter.take(1, at_s=30)
    meter.take(3, at_s=90)
    assert meter.look(90) == []


def test_a_gap_is_told_of_while_nothing_comes_any_more():
    meter = Meter()
    meter.take(0, 2)
    for second in range(1000, 1060):
        assert meter.look(second) == []
    assert meter.look(1060) == [("gap", 1, 1)]


def test_what_was_given_up_is_not_said_to_have_come():
    meter = Meter(MeterLimits(gaps_per_source=1))
    meter.take(0, 2, at_s=0)
    meter.take(3, at_s=60)
    assert meter.look(60) == [("gap", 1, 1)]
    meter.take(5, at_s=61)
    assert meter.look(61) == [("gap", 1, 1)]
    meter.take(6, at_s=121)
    assert meter.look(121) == [("gap", 1, 1), ("gap", 4, 4)]


def test_a_source_that_closed_with_a_gap_is_compact_once_the_gap_has_closed():
    meter = Meter()
    meter.take(0, 2)
    meter.take(3, at_s=60, last=True)
    meter.look(60)
    meter.take(1, at_s=61)
    assert meter.look(61) == [("gap", 1, 1), ("gap_closed", 1, 1)]
    row = json.loads(meter.rows[b"s:" + source(1).encode()])
    assert row["last"] is True
    assert "gaps" not in row
    meter.restart()
    meter.take(2, 3, at_s=62)
    assert meter.look(62) == [("gap", 1, 1), ("gap_closed", 1, 1)]


def test_a_gap_of_a_closed_source_is_told_of_by_the_next_owner_of_its_partition():
    """Every source of the partition has closed: its time goes on from the last that was heard."""
    meter = Meter()
    meter.take(0, 2)
    meter.take(3, at_s=1, last=True)
    assert meter.look(1) == []
    meter.restart()
    assert meter.look(100) == [], "a meter that was down does not count that time"
    assert meter.look(161) == [("gap", 1, 1)]
