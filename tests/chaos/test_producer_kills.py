"""kill -9 of a durable producer at random moments, its backend in every mood: to the event.

Each life takes over what the one before left. Behind the meter an event whose call had returned a
sync interval before the kill counts once; a later one counts once or not at all, and then its
source is told of: an unclean end where its newest events are missing, a gap where older ones are.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import textwrap
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from support.chaos import ChaosRun
from support.moody_collector import AWAY, HANGS_UP, REFUSES, WELL, MoodyCollector, moody_collector

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

#: The documented default: ``sync_interval_s``.
SYNC_NS = 100_000_000
_NOTE = struct.Struct("<IQ")
#: Noted by a thread that does nothing but sleep for 5 ms and write a byte.
CANARY, CANARY_NS = 2**32 - 1, 5_000_000
PRODUCER = """
    import os, struct, sys, threading, time
    import callmeter
    note = struct.Struct("<IQ")
    def watch(pipe):
        while True:
            with open("canary", "wb") as file:
                file.write(b"x")
            os.write(pipe, note.pack(2**32 - 1, time.monotonic_ns()))
            time.sleep(0.005)
    url, spool, life, pipe, room, pad = sys.argv[1:7]
    room, pipe = int(room), int(pipe)
    callmeter.init(url, spool_dir=spool, durable=True, timeout_s=2.0, spool_max_bytes=room)
    labels = {"pad": "x" * int(pad)}
    threading.Thread(target=watch, args=(pipe,), daemon=True).start()
    for i in range(1_000_000):
        callmeter.metric(f"{life}-{i}", 1.0, labels=labels)
        os.write(pipe, note.pack(i, time.monotonic_ns()))
        time.sleep(0.0005)
"""
HEIR = """
    import sys, time
    from pathlib import Path
    import callmeter
    url, spool = sys.argv[1:3]
    callmeter.init(url, spool_dir=spool, durable=True, timeout_s=2.0)
    end = time.monotonic() + 120
    while any(Path(spool).iterdir()):
        assert time.monotonic() < end, (list(Path(spool).glob("*/*")), callmeter.stats())
        time.sleep(0.05)
    print(callmeter.stats().recovered)
"""


#: (room in the spool, padding of an event) for more than any life leaves; and for a thousand events
#: in the smallest spool there may be.
AMPLE, LITTLE = (2**30, 1), (2**20, 1_000)


def started(
    collector: MoodyCollector, spool: Path, life: int, writing: int, room: tuple[int, int] = AMPLE
) -> subprocess.Popen[bytes]:
    """A producer that notes on the pipe what it has metered."""
    arguments = [collector.url, str(spool), str(life), str(writing), *map(str, room)]
    program = textwrap.dedent(PRODUCER)
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], pass_fds=[writing], cwd=spool.parent
    )


def one_life(collector: MoodyCollector, spool: Path, life: int, chaos: ChaosRun) -> tuple[int, int]:
    """Start a producer and kill it: (events a sync interval old at the kill, events in all)."""
    reading, writing = os.pipe()
    child = started(collector, spool, life, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as notes:
        first = notes.read(2 * _NOTE.size)  # it runs
        time.sleep(chaos.random.uniform(0.0, 1.2))
        killed_ns = time.monotonic_ns()
        child.kill()
        child.wait()
        chaos.count("kill -9")
        told = first + notes.read()
    whole = len(told) // _NOTE.size * _NOTE.size
    notes_made = list(_NOTE.iter_unpack(told[:whole]))
    times = [ns for i, ns in notes_made if i != CANARY]
    if not times:
        return 0, 0
    # A machine that lets a thread or a write wait does so to the spool's, in each of its few turns.
    beats = sorted([times[0], *(ns for i, ns in notes_made if i == CANARY), killed_ns])
    late_ns = max(later - earlier for earlier, later in pairwise(beats)) - CANARY_NS
    safe_ns = killed_ns - SYNC_NS - 3 * max(0, late_ns)
    return sum(ns <= safe_ns for ns in times), len(times)


def life_with_little_room(collector: MoodyCollector, spool: Path, life: int) -> int:
    """Start a producer whose spool holds less than it makes, and kill it once the spool has made
    room and holds newer envelopes: how many events it made.
    """
    notes = spool.with_name(f"notes-{life}")
    with notes.open("wb") as file:
        child = started(collector, spool, life, file.fileno(), LITTLE)
    deadline_s = time.monotonic() + 120
    try:
        while newest_bytes(spool) < 600_000:  # two of the largest envelopes, whole
            assert time.monotonic() < deadline_s, "the spool was never full"
            assert child.poll() is None
            time.sleep(0.01)
    finally:
        child.kill()
        child.wait()
    told = notes.read_bytes()
    whole = len(told) // _NOTE.size * _NOTE.size
    return sum(i != CANARY for i, _ in _NOTE.iter_unpack(told[:whole]))


def newest_bytes(spool: Path) -> int:
    """What is in segments that were begun after one had to go; none is full in so small a spool."""
    size = 0
    for segment in spool.glob("*/*.seg"):
        with suppress(FileNotFoundError):  # it had to go, too
            size += segment.stat().st_size if segment.name > "00000000.seg" else 0
    return size


def inherit(collector: MoodyCollector, spool: Path) -> None:
    """The next process on the spool delivers what the dead ones left."""
    heir = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(HEIR), collector.url, str(spool)],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert heir.returncode == 0, heir.stderr


@dataclass
class Known:
    """What is known of a life behind the meter."""

    source: str = ""
    seqs: set[int] = field(default_factory=set)
    events: set[int] = field(default_factory=set)

    @property
    def missing_seqs(self) -> set[int]:
        """Envelopes below the newest that arrived."""
        return set(range(max(self.seqs) + 1)) - self.seqs


def known_lives(collector: MoodyCollector) -> dict[int, Known]:
    """By life; a life of which no envelope arrived is not in it."""
    sources: defaultdict[str, Known] = defaultdict(Known)
    lives: dict[int, Known] = {}
    for source, seq, verdict, names in collector.envelopes():
        if verdict == "accepted":
            each = sources[source]
            each.source = source
            each.seqs.add(seq)
            each.events.update(int(name.partition("-")[2]) for name in names)
            for life in {int(name.partition("-")[0]) for name in names}:
                assert lives.setdefault(life, each) is each
    return lives


def told_of(collector: MoodyCollector) -> tuple[dict[str, int], dict[str, set[int]]]:
    """(first seq that a source which ended uncleanly did not send, seqs missing of a source)."""
    ended: dict[str, int] = {}
    gaps: defaultdict[str, set[int]] = defaultdict(set)
    for alert in collector.alerts():
        if alert.kind == "unclean_end":
            assert alert.source not in ended
            ended[alert.source] = alert.first_seq
        elif alert.kind == "gap":
            gaps[alert.source].update(range(alert.first_seq, alert.last_seq + 1))
    return ended, dict(gaps)


def test_what_was_accepted_an_interval_before_a_kill_counts_once(
    tmp_path: Path, chaos: ChaosRun
) -> None:
    spool = tmp_path / "spool"
    chaos.expect("kill -9", AWAY, REFUSES, HANGS_UP, WELL)
    lives: list[tuple[int, int]] = []
    with moody_collector(tmp_path / "log.db") as collector:
        for life in range(chaos.pick(short=12, long=120)):
            collector.mood = (AWAY, REFUSES, HANGS_UP, WELL)[life % 4]
            chaos.count(collector.mood)
            lives.append(one_life(collector, spool, life, chaos))
        collector.mood = WELL
        inherit(collector, spool)
        counted = collector.metered()
        verdicts = collector.verdicts()
        known = known_lives(collector)
        ended, gaps = told_of(collector)
    twice = {name: times for name, times in counted.items() if times != 1}
    assert twice == {}
    missing = [
        f"{life}-{i}"
        for life, (safe, _) in enumerate(lives)
        for i in range(safe)
        if f"{life}-{i}" not in counted
    ]
    assert missing == [], f"{len(missing)} of {sum(safe for safe, _ in lives)}"
    # What was not safe: the newest events of a life, whose end is told of; nothing in between.
    assert gaps == {}
    for each in known.values():
        assert each.events == set(range(len(each.events)))
        assert ended[each.source] == len(each.seqs)
    assert ended.keys() == {each.source for each in known.values()}
    # Nothing can be told of a life that ended before anything of it was safe.
    assert all(lives[life][0] == 0 for life in set(range(len(lives))) - known.keys())
    most = sum(made + 1 for _, made in lives)  # the last call may have returned untold
    assert sum(counted.values()) <= most
    assert verdicts["duplicate"] > 0  # what hung up had stored: sent again, counted once
    assert verdicts["refused"] == 0
    chaos.count("events", sum(made for _, made in lives))
    chaos.count("of them safe", sum(safe for safe, _ in lives))
    chaos.count("counted", sum(counted.values()))
    chaos.count("unclean ends told of", len(ended))
    chaos.count("duplicate envelopes", verdicts["duplicate"])


def test_what_a_killed_producers_spool_had_no_room_for_is_told_of_as_a_gap(
    tmp_path: Path, chaos: ChaosRun
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    made: list[int] = []
    with moody_collector(tmp_path / "log.db") as collector:
        for life in range(chaos.pick(short=2, long=20)):
            collector.mood = AWAY
            # Kept apart: a successor with as little room would drop what its predecessor left.
            made.append(life_with_little_room(collector, spool / str(life), life))
            chaos.count("kill -9 with a full spool")
            collector.mood = WELL
            inherit(collector, spool / str(life))
        counted = collector.metered()
        known = known_lives(collector)
        ended, gaps = told_of(collector)
    assert set(counted.values()) == {1}
    assert known.keys() == set(range(len(made)))
    for life, each in known.items():
        assert len(each.events) < made[life]
        assert each.missing_seqs
        assert gaps[each.source] == each.missing_seqs
        assert ended[each.source] == max(each.seqs) + 1
        # An event that is missing was in an envelope that is, or newer than all that arrived.
        assert each.events == set(range(min(each.events), max(each.events) + 1))
