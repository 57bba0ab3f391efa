"""Sequence numbers: new, duplicate, missing, given up, forgotten."""

import gc
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callmeter.errors import NewerSchemaError
from callmeter_processors.limits import DAY_US, MeterLimits
from callmeter_processors.rows import decode_rows, encode_row, row_key
from callmeter_processors.sequence import Sources
from callmeter_processors.tracker import Seen, Tracker
from support.metering import LOG, NOW_US, source


def take_all(tracker, seqs, max_gaps=512):
    return [tracker.take(seq, NOW_US, max_gaps) for seq in seqs]


def missing(tracker):
    return [(first, last) for first, last, _ in tracker.gaps]


def test_in_order_there_are_no_gaps():
    tracker = Tracker()
    assert take_all(tracker, range(5)) == [Seen.NEW] * 5
    assert (tracker.next, tracker.gaps) == (5, [])


def test_a_gap_is_recorded_with_its_time_split_and_closed():
    tracker = Tracker()
    take_all(tracker, [0])
    tracker.take(6, NOW_US + 7, 512)
    assert tracker.gaps == [[1, 5, NOW_US + 7]]
    assert take_all(tracker, [3, 1, 5]) == [Seen.NEW] * 3
    assert tracker.gaps == [[2, 2, NOW_US + 7], [4, 4, NOW_US + 7]]
    assert take_all(tracker, [2, 4, 4, 6, 0]) == [Seen.NEW] * 2 + [Seen.DUPLICATE] * 3
    assert tracker.gaps == []


def test_a_far_jump_is_one_range():
    tracker = Tracker()
    assert take_all(tracker, [2**63 - 1, 0, 2**63 - 1, 1]) == [
        Seen.NEW,
        Seen.NEW,
        Seen.DUPLICATE,
        Seen.NEW,
    ]
    assert missing(tracker) == [(2, 2**63 - 2)]


def test_too_many_gaps_give_up_the_lowest_and_say_so():
    tracker = Tracker()
    take_all(tracker, range(1, 20, 2), max_gaps=3)
    assert len(tracker.gaps) == 3
    assert tracker.given_up == 7
    assert tracker.take(2, NOW_US, 3) is Seen.GIVEN_UP
    assert tracker.take(14, NOW_US, 3) is Seen.NEW
    assert not tracker.compact


@given(st.lists(st.integers(0, 30), max_size=80))
def test_any_order_agrees_with_a_set(seqs):
    tracker, seen = Tracker(), set()
    for seq in seqs:
        expected = Seen.DUPLICATE if seq in seen else Seen.NEW
        assert tracker.take(seq, NOW_US, 512) is expected
        seen.add(seq)
        holes = {seq for first, last in missing(tracker) for seq in range(first, last + 1)}
        assert holes == set(range(max(seen) + 1)) - seen
        assert tracker.next == max(seen) + 1


@given(st.lists(st.integers(0, 40), max_size=80), st.integers(1, 4))
def test_with_few_gaps_kept_nothing_is_ever_new_twice(seqs, max_gaps):
    tracker, new = Tracker(), []
    for seq in seqs:
        if tracker.take(seq, NOW_US, max_gaps) is Seen.NEW:
            new.append(seq)
        assert len(tracker.gaps) <= max_gaps
    assert len(new) == len(set(new))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12), st.booleans()), max_size=60))
def test_rows_restore_what_they_say(taken):
    """Whatever was taken, restored sources answer every further seq as the kept ones do."""
    kept = Sources(MeterLimits())
    rows: dict[bytes, bytes] = {}
    for number, seq, last in taken:
        kept.take(source(number), seq, NOW_US, last=last)
        changed, forgotten = kept.drain()
        assert not forgotten
        rows |= {row_key(name): encode_row(LOG, tracker) for name, tracker in changed.items()}
    restored = Sources(MeterLimits())
    restored.restore(decode_rows(LOG, rows))
    assert len(restored) == len(kept) == len({number for number, _, _ in taken})
    for number in range(4):
        for seq in range(14):
            assert kept.take(source(number), seq, NOW_US, last=False) is restored.take(
                source(number), seq, NOW_US, last=False
            )


def test_duplicates_change_no_row():
    sources = Sources(MeterLimits())
    sources.take(source(1), 0, NOW_US, last=True)
    sources.drain()
    assert sources.take(source(1), 0, NOW_US + 1, last=True) is Seen.DUPLICATE
    assert sources.drain() == ({}, [])


def test_a_closed_source_may_speak_again():
    sources = Sources(MeterLimits())
    sources.take(source(1), 0, NOW_US, last=True)
    sources.drain()
    assert sources.take(source(1), 2, NOW_US, last=False) is Seen.NEW
    ((name, tracker),) = sources.drain()[0].items()
    assert (name, missing(tracker)) == (source(1), [(1, 1)])


@pytest.mark.parametrize("last", [True, False])
def test_a_silent_source_is_forgotten_by_log_time_a_few_at_a_time(last):
    limits = MeterLimits(forget_per_checkpoint=2)
    sources = Sources(limits)
    for number in range(5):
        sources.take(source(number), 0, NOW_US, last=last)
    sources.drain()
    horizon_us = NOW_US + limits.keep_us
    sources.take(source(9), 0, horizon_us, last=False)
    assert sources.drain()[1] == []
    sources.take(source(9), 1, horizon_us + DAY_US, last=False)
    forgotten = [sources.drain()[1] for _ in range(4)]
    assert [len(names) for names in forgotten] == [2, 2, 1, 0]
    assert {name for names in forgotten for name in names} == {source(n) for n in range(5)}
    assert len(sources) == 1


def test_a_source_is_remembered_longer_than_any_copy_may_come():
    """Accepted at log time T it was sent by T + future; later than keep its copy is too late."""
    limits = MeterLimits()
    assert limits.keep_us > limits.dedupe_horizon_us + limits.future_us


def test_rows_of_another_log_and_of_others_are_ignored():
    rows = {row_key(source(1)): encode_row("another", Tracker(3)), b"position": b"{}"}
    assert list(decode_rows(LOG, rows)) == []


def test_a_row_of_a_newer_format_stops_the_worker():
    rows = {row_key(source(1)): b'{"v":3,"log":"%s","what":[]}' % LOG.encode()}
    with pytest.raises(NewerSchemaError, match="format 3"):
        list(decode_rows(LOG, rows))


def test_a_row_is_small_and_bounded():
    tracker = Tracker()
    tracker.take(0, NOW_US, 512)
    assert len(encode_row(LOG, tracker)) < 120
    for seq in range(2**62, 2**62 + 5000, 2):
        tracker.take(seq, NOW_US, 512)
    assert len(encode_row(LOG, tracker)) < 40_000


@pytest.mark.parametrize("clean", [True, False])
def test_millions_of_short_lived_sources_cost_little_each(clean):
    """What is kept of a source that has ended, in memory and as a row, whichever way it ended."""
    limits = MeterLimits(ends_per_look=2000)
    sources = Sources(limits)
    count = 20_000
    names = [source(number) for number in range(count)]
    gc.collect()
    tracemalloc.start()
    largest = 0
    for start in range(0, count, 1000):
        at_us = NOW_US + start
        for name in names[start : start + 1000]:
            sources.take(name, 0, at_us, last=False, project="shop", service="answers")
            sources.beats(name)
            sources.take(name, 1, at_us, last=clean)
        sources.fall_silent(at_us + limits.silent_us, 0)
        changed, forgotten = sources.drain()
        assert not forgotten
        largest = max(largest, *(len(encode_row(LOG, tracker)) for tracker in changed.values()))
    del changed
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert sources.figures() == {
        "sources_open": 0, "sources_closed": count, "missing_envelopes": 0
    }  # fmt: skip
    assert held / count < 250
    assert largest < 130
    assert sources.take(names[7], 1, NOW_US, last=False) is Seen.DUPLICATE
    assert sources.take(names[7], 2, NOW_US, last=False) is Seen.NEW
    assert len(sources.resumed) == (not clean)
