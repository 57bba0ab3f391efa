"""A hundred processes end in each way: every event of each counts once, and none hangs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson
import pytest

from callmeter.schema.envelope import decode_header, split_envelopes, split_lines

pytestmark = pytest.mark.slow

PROCESSES = 100
PATIENCE_S = 60
PREAMBLE = """
    import os, sys, time
    import callmeter
    run, way, path = sys.argv[1:4]
    callmeter.init(f"jsonl:{path}", flush_delay_s=30.0)
    def emit(tag, count=20):
        for i in range(count):
            callmeter.metric(f"{run}-{tag}-{i}", 1.0)
    emit("before")
"""
WAYS = {
    "exit": "sys.exit(0)",
    "exception": "raise RuntimeError('boom')",
    "fork": """
        pid = os.fork()
        emit("child" if pid == 0 else "parent")
        if pid:
            assert os.waitpid(pid, 0)[1] == 0
    """,
    "SIGTERM": """
        i = 0
        while True:
            callmeter.metric(f"{run}-told-{i}", 1.0)
            os.write(1, b"+")
            i += 1
            time.sleep(0.001)
    """,
}
CODES = {"exit": 0, "exception": 1, "fork": 0, "SIGTERM": -signal.SIGTERM}


def one(way: str, run: int, path: Path) -> Counter[str]:
    """Run one process to its end; what it must have left."""
    program = textwrap.dedent(PREAMBLE) + textwrap.dedent(WAYS[way])
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(run), way, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,  # what ``read`` buffers ``communicate`` does not see
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert child.stdout is not None
    told = b""
    try:
        if way == "SIGTERM":
            told = child.stdout.read(1)
            time.sleep(random.Random(run).uniform(0.0, 0.05))
            child.send_signal(signal.SIGTERM)
        told += child.communicate(timeout=PATIENCE_S)[0]
    finally:
        child.kill()
        child.wait()
    assert child.returncode == CODES[way]
    tags = {"fork": ("before", "child", "parent")}.get(way, ("before",))
    names = [f"{run}-{tag}-{i}" for tag in tags for i in range(20)]
    return Counter(names + [f"{run}-told-{i}" for i in range(len(told))])


@pytest.mark.parametrize("way", WAYS)
def test_a_hundred_of_a_hundred(tmp_path: Path, way: str) -> None:
    path = tmp_path / "calls.jsonl"
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda run: one(way, run, path), range(PROCESSES)))
    found: Counter[str] = Counter()
    clean: Counter[str] = Counter()
    for data in split_envelopes(path.read_bytes()):
        head, *lines = split_lines(data)
        header = decode_header(head)
        clean[header.source] += header.last
        events = [orjson.loads(line) for line in lines]
        found.update(e["name"] for e in events if e["kind"] == "metric")
    expected = sum(runs, Counter())
    # The signal may come between a call's return and the word about it.
    untold = {name for name in found if name not in expected}
    assert {name.split("-")[1] for name in untold} <= {"told"}
    assert len(untold) <= PROCESSES
    assert {name: times for name, times in found.items() if name not in untold} == expected
    assert set(found.values()) == {1}
    assert len(clean) == PROCESSES * (2 if way == "fork" else 1)
    assert set(clean.values()) == {1}
