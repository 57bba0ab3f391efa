"""kill -9 of a durable producer at random moments, its backend in every mood: to the event.

Each life takes over what the one before left. Behind the meter an event whose call had returned a
sync interval before the kill counts once; a later one counts once or not at all.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from support.chaos import ChaosRun
from support.moody_collector import AWAY, HANGS_UP, REFUSES, WELL, MoodyCollector, moody_collector

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

#: The documented default: ``sync_interval_s``.
SYNC_NS = 100_000_000
_NOTE = struct.Struct("<IQ")
PRODUCER = """
    import os, struct, sys, time
    import callmeter
    url, spool, life, pipe = sys.argv[1:5]
    callmeter.init(url, spool_dir=spool, durable=True, timeout_s=2.0)
    note = struct.Struct("<IQ")
    for i in range(1_000_000):
        callmeter.metric(f"{life}-{i}", 1.0)
        os.write(int(pipe), note.pack(i, time.monotonic_ns()))
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


def one_life(collector: MoodyCollector, spool: Path, life: int, chaos: ChaosRun) -> tuple[int, int]:
    """Start a producer and kill it: (events a sync interval old at the kill, events in all)."""
    reading, writing = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PRODUCER), collector.url, str(spool), str(life),
         str(writing)],
        pass_fds=[writing],
    )  # fmt: skip
    os.close(writing)
    with os.fdopen(reading, "rb") as notes:
        first = notes.read(_NOTE.size)  # it runs
        time.sleep(chaos.random.uniform(0.0, 1.2))
        killed_ns = time.monotonic_ns()
        child.kill()
        child.wait()
        chaos.count("kill -9")
        told = first + notes.read()
    whole = len(told) // _NOTE.size * _NOTE.size
    times = [ns for _, ns in _NOTE.iter_unpack(told[:whole])]
    return sum(ns <= killed_ns - SYNC_NS for ns in times), len(times)


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
        heir = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(HEIR), collector.url, str(spool)],
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        assert heir.returncode == 0, heir.stderr
        counted = collector.metered()
        verdicts = collector.verdicts()
    twice = {name: times for name, times in counted.items() if times != 1}
    assert twice == {}
    missing = [
        f"{life}-{i}"
        for life, (safe, _) in enumerate(lives)
        for i in range(safe)
        if f"{life}-{i}" not in counted
    ]
    assert missing == [], f"{len(missing)} of {sum(safe for safe, _ in lives)}"
    known = sum(made + 1 for _, made in lives)  # the last call may have returned untold
    assert sum(counted.values()) <= known
    assert verdicts["duplicate"] > 0  # what hung up had stored: sent again, counted once
    assert verdicts["refused"] == 0
    chaos.count("events", sum(made for _, made in lives))
    chaos.count("of them safe", sum(safe for safe, _ in lives))
    chaos.count("counted", sum(counted.values()))
    chaos.count("duplicate envelopes", verdicts["duplicate"])
