"""The main job on real input: a trace through SDK transport, collector, log, meter, sink, store."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from support.cli import PRICED, TRACE, callmeter, query, started

CALLS, INPUT, OUTPUT, COST = 19_366, 22_361_870, 4_088_665, "5.8074795"
TWICE = "SELECT count(), uniqExact(log_id, partition, origin, idx) FROM calls"


def totals(directory: Path) -> dict[str, object]:
    found: dict[str, object] = callmeter("report", "--dir", directory, "--json").json()["totals"]
    return found


def assert_whole(directory: Path) -> None:
    found = totals(directory)
    assert found["calls"] == CALLS
    assert found["input_tokens"] == INPUT
    assert found["output_tokens"] == OUTPUT
    assert found["cost_usd"] == COST
    assert found["unpriced_calls"] == 0
    assert found["latency_p95_ms"] is None, "the trace has no latencies: unknown stays unknown"
    verified = callmeter("verify", "--dir", directory, "--json")
    assert verified.code == 0, verified.out
    assert verified.json()["equal"] is True
    assert query(directory, TWICE) == [[CALLS, CALLS]]


def test_the_demo_prints_the_report_and_verifies() -> None:
    ran = callmeter("demo")
    assert ran.code == 0, ran.err
    assert "2023-11-16 18:00" in ran.out
    assert "19,366" in ran.out
    assert "22,361,870" in ran.out
    assert "4,088,665" in ran.out
    assert "5.8074795" in ran.out
    assert "verify: equal" in ran.out
    assert "19366/19366" in ran.err, "a progress bar"


def test_a_replay_that_is_interrupted_goes_on_and_ends_exact(tmp_path: Path) -> None:
    interrupt(tmp_path, signal.SIGINT)
    done = callmeter("replay", TRACE, *PRICED, "--dir", tmp_path)
    assert done.code == 0, done.err
    assert_whole(tmp_path)


def test_a_replay_that_is_killed_goes_on_and_again_counts_nothing_twice(tmp_path: Path) -> None:
    interrupt(tmp_path, signal.SIGKILL)
    done = callmeter("replay", TRACE, *PRICED, "--dir", tmp_path)
    assert done.code == 0, done.err
    assert_whole(tmp_path)
    again = callmeter("replay", TRACE, *PRICED, "--dir", tmp_path)
    assert again.code == 0
    assert "already there" in again.out
    assert query(tmp_path, TWICE) == [[CALLS, CALLS]]
    anew = callmeter("replay", TRACE, *PRICED, "--dir", tmp_path, "--again")
    assert anew.code == 0, anew.err
    assert totals(tmp_path)["calls"] == 2 * CALLS


def interrupt(directory: Path, number: signal.Signals) -> None:
    """Replay the trace until some of its calls are stored, and end that by a signal."""
    # The trace is an hour long: at this speed it takes some seconds, so the signal falls inside.
    with started("replay", TRACE, *PRICED, "--dir", directory, "--speed", 300) as process:
        _wait_for_some_calls(directory)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGKILL)
    half = query(directory, "SELECT count() FROM calls")[0][0]
    assert 0 < half < CALLS


def _wait_for_some_calls(directory: Path) -> None:
    """Until the running replay's store has calls; asked through the port that it serves."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ran = callmeter("report", "--dir", directory, "--json")
        if ran.code == 0 and ran.json()["totals"]["calls"] > 0:
            return
        time.sleep(0.1)
    raise AssertionError("no call was stored within a minute")


def test_a_broken_line_in_the_middle_is_one_dead_letter(tmp_path: Path) -> None:
    lines = TRACE.read_text().splitlines()[:3001]
    whole = [line.split(",") for line in lines[1:]]
    lines.insert(1500, "2023-11-16 18:17:03.9799600,many,55")
    file = tmp_path / "other.csv"
    file.write_text("\n".join(lines) + "\n")
    home = tmp_path / "data"
    ran = callmeter("replay", file, *PRICED, "--dir", home)
    assert ran.code == 0, ran.err
    found = totals(home)
    assert found["calls"] == 3000
    assert found["input_tokens"] == sum(int(fields[1]) for fields in whole)
    assert found["output_tokens"] == sum(int(fields[2]) for fields in whole)
    letters = query(home, "SELECT reason, detail FROM dead_letters")
    assert len(letters) == 1
    reason, detail = letters[0]
    assert reason == "bad_input_line"
    assert "other.csv" in detail
    assert "1501" in detail, "the line's number in the file, the header being line 1"
    assert callmeter("verify", "--dir", home).code == 0
