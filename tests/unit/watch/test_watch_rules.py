"""What the watch says: thresholds, corrections, objectives, resets, statuses and their forecast."""

from __future__ import annotations

import msgspec
import pytest

from callmeter.errors import NewerSchemaError
from callmeter.schema.alerts import threshold_id
from callmeter.schema.budgets import Budget, Slo, next_version
from callmeter.schema.spend import Live, Spend
from callmeter_processors.watch.step import PartitionWatch
from support.watching import HOUR, LOG, NOON_US, Watched, budget, opening, record, usd

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
MIDNIGHT_US = NOON_US + 12 * HOUR_US


def one(watched: Watched, key: str = "team|"):
    return watched.statuses[key]


def test_a_threshold_is_said_once_with_an_id_that_can_be_computed():
    watched = Watched([budget()])
    watched.run([record([usd("2.5")]), record([usd("0.1")]), record([usd("1.4")])])
    assert watched.said() == [("threshold", "50%", 0), ("threshold", "80%", 0)]
    first = watched.alerts[0]
    start_us = NOON_US - 12 * HOUR_US
    assert first.id == threshold_id(
        "team", 1, "", start_us, measure="cost", threshold="50%", ordinal=0
    )
    assert (first.severity, first.value, first.limit) == (
        "warning",
        "2500000000000",
        str(5 * 10**12),
    )
    assert first.message == "team has reached 50%: 2.5 USD of 5 USD"
    assert one(watched).state == "warning"


def test_the_limit_is_reached_at_equality():
    watched = Watched([budget(action="stop")])
    watched.run([record([usd("4.999999999999")])])
    assert one(watched).state == "warning"
    assert not one(watched).stops
    watched = Watched([budget(action="stop")])
    watched.run([record([usd("5")])])
    assert one(watched).state == "exceeded"
    assert one(watched).stops
    assert watched.alerts[-1].severity == "critical"


def test_a_correction_withdraws_the_alert_and_a_new_crossing_has_the_next_ordinal():
    watched = Watched([budget(thresholds=["80%"])])
    watched.run([record([usd(text)]) for text in ("4", "-0.1", "-0.2", "0.2", "0.1")])
    # -0.1 leaves 3.9, above 95 % of 4: said neither below nor above again.
    assert watched.said() == [
        ("threshold", "80%", 0),
        ("withdrawn", "80%", 0),
        ("threshold", "80%", 1),
    ]
    crossed, withdrawn, again = watched.alerts
    assert withdrawn.corrects == crossed.id
    assert len({crossed.id, withdrawn.id, again.id}) == 3


def test_late_spend_moves_a_closed_window_and_says_so_once():
    watched = Watched([budget(thresholds=["80%"])])
    late = MIDNIGHT_US + 60_000_000
    watched.run([
        record([usd("4.2")]),
        record([usd("0.3")], at_us=late),
        record([usd("0.3")], at_us=late + 1),
        record([usd("1", hour=HOUR + 12)], at_us=late + 2),
    ])  # fmt: skip
    assert watched.said() == [("threshold", "80%", 0), ("moved", "80%", 0)]
    assert watched.alerts[1].corrects == watched.alerts[0].id
    assert watched.alerts[1].late
    status = one(watched)
    assert status.spend_pico == str(10**12)
    assert status.previous.spend_pico == "4800000000000"


def test_a_window_that_late_spend_alone_pushes_over_is_said_late():
    watched = Watched([budget(thresholds=["80%"])])
    watched.run([record([usd("3")]), record([usd("3")], at_us=MIDNIGHT_US)])
    assert watched.said() == [("threshold", "80%", 0)]
    assert watched.alerts[0].late


def test_windows_that_had_ended_when_the_terms_were_set_are_not_judged():
    young = next_version(None, Budget(id="team", limit_pico="1"), NOON_US)
    watched = Watched([young])
    watched.run([record([usd("5", hour=HOUR - 24)]), record([usd("5", hour=HOUR - 1)])])
    assert {alert.start_us for alert in watched.alerts} == {NOON_US - 12 * HOUR_US}


def test_tokens_are_a_limit_of_their_own():
    watched = Watched([budget(usd=None, limit_tokens=1000, thresholds=["100%", "300 tokens"])])
    watched.run([record([usd("0", tokens=300)])])
    assert watched.said() == [("threshold", "300 tokens", 0)]
    assert one(watched).state == "warning"
    watched.run([record([usd("0", tokens=700)])])
    assert one(watched).state == "exceeded"
    assert watched.alerts[-1].measure == "tokens"


def test_spend_before_its_definition_is_kept_and_judged_when_it_comes():
    watched = Watched([])
    watched.run([record([usd("4")])])
    assert not watched.statuses
    watched.budgets = [budget()]
    watched.run([])
    assert watched.said() == [("threshold", "50%", 0), ("threshold", "80%", 0)]
    assert one(watched).spend_pico == "4000000000000"


def test_raising_the_limit_keeps_the_spend_and_judges_it_anew():
    old = budget()
    watched = Watched([old])
    watched.run([record([usd("5")])])
    raised = next_version(old, msgspec.structs.replace(old, limit_pico=str(10 * 10**12)), 2)
    watched.budgets = [raised]
    watched.run([])
    assert one(watched).spend_pico == str(5 * 10**12)
    assert one(watched).state == "warning"
    assert watched.said()[-1] == ("threshold", "50%", 0)
    assert len({alert.id for alert in watched.alerts}) == 4


def test_another_scope_is_another_sum_and_old_spend_of_it_is_ignored():
    old = budget()
    watched = Watched([old])
    watched.run([record([usd("5")])])
    moved = next_version(old, msgspec.structs.replace(old, scope={"model": ["gpt*"]}), 2)
    watched.budgets = [moved]
    watched.run([record([usd("1")]), record([usd("2", basis=2)])])
    assert one(watched).basis == 2
    assert one(watched).spend_pico == str(2 * 10**12)


def test_deleting_forgets_everything_and_setting_again_begins_at_nothing():
    old = budget()
    watched = Watched([old])
    watched.run([record([usd("5")])])
    gone = next_version(old, msgspec.structs.replace(old, state="deleted"), 2)
    watched.budgets = [gone]
    watched.run([record([usd("1")])])
    assert not watched.statuses
    assert watched.outputs[-1].value is None
    again = next_version(gone, msgspec.structs.replace(old, state="active"), 3)
    assert again.basis == 3
    watched.budgets = [again]
    watched.run([record([usd("1")]), record([usd("0.5", basis=3)])])
    assert one(watched).spend_pico == "500000000000"


def test_disabled_counts_on_and_says_nothing():
    old = budget(action="stop")
    off = next_version(old, msgspec.structs.replace(old, state="disabled"), 2)
    watched = Watched([off])
    watched.run([record([usd("6")])])
    assert not watched.alerts
    assert one(watched).state == "disabled"
    assert not one(watched).stops
    on = next_version(off, msgspec.structs.replace(off, state="active"), 3)
    watched.budgets = [on]
    watched.run([])
    assert one(watched).state == "exceeded"
    assert len(watched.alerts) == 3


def test_a_reset_forgives_the_window_and_arms_its_thresholds():
    old = budget(action="stop")
    watched = Watched([old])
    watched.run([record([usd("6")])])
    reset = next_version(old, msgspec.structs.replace(old, resets=1), 2)
    watched.budgets = [reset]
    watched.run([])
    status = one(watched)
    assert (status.state, status.resets, status.forgiven_pico) == ("ok", 1, str(6 * 10**12))
    assert status.spend_pico == str(6 * 10**12)
    watched.run([record([usd("2.5")])])
    assert watched.said()[-1] == ("threshold", "50%", 1)
    watched.run([])
    assert one(watched).forgiven_pico == str(6 * 10**12), "a restart forgave again"


def test_the_end_of_a_window_is_news_only_where_something_was_wrong():
    watched = Watched([budget(action="stop"), budget("calm", usd="100")])
    watched.run([record([usd("6"), usd("1", name="calm")])])
    watch = watched.start()
    before = len(watched.outputs)
    watch.tick(MIDNIGHT_US - 1)
    watched.keep(watch)
    assert len(watched.outputs) == before
    watch.tick(MIDNIGHT_US)
    watched.keep(watch)
    assert [out.key for out in watched.outputs[before:]] == [b"team|"]
    status = one(watched)
    assert (status.state, status.spend_pico, status.start_us) == ("ok", "0", MIDNIGHT_US)
    assert status.previous.spend_pico == str(6 * 10**12)


def test_error_rates_need_enough_calls_and_are_met_again():
    rule = budget(usd=None, slo=Slo(measure="error_rate", max_ppm=100_000, min_calls=10))
    watched = Watched([rule])
    watched.run([record([usd("0", calls=9, failures=9)])])
    assert not watched.alerts
    assert isinstance(one(watched).value, msgspec.UnsetType)
    watched.run([record([usd("0", calls=1)])])
    assert watched.said() == [("slo", "", 0)]
    assert (one(watched).state, one(watched).value) == ("exceeded", 900_000)
    watched.run([record([usd("0", calls=990)])])
    assert watched.said()[-1] == ("slo_met", "", 0)
    assert watched.alerts[1].corrects == watched.alerts[0].id
    assert one(watched).state == "ok"


def test_latency_objectives_read_the_histogram():
    slo = Slo(measure="latency", max_us=1_000_000, quantile_ppm=500_000, min_calls=2)
    watched = Watched([budget(usd=None, slo=slo)])
    # Bucket 700 is 2 ** (700 / 32) µs: 3.9 s.
    watched.run([record([usd("0", calls=2, latency_hist={700: 2})])])
    assert watched.said() == [("slo", "", 0)]
    assert one(watched).value == pytest.approx(2 ** (700 / 32), rel=0.011)


def test_sessions_have_no_end_and_one_sum_each():
    rule = budget(window="session", per="session")
    watched = Watched([rule])
    month_later = NOON_US + 30 * DAY_US
    watched.run([
        record([usd("3", window="session", entity="s1"), usd("1", window="session", entity="s2")]),
        record([usd("2", window="session", entity="s1", hour=HOUR + 720)], at_us=month_later),
    ])  # fmt: skip
    assert one(watched, "team|s1").spend_pico == str(5 * 10**12)
    assert one(watched, "team|s1").end_us == 0
    assert one(watched, "team|s2").state == "ok"


def test_burn_rate_and_forecast():
    watched = Watched([budget(usd="10")])
    hour = NOON_US
    records = [record([usd("0.1")], at_us=hour + i * 300_000_000) for i in range(13)]
    watched.run(records)
    status = one(watched)
    # 13 buckets of 0.1 in the 60 minutes before the newest bucket, and the newest.
    assert int(status.burn_long_pico) == 13 * 10**11
    assert int(status.burn_short_pico) == 2 * 10**11 * 12
    left = 10 * 10**12 - 13 * 10**11
    assert status.exhausts_us == status.at_us + left * HOUR_US // (24 * 10**11)


def test_no_forecast_beyond_the_window():
    watched = Watched([budget(usd="1000000")])
    watched.run([record([usd("0.1")])])
    assert isinstance(one(watched).exhausts_us, msgspec.UnsetType)


def test_open_calls_are_exposure_and_no_spend():
    line = Spend(budget="team", basis=1, window="day", open=2, exposure_pico="700")
    watched = Watched([budget()])
    watched.run([record([line]), record([Spend(budget="team", basis=1, window="day", open=-1,
                                               exposure_pico="-300")])])  # fmt: skip
    status = one(watched)
    assert (status.open, status.exposure_pico, status.calls, status.spend_pico) == (
        1,
        "400",
        0,
        "0",
    )


def test_included_moves_with_the_last_part_alone():
    watched = Watched([budget()])
    watched.run([record([usd("1")], partition=3, last=40, part=0, parts=2)])
    assert one(watched).included == {}
    watched.run([record([usd("1")], partition=3, last=40, part=1, parts=2)])
    assert one(watched).included == {3: 40}


def test_an_opening_balance_counts_once_however_often_it_is_written():
    watched = Watched([budget()])
    watched.run([record([usd("1")])])
    balance = opening([usd("3")], partition=2, next=7)
    watched.run([balance, balance])
    watched.run([balance])
    assert one(watched).spend_pico == str(4 * 10**12)
    assert one(watched).openings == 1
    assert watched.said() == [("threshold", "50%", 0), ("threshold", "80%", 0)]
    assert one(watched).burn_long_pico == str(10**12), "an opening balance burned"


def test_spend_of_windows_no_longer_kept_is_counted_apart():
    watched = Watched([budget()])
    watched.run([record([usd("1")]), record([usd("2", hour=HOUR - 24 * 40)])])
    assert one(watched).spend_pico == str(10**12)
    assert one(watched).late_pico == str(2 * 10**12)


def test_more_entities_than_a_checkpoint_may_hold_wait_and_the_bad_ones_go_first():
    watched = Watched([budget(per="user")], max_statuses=3)
    lines = [usd("6" if i == 8 else "1", entity=f"u{i}") for i in range(9)]
    watched.run([record(lines)])
    assert next(o.key for o in watched.outputs if o.topic == "budget-status") == b"team|u8"
    assert len(watched.statuses) == 3
    for _ in range(2):  # each begins with what was kept, as after a crash
        watched.run([])
    assert len(watched.statuses) == 9
    before = len(watched.outputs)
    watched.run([])
    assert len(watched.outputs) == before


def test_entities_that_nobody_speaks_of_are_forgotten():
    watched = Watched([budget(per="user")])
    watched.run([record([usd("1", entity="alice")])])
    watch = watched.start()
    watch.tick(NOON_US + 100 * DAY_US)
    watched.keep(watch)
    assert watched.outputs[-1].key == b"team|alice"
    assert watched.outputs[-1].value is None


def test_live_shows_the_newest_windows_by_model():
    minute = NOON_US // 60_000_000
    line = Live(
        project="shop", minute=minute, provider="openai", model="gpt", calls=2, failures=1,
        input_tokens=10, output_tokens=5, cost_pico="99", latency_hist={320: 2}, open=1,
    )  # fmt: skip
    watched = Watched()
    watched.run([record([line]), record([msgspec.structs.replace(line, minute=minute - 90)])],
                ["checkpoint", "crash"], NOON_US)  # fmt: skip
    shop = watched.live["shop"]
    shown = {(w.window, w.start_us): w.models[0] for w in shop.windows}
    assert set(shown) == {
        ("minute", NOON_US), ("hour", NOON_US), ("hour", NOON_US - 2 * HOUR_US),
        ("day", NOON_US - 12 * HOUR_US),
    } - {("hour", NOON_US - 2 * HOUR_US)}  # fmt: skip
    day = shown["day", NOON_US - 12 * HOUR_US]
    assert (day.calls, day.failures, day.input_tokens, day.cost_pico) == (4, 2, 20, "198")
    assert day.latency_p50_us == pytest.approx(1024, rel=0.02)
    assert shop.open[0].open == 2


def test_records_of_another_log_are_none_of_ours_and_newer_ones_stop_the_watch():
    watch = PartitionWatch("another log", 0)
    watch.configure([budget()], 0, 1)
    watch.process(record([usd("5")]))
    assert not watch.checkpoint().outputs
    watch = PartitionWatch(LOG, 0)
    newer = record([usd("5")], v=2)
    with pytest.raises(NewerSchemaError):
        watch.process(newer)
