"""The sink killed with SIGKILL, at random and at aimed moments, over a chDB directory: exact."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from callmeter_sinks.clickhouse.opening import open_store
from support.chaos import ChaosRun
from support.metered import MeteredStream, Truth
from support.stored import append, expected, sqlite_log, stored

_PROCESS = Path(__file__).parent.parent / "support" / "sink_process.py"
#: Where a kill is aimed: what the process said last, and how long after it (milliseconds).
_AIMS = {
    "while opening": ("REPAIRED", 0, 60),
    "around the intent": ("I", 0, 8),
    "inside the insert": ("L", 0, 120),
    "after the insert": ("l", 0, 3),
}


def one_life(log: Path, store: Path, chaos: ChaosRun, aim: str | None) -> tuple[bool, int]:
    """Run the sink until it is killed or done: (done, phantoms repaired on opening)."""
    mark, low, high = _AIMS[aim] if aim else ("never", 0, 0)
    process = subprocess.Popen(
        [sys.executable, str(_PROCESS), str(log), str(store)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    skip = chaos.random.randrange(3) if mark in ("I", "L", "l") else 0
    said: list[str] = []
    repaired = 0
    killer: threading.Timer | None = None
    try:
        for line in process.stdout:
            said.append(line.strip())
            if line.startswith("REPAIRED"):
                repaired = int(line.split()[1])
            if killer is None and line.startswith(mark):
                if skip:
                    skip -= 1
                    continue
                killer = threading.Timer(chaos.random.uniform(low, high) / 1000, process.kill)
                killer.start()
        error = process.stderr.read()
        process.wait(60)
    finally:
        if killer is not None:
            killer.cancel()
            killer.join()
        process.kill()
        process.wait()
        process.stderr.close()
        process.stdout.close()
    killed = process.returncode == -9 and "DONE" not in said
    if killed:
        chaos.count(aim or "")
    else:
        assert process.returncode in (0, -9), error
    return "DONE" in said, repaired


@pytest.mark.chaos
@pytest.mark.timeout(3600)
def test_every_row_once_after_kills_at_any_moment(tmp_path: Path, chaos: ChaosRun) -> None:
    chaos.expect(*_AIMS)
    kills = chaos.pick(short=10, long=200)
    path, store_path = tmp_path / "log.db", tmp_path / "store"
    log = sqlite_log(path)
    streams = [MeteredStream(log.log_id, p, chaos.seed, months=2) for p in range(2)]
    repaired = 0
    aims = [list(_AIMS)[i % len(_AIMS)] for i in range(kills)]
    chaos.random.shuffle(aims)
    for aim in aims:
        for stream in streams:
            for _ in range(3):
                append(log, stream.partition, stream.checkpoint(envelopes=4, events=12, parts=2))
        _, phantoms = one_life(path, store_path, chaos, aim)
        repaired += phantoms
    done, phantoms = one_life(path, store_path, chaos, None)
    assert done
    log.close()
    truth = Truth()
    for stream in streams:
        truth.add(stream.truth)
    store = open_store(f"chdb:{store_path}")
    try:
        assert stored(store) == expected(truth)
    finally:
        store.close()
    print(f"{sum(chaos.injected.values())} kills, {repaired + phantoms} phantoms repaired")
