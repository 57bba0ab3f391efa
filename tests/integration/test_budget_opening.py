"""A budget that is set amid traffic reaches the true spend of its window, to the pico."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from callmeter.cli.app import run
from callmeter.embedded import Embedded
from callmeter.ids import uuid7
from callmeter.log.record import NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter.schema.status import BudgetStatus, decode_status
from support.metering import call_end, envelope

pytestmark = pytest.mark.slow


class Traffic:
    """Envelopes of today and yesterday with explicit costs, and what they truly add up to."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.month: Counter[str] = Counter()
        self.calls = 0
        self.spent = 0  # whatever the model, whoever the user
        self._rng = random.Random(3)
        self._sources = [uuid7() for _ in range(6)]
        self._seq = 0

    def send(self, log: SqliteLog, count: int) -> None:
        for _ in range(count):
            for source in self._sources:
                now_us = time.time_ns() // 1000
                events = [self._call(now_us) for _ in range(3)]
                events.append(
                    {"kind": "cost", "ts_us": now_us, "started_us": now_us, "source": "bill",
                     "cost_pico": "-7", "provider": "openai", "model": "gpt-4o-mini", "user": "bob"}
                )  # fmt: skip
                self.month["bob"] -= 7
                self.spent -= 7
                value = envelope(events, source=source, seq=self._seq, sent_us=now_us)
                log.append([NewRecord("events", source.encode(), value)] * 2)
            self._seq += 1

    def _call(self, now_us: int) -> dict:
        user, pico = self._rng.choice(["alice", "bob", ""]), self._rng.randrange(1, 10**13)
        model = self._rng.choice(["gpt-4o-mini", "claude"])
        self.spent += pico
        if model == "gpt-4o-mini" and user:
            self.month[user] += pico
            self.calls += 1
        return call_end(
            ts_us=now_us, started_us=now_us, user=user, model=model, cost_pico=str(pico)
        )


def statuses(log: SqliteLog) -> dict[str, BudgetStatus]:
    found = [decode_status(v) for p in range(4) for v in log.rows("budget-status", p).values()]
    return {status.entity: status for status in found}


def test_opening_and_counting_meet_exactly(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    home = tmp_path / "data"
    traffic = Traffic(home)
    with Embedded(home) as pipeline, SqliteLog(home / "log.db") as log:
        traffic.send(log, 20)
        ends = log.end_offsets("events")
        while any((log.position("meter-state", p) or 0) < end for p, end in ends.items()):
            pipeline.check()
            log.wait("meter-state", {0: 1 << 40}, 0.1)
        place = ["--dir", str(home)]
        assert run([
            "budget", "set", "team", "--limit", "5", "--window", "month", "--per", "user",
            "--scope", "model=gpt*", "--scope", "provider=openai", "--no-open", *place,
        ]) == 0  # fmt: skip
        # Goes on while the meters take the budget up.
        traffic.send(log, 20)
        assert run(["budget", "open", "team", *place]) == 0, capsys.readouterr()
        assert run(["budget", "open", "team", *place]) == 0
        traffic.send(log, 5)
        assert run(["budget", "set", "all", "--limit", "5", "--window", "month", *place]) == 0
    with SqliteLog(home / "log.db") as log:
        found = statuses(log)
    assert int(found.pop("").spend_pico) == traffic.spent
    assert {user: int(status.spend_pico) for user, status in found.items()} == traffic.month
    assert sum(status.calls for status in found.values()) == traffic.calls
    assert {status.openings for status in found.values()} == {4}
    said = capsys.readouterr().out
    assert said.count("team begins with ") == 2
    assert said.count("all begins with ") == 1
    assert "begins with 0 USD" not in said
