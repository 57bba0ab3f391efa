"""The commit order under a fault at every single step: each record lands once, whatever happens."""

from __future__ import annotations

import itertools
from contextlib import suppress

import pytest

from callmeter_sinks.faults import FencedError, RangeChangedError
from callmeter_sinks.ranges import RangeLimits
from callmeter_sinks.sink import Sink
from support.fake_store import (
    Crash,
    FakeSource,
    FakeStore,
    Fault,
    crash_after,
    crash_before,
    cut_answer,
    refuse_connection,
)
from support.metered import MeteredStream

LOG = "0198a1b2-0000-4000-8000-000000000001"
LIMITS = RangeLimits(max_events=20, linger_s=0.0)


def source_of(checkpoints: int = 3, partitions: int = 1) -> FakeSource:
    source = FakeSource(LOG, partitions)
    for partition in range(partitions):
        stream = MeteredStream(LOG, partition)
        for _ in range(checkpoints):
            source.append(partition, stream.checkpoint(envelopes=3, events=8), skip=1)
    return source


def sink_on(store: FakeStore, source: FakeSource) -> Sink:
    return Sink(store, source, limits=LIMITS, first_retry_s=0.0)


def wanted(source: FakeSource) -> list[tuple[int, int]]:
    return [(r.partition, r.offset) for records in source.records for r in records]


def landed(store: FakeStore) -> list[tuple[int, int]]:
    return sorted((partition, offset) for partition, offset, _ in store.landed)


def steps_of_a_clean_run() -> list[str]:
    store = FakeStore()
    sink_on(store, source_of()).drain()
    return store.log


STEPS = steps_of_a_clean_run()


def test_a_clean_run_takes_the_documented_steps() -> None:
    take_over = [
        "select sink_claims", "insert sink_claims", "select sink_quarantine", "select sink_intents",
    ]  # fmt: skip
    each_range = ["insert sink_intents", "select sink_claims", "insert landing"]
    assert take_over == STEPS[:4]
    assert STEPS[4:] == [*each_range * 3, "insert sink_intents"]  # at last the mark of rest


@pytest.mark.parametrize("fault", [crash_before, crash_after], ids=lambda f: f.__name__)
@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
def test_a_crash_at_any_step_and_again_while_recovering(step: int, fault: Fault) -> None:
    for second in range(1, 9):
        store, source = FakeStore(), source_of()
        store.faults[step] = fault
        with pytest.raises(Crash):
            sink_on(store, source).drain()
        store.faults[store.calls + second] = fault  # in the middle of what comes after
        crashes = 0
        while True:
            try:
                sink_on(store, source).drain()
                break
            except Crash:
                crashes += 1
        assert landed(store) == wanted(source)
        assert crashes <= 1


@pytest.mark.parametrize("fault", [refuse_connection, cut_answer], ids=lambda f: f.__name__)
@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
def test_a_cut_connection_at_any_step_is_the_same_call_again(step: int, fault: Fault) -> None:
    store, source = FakeStore(), source_of()
    store.faults[step] = fault
    stats = sink_on(store, source).drain()
    assert stats.retries == 1
    assert landed(store) == wanted(source)
    assert store.log[step - 1] == STEPS[step - 1]
    # An insert is preceded by a look at the claims each time, and otherwise nothing is new.
    retried = store.log[step]
    assert retried == ("select sink_claims" if "landing" in STEPS[step - 1] else STEPS[step - 1])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", range(1, len(STEPS) + 1))
def test_another_sink_takes_over_at_any_step(step: int, when: str) -> None:
    """The whole run of a newer owner lies inside one call of the older one: as after SIGSTOP."""
    store, source = FakeStore(), source_of()

    def interleave(_: FakeStore, work):
        answer = work() if when == "after" else None
        sink_on(store, source).drain()
        return answer if when == "after" else work()

    store.faults[step] = interleave
    with suppress(FencedError):  # or it had nothing left to write
        sink_on(store, source).drain()
    assert landed(store) == wanted(source)


@pytest.mark.parametrize("step", range(5, len(STEPS) + 1))
def test_a_newer_owner_that_dies_midway_and_a_third_one(step: int) -> None:
    for newer_ends_at in range(1, 12):
        store, source = FakeStore(), source_of()

        def interleave(_: FakeStore, work, end=newer_ends_at, store=store, source=source):
            store.faults[store.calls + end] = crash_before
            with suppress(Crash):
                sink_on(store, source).drain()
            store.faults.clear()
            return work()

        store.faults[step] = interleave
        with suppress(FencedError):
            sink_on(store, source).drain()
        store.faults.clear()
        sink_on(store, source).drain()
        assert landed(store) == wanted(source)


def test_ranges_end_where_the_meter_made_checkpoints() -> None:
    store, source = FakeStore(), source_of(checkpoints=7, partitions=3)
    sink_on(store, source).drain()
    assert landed(store) == wanted(source)
    for intent in store.tables["sink_intents"]:
        after = [r.offset for r in source.records[intent["partition"]]]
        assert intent["last"] in after
        assert intent["first"] == after[0] or intent["first"] - 2 in after  # behind a marker
    for intents in by_partition(store).values():
        for one, two in itertools.pairwise(intents):
            assert one["origin_next"] == two["origin_first"]


def by_partition(store: FakeStore) -> dict[int, list[dict]]:
    found: dict[int, list[dict]] = {}
    for intent in store.tables["sink_intents"]:
        found.setdefault(intent["partition"], []).append(intent)
    return found


def test_a_log_that_gives_other_records_for_a_range_is_refused() -> None:
    store, source = FakeStore(), source_of(checkpoints=1)
    store.faults[len(STEPS) // 3 + 3] = crash_before
    with pytest.raises(Crash):
        sink_on(store, source).drain()
    first = source.records[0][0]
    source.records[0][0] = first._replace(value=first.value.replace(b"shop", b"shed"))
    with pytest.raises(RangeChangedError, match="not what they were"):
        sink_on(store, source).drain()
    assert store.landed == []


def test_stops_while_the_store_is_away_and_the_next_one_goes_on() -> None:
    store, source = FakeStore(), source_of()
    sink = sink_on(store, source)

    def away(_: FakeStore, work):
        sink.stop()
        return refuse_connection(store, work)

    store.faults[len(STEPS) - 3] = away
    sink.drain()
    sink_on(store, source).drain()
    assert landed(store) == wanted(source)
