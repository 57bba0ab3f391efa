"""Open calls: counted while they are open, told of when they hang, corrected by a late end."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callmeter.errors import NewerSchemaError
from callmeter.schema.alerts import Alert, alert_id, decode_alert
from callmeter.schema.budgets import Budget, Slo, next_version
from callmeter_processors.limits import MeterLimits
from callmeter_processors.meter import PartitionMeter
from support.metering import LOG, NOW_US, TablePricer, call_end, envelope, record, source

S = 1_000_000
ALL = next_version(None, Budget(id="all", limit_pico="1"), 1)


def call_id(number: int) -> str:
    return f"018f0000-0000-7000-8000-{number:012x}"


def begin(number: int, **fields: Any) -> dict[str, Any]:
    base = {
        "kind": "call_begin",
        "ts_us": NOW_US,
        "call_id": call_id(number),
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "started_us": NOW_US,
        "operation": "chat",
        "model": "gpt-4o",
        "estimate_pico": "50",
    }
    return base | fields


def end(number: int, **fields: Any) -> dict[str, Any]:
    return call_end(call_id=call_id(number), model="gpt-4o", **fields)


class Meter:
    """A meter whose rows and outputs are kept; restarted at will."""

    def __init__(self, limits: MeterLimits | None = None, budgets: list[Budget] | None = None):
        self.rows: dict[bytes, bytes] = {}
        self.alerts: list[Alert] = []
        self.open = 0
        self.exposure = 0
        self.live = 0
        self._limits = limits
        self._budgets = [ALL] if budgets is None else budgets
        self._offset = 0
        self.restart()

    def restart(self) -> None:
        self.meter = PartitionMeter(LOG, 0, TablePricer(), self._limits)
        self.meter.restore(dict(self.rows))
        self.meter.configure(self._budgets, self._offset, 1)

    def take(self, events: list[Any], *, at_s: float = 0, n: int = 1, **header: Any) -> None:
        value = envelope(events, source=source(n), sent_us=NOW_US + int(at_s * S), **header)
        rec = record(
            value,
            offset=self._offset,
            key=source(n).encode(),
            timestamp_us=NOW_US + int(at_s * S),
        )
        self.meter.process(rec)
        self._offset += 1

    def tick(self, at_s: float) -> None:
        self.meter.tick(NOW_US + int(at_s * S))

    def keep(self) -> None:
        done = self.meter.checkpoint()
        for key, value in done.rows.items():
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value
        for output in done.outputs:
            if output.topic == "alerts":
                self.alerts.append(decode_alert(output.value or b""))
            elif output.topic == "spend":
                for text in (output.value or b"").split(b"\n")[1:-1]:
                    line = json.loads(text)
                    if line["kind"] == "live":
                        self.live += line.get("open", 0)
                    elif line["budget"] == "all":
                        self.open += line.get("open", 0)
                        self.exposure += int(line.get("exposure_pico", "0"))

    def said(self) -> list[tuple[str, str]]:
        self.keep()
        return [(alert.kind, alert.call_id[-2:]) for alert in self.alerts if alert.call_id]


def test_a_begun_call_is_exposure_until_it_ends():
    meter = Meter()
    meter.take([begin(1), begin(2)])
    meter.keep()
    assert (meter.open, meter.exposure, meter.live) == (2, 100, 2)
    assert any(key.startswith(b"o:") for key in meter.rows)
    meter.restart()
    meter.take([end(1)], seq=1)
    meter.keep()
    assert (meter.open, meter.exposure, meter.live) == (1, 50, 1)
    meter.take([end(2)], seq=2)
    meter.keep()
    assert (meter.open, meter.exposure, meter.live) == (0, 0, 0)
    assert not any(key.startswith(b"o:") for key in meter.rows)
    assert not meter.alerts


def test_begin_and_end_of_one_checkpoint_leave_no_trace():
    meter = Meter()
    meter.take([begin(1), end(1)])
    done = meter.meter.checkpoint()
    assert done.rows[b"o:" + source(1).encode()] is None
    assert not any(b'"open"' in (output.value or b"") for output in done.outputs)


def test_an_end_before_its_begin_is_remembered_while_the_begin_may_come():
    meter = Meter()
    meter.take([], seq=0)
    meter.take([end(1)], seq=2)
    meter.keep()
    meter.restart()
    meter.take([begin(1), begin(2)], seq=1)
    meter.keep()
    assert meter.open == 1
    (row,) = (value for key, value in meter.rows.items() if key.startswith(b"o:"))
    assert [call["call_id"] for call in json.loads(row)["calls"]] == [call_id(2)]
    assert json.loads(row)["ended"] == []


def test_ends_of_calls_that_began_after_the_gap_need_no_remembering():
    meter = Meter()
    meter.take([end(1), end(2, started_us=NOW_US + 601 * S)], seq=1, at_s=0)
    meter.take([end(3, started_us=NOW_US + 1500 * S)], seq=2, at_s=1500)
    meter.keep()
    row = json.loads(meter.rows[b"o:" + source(1).encode()])
    assert row["ended"] == [call_id(1)]


def test_remembered_ends_are_forgotten_with_the_gap():
    meter = Meter()
    meter.take([], seq=0)
    meter.take([end(1)], seq=2)
    meter.take([], seq=1)
    meter.keep()
    assert b"o:" + source(1).encode() not in meter.rows


def test_remembered_ends_and_open_calls_are_bounded():
    meter = Meter(MeterLimits(open_per_source=3))
    meter.take([end(i) for i in range(9)], seq=1)
    meter.keep()
    assert len(json.loads(meter.rows[b"o:" + source(1).encode()])["ended"]) == 3
    meter.take([begin(i) for i in range(20, 29)], n=2)
    meter.keep()
    assert meter.open == 3


def test_a_call_that_is_open_too_long_is_stuck_once_and_corrected_by_its_end():
    meter = Meter()
    meter.take([begin(1, user="alice", program="bot")])
    for second in range(0, 700, 20):
        meter.take([], at_s=second, seq=second // 20 + 1)
        meter.tick(second)
    assert meter.said() == [("stuck", "01")]
    alert = meter.alerts[0]
    assert alert.id == alert_id("stuck", LOG, source(1), call_id(1))
    assert (alert.user, alert.program, alert.model) == ("alice", "bot", "gpt-4o")
    assert alert.at_us == NOW_US + 600 * S
    assert meter.open == 1, "a stuck call is open still"
    meter.restart()
    meter.take([end(1)], at_s=800, seq=36)
    assert meter.said() == [("stuck", "01"), ("ended", "01")]
    assert meter.alerts[1].corrects == alert.id
    assert meter.open == 0


def test_a_rule_has_its_own_limit_and_name():
    slow = Budget(id="slow", slo=Slo(measure="open", max_us=30 * S), scope={"model": ["gpt*"]})
    meter = Meter(budgets=[ALL, slow])
    meter.take([begin(1), begin(2, model="claude")])
    meter.take([], at_s=30, seq=1)
    meter.tick(30)
    assert meter.said() == [("stuck", "01")]
    assert meter.alerts[0].rule == "slow"


def test_a_silent_source_orphans_its_calls():
    meter = Meter()
    meter.take([begin(1)])
    meter.take([begin(2)], n=2)
    for seq, at_s in enumerate((15, 30, 45, 59), 1):
        meter.take([], n=2, seq=seq, at_s=at_s)
    meter.tick(59)
    assert meter.said() == []
    meter.take([], n=2, seq=5, at_s=60)
    meter.tick(60)
    assert meter.said() == [("orphaned", "01")]
    assert (meter.open, meter.exposure) == (1, 50)
    meter.restart()
    meter.tick(61)
    assert meter.said() == [("orphaned", "01")], "said again after a restart"
    meter.take([end(1)], at_s=90, seq=1)
    assert meter.said() == [("orphaned", "01"), ("ended", "01")]
    assert meter.open == 1


def test_a_log_that_was_away_makes_nobody_silent():
    meter = Meter()
    meter.take([begin(1)])
    meter.take([begin(2)], n=2)
    meter.take([], n=2, seq=1, at_s=300)
    meter.tick(300)
    assert meter.said() == []
    meter.take([], n=2, seq=2, at_s=318)
    meter.take([], n=2, seq=3, at_s=337)
    meter.take([], n=2, seq=4, at_s=356)
    meter.tick(359)
    assert meter.said() == []
    meter.take([], n=2, seq=5, at_s=360)
    meter.tick(360)
    assert meter.said() == [("orphaned", "01")]


def test_a_source_that_closes_leaves_its_calls_behind_at_once():
    meter = Meter()
    meter.take([begin(1)])
    meter.take([], seq=1, last=True, at_s=1)
    meter.tick(1)
    assert meter.said() == [("orphaned", "01")]


def test_a_meter_that_is_behind_or_was_down_takes_nothing_for_silence():
    meter = Meter()
    meter.take([begin(1)])
    meter.keep()
    meter.restart()
    # Restored an hour later by the wall's clock, with the records of that hour still to be read.
    meter.tick(3600)
    meter.tick(3601)
    meter.take([], seq=1, at_s=10)
    meter.tick(3603)
    meter.take([], seq=2, at_s=50)
    meter.tick(3604)
    assert meter.said() == []
    # At the end of the log it is silence, as long as it lasts.
    for second in range(3604, 3664):
        meter.tick(second)
    assert meter.said() == []
    meter.tick(3664)
    assert meter.said() == [("orphaned", "01")]


def test_a_heartbeat_that_says_nothing_is_open_closes_what_was_dropped():
    meter = Meter()
    meter.take([begin(1)])
    beat = {"kind": "heartbeat", "ts_us": NOW_US + S, "open": 1}
    meter.take([beat], seq=1, at_s=1)
    meter.keep()
    assert meter.open == 1
    meter.take([beat | {"open": 0}], seq=2, at_s=2)
    meter.keep()
    assert meter.open == 0
    assert not meter.alerts


def test_a_budget_that_begins_hears_of_calls_that_are_open_already():
    meter = Meter(budgets=[])
    meter.take([begin(1), begin(2)])
    meter.keep()
    assert (meter.open, meter.live) == (0, 2)
    meter.meter.configure([ALL], 1, 1)
    meter.meter.configure([ALL, Budget(id="other", limit_pico="1")], 1, 1)
    meter.take([end(1)], seq=1)
    meter.keep()
    assert (meter.open, meter.exposure) == (1, 50)
    meter._budgets = [ALL]
    meter.restart()
    meter.take([end(2)], seq=2)
    meter.keep()
    assert (meter.open, meter.exposure, meter.live) == (0, 0, 0)


def test_rows_of_a_newer_format_stop_the_worker():
    meter = PartitionMeter(LOG, 0, TablePricer())
    row = b'{"v":9,"log":"%s","calls":[]}' % LOG.encode()
    with pytest.raises(NewerSchemaError):
        meter.restore({b"o:" + source(1).encode(): row})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_in_flight_is_what_began_and_has_not_ended_in_any_order(data):
    """Envelopes of one source in any order, duplicates among them, crashes in between."""
    count = data.draw(st.integers(1, 12))
    kinds = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    batches = [[begin(i)] for i in range(count)]
    batches += [[end(i)] for i in range(count) if kinds[i]]
    order = data.draw(st.permutations(range(len(batches))))
    meter = Meter()
    for seq in order:
        meter.take(batches[seq], seq=seq)
        action = data.draw(st.sampled_from(["go", "again", "keep", "restart"]))
        if action == "again":
            meter.take(batches[seq], seq=seq)
        elif action != "go":
            meter.keep()
            if action == "restart":
                meter.restart()
    meter.keep()
    assert meter.open == kinds.count(False)
    assert meter.live == kinds.count(False)
    assert meter.exposure == 50 * kinds.count(False)


def test_a_call_that_a_closed_source_left_is_told_of_by_whoever_takes_over():
    """No source speaks any more, and nothing is missing: the log's time goes on all the same."""
    meter = Meter()
    meter.take([begin(1)])
    meter.take([], seq=1, last=True, at_s=1)
    meter.keep()
    meter.restart()
    meter.tick(2)
    assert meter.said() == [("orphaned", "01")]
