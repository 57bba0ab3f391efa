"""Sources that end without a close, and clocks that are not the log's: told of, and taken back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from callmeter.schema.alerts import alert_id, decode_alert
from callmeter_processors.limits import MeterLimits
from callmeter_processors.meter import PartitionMeter
from support.metering import LOG, NOW_US, TablePricer, deltas, envelope, envelopes, record, source

S = 1_000_000
BEAT: dict[str, Any] = {"kind": "heartbeat", "ts_us": NOW_US, "open": 0}


class Meter:
    """A meter of many sources, by the second; source 9 speaks every 10 s, as a log's others do."""

    def __init__(self, limits: MeterLimits | None = None):
        self.rows: dict[bytes, bytes] = {}
        self.said: list[tuple[str, str]] = []
        self.alerts = []
        self.outputs = []
        self._limits = limits
        self._seqs: dict[int, int] = {}
        self._offset = 0
        self._now_s = 0
        self.restart()

    def restart(self) -> None:
        self.meter = PartitionMeter(LOG, 0, TablePricer(), self._limits)
        self.meter.restore(dict(self.rows))

    def take(self, number: int, at_s: int, events=(), *, late_s: int = 0, seq=None, **head) -> None:
        self.others_until(at_s)
        if seq is None:
            seq = self._seqs.get(number, 0)
            self._seqs[number] = seq + 1
        name = source(number)
        at_us = NOW_US + at_s * S
        value = envelope(events, source=name, seq=seq, sent_us=at_us - late_s * S, **head)
        self.meter.process(
            record(value, offset=self._offset, timestamp_us=at_us, key=name.encode())
        )
        self._offset += 1

    def others_until(self, at_s: int) -> None:
        while self._now_s + 10 <= at_s:
            self._now_s += 10
            self.take(9, self._now_s, [BEAT])

    def look(self, at_s: int) -> list[tuple[str, str]]:
        self.others_until(at_s)
        self.meter.tick(NOW_US + at_s * S)
        done = self.meter.checkpoint()
        self.rows = {k: v for k, v in (self.rows | dict(done.rows)).items() if v is not None}
        self.outputs += done.outputs
        for output in done.outputs:
            if output.topic == "alerts":
                alert = decode_alert(output.value or b"")
                self.alerts.append(alert)
                self.said.append((alert.kind, alert.source[-1]))
        return self.said

    def row(self, number: int) -> dict[str, Any]:
        return json.loads(self.rows[b"s:" + source(number).encode()])


def test_a_source_that_falls_silent_has_ended_uncleanly_and_may_speak_again():
    meter = Meter()
    meter.take(1, 0, [BEAT], service="answers")
    meter.take(1, 5)
    assert meter.look(64) == []
    assert meter.look(65) == []  # the log's time is that of its newest record
    assert meter.look(70) == [("unclean_end", "1")]
    told = meter.alerts[0]
    assert told.id == alert_id("unclean_end", LOG, source(1), 2)
    assert (told.project, told.first_seq) == ("shop", 2)
    assert "of answers is silent for 65 s and has not closed" in told.message
    assert meter.row(1) == {
        "v": 2, "log": LOG, "next": 2, "seen_us": NOW_US + 5 * S, "unclean": True
    }  # fmt: skip
    meter.restart()
    assert len(meter.look(200)) == 1, "said again after a restart"
    meter.take(1, 201, [BEAT])
    assert meter.look(201) == [("unclean_end", "1"), ("resumed", "1")]
    assert meter.alerts[1].corrects == told.id
    meter.restart()
    assert meter.look(270)[2:] == [("unclean_end", "1")], "and ends again"
    assert meter.alerts[2].id == alert_id("unclean_end", LOG, source(1), 3)


def test_a_source_that_closes_has_not_ended_uncleanly():
    meter = Meter()
    meter.take(1, 0, [BEAT])
    meter.take(1, 1, last=True)
    meter.take(2, 0, [BEAT])
    meter.take(2, 1, seq=3, last=True)
    assert [kind for kind in meter.look(500) if kind[0] != "gap"] == []


def test_a_source_that_never_said_it_lives_may_be_silent_for_an_hour():
    meter = Meter()
    meter.take(1, 0)
    assert meter.look(3590) == []
    meter.restart()
    assert meter.look(3600) == [("unclean_end", "1")]


def test_what_fills_a_gap_of_the_past_is_no_sign_of_life():
    """The next process of a spool's directory sends what the one before it had left."""
    meter = Meter()
    meter.take(1, 0, [BEAT])
    meter.take(1, 1, seq=2)
    assert ("unclean_end", "1") in meter.look(70)
    meter.take(1, 71, seq=1)
    assert meter.look(72)[2:] == [("gap_closed", "1")]
    assert meter.row(1)["unclean"] is True
    meter.take(1, 73, seq=3)
    assert meter.look(73)[3:] == [("resumed", "1")]


def test_a_log_that_was_away_ends_nobody():
    meter = Meter()
    meter.take(1, 0, [BEAT])
    meter._now_s = 300  # nothing from anybody
    meter.take(1, 301, seq=1)
    assert meter.look(320) == []


def test_many_ends_are_told_of_a_few_at_a_time():
    meter = Meter(MeterLimits(ends_per_look=3))
    for number in range(20, 27):
        meter.take(number, 0, [BEAT])
    assert [len(meter.look(at_s)) for at_s in (70, 71, 72, 73)] == [3, 6, 7, 7]


def test_a_duplicate_is_no_sign_of_life():
    meter = Meter()
    meter.take(1, 0, [BEAT])
    meter.take(1, 50, seq=0)
    assert meter.look(70) == [("unclean_end", "1")]
    meter.take(1, 71, seq=0)
    assert len(meter.look(80)) == 1


# -- clocks --------------------------------------------------------------------------------------


def test_a_clock_that_is_ahead_is_told_of_and_nothing_is_shifted():
    meter = Meter()
    started_us = NOW_US + 30 * S
    call = {
        "kind": "call_end", "ts_us": started_us, "started_us": started_us, "status": "ok",
        "call_id": "018f0000-0000-7000-8000-00000000ca11", "operation": "chat",
        "trace_id": "0af7651916cd43dd8448eb211c80319c", "usage": {},
    }  # fmt: skip
    meter.take(1, 0, [call], late_s=-30)
    assert meter.look(0) == [("clock_skew", "1")]
    told = meter.alerts[0]
    assert (told.value, told.limit, told.project) == ("30000000", "10000000", "shop")
    assert told.id == alert_id("clock_skew", LOG, source(1), 1)
    assert "30 s ahead" in told.message
    (stored,) = [each for each in envelopes(meter.outputs) if each.head["source"] == source(1)]
    assert stored.lines[0]["started_us"] == started_us
    minutes = {line["minute"] for each in deltas(meter.outputs) for line in each.lines}
    assert minutes == {started_us // 60_000_000}
    meter.restart()
    meter.take(1, 5, late_s=-31)
    assert len(meter.look(5)) == 1, "said twice"
    meter.take(1, 8, late_s=1)
    assert meter.look(8) == [("clock_skew", "1"), ("clock_agrees", "1")]
    assert meter.alerts[1].corrects == told.id
    meter.take(1, 9, late_s=-11)
    assert meter.look(9)[2:] == [("clock_skew", "1")]
    assert meter.alerts[2].id != told.id


def test_a_refused_envelope_from_the_future_tells_of_its_clock_too():
    meter = Meter()
    meter.take(1, 0, late_s=-3600)
    assert meter.look(0) == [("clock_skew", "1")]


def test_a_clock_that_is_behind_makes_everything_late_by_as_much():
    meter = Meter()
    for at_s in range(0, 60, 5):
        meter.take(1, at_s, late_s=90 + at_s % 3)
        assert meter.look(at_s) == []
    meter.take(1, 60, late_s=91)
    assert meter.look(60) == [("clock_skew", "1")]
    assert meter.alerts[0].value == str(-91 * S)
    assert "behind the log's, or it sends that late" in meter.alerts[0].message


@pytest.mark.parametrize("pace", [2, 10])
def test_a_backlog_is_not_a_clock(pace: int):
    """What waited in a spool comes faster than it was made."""
    meter = Meter()
    late_s = 600
    for at_s in range(0, 300, 4):
        meter.take(1, at_s, late_s=max(0, late_s))
        late_s -= 4 * (pace - 1)
    assert meter.look(300) == []


def test_one_late_envelope_between_others_is_not_a_clock():
    meter = Meter()
    for at_s in range(0, 120, 2):
        meter.take(1, at_s, late_s=60 if at_s % 10 else 0)
    assert meter.look(120) == []
