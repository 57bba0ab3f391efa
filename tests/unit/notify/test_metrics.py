"""Notify's figures, and when it is ready or ill."""

from __future__ import annotations

from pathlib import Path

import pytest

from callmeter.clock import ManualClock
from callmeter_processors.notify.deadletters import DeadLetterFile
from callmeter_processors.notify.metrics import NotifyMetrics, ailing, unready
from callmeter_processors.notify.notifier import Notifier
from callmeter_processors.notify.outbox import Outbox
from callmeter_processors.notify.outcome import Again, Refused, Sent
from callmeter_processors.notify.targets import Webhook
from support.alerting import LOG, NOW_US, ScriptedSender, alert, record

CHAT, MAIL = (Webhook(name=name, url=f"http://localhost/{name}") for name in ("chat", "mail"))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW_US)


@pytest.fixture
def notifier(tmp_path: Path, clock: ManualClock) -> Notifier:
    outcomes = [Sent(), Refused("gone"), Again("busy")]
    return Notifier(
        Outbox(tmp_path / "outbox.db", NOW_US), [CHAT, MAIL], ScriptedSender(outcomes),
        DeadLetterFile(tmp_path / "dead.jsonl"), clock,
    )  # fmt: skip


def series(notifier: Notifier, clock: ManualClock) -> dict[tuple[str, ...], float]:
    return {
        (sample.name.removeprefix("callmeter_notify_"), *sample.labels.values()): sample.value
        for family in NotifyMetrics(notifier, lambda: clock.now_us() / 1e6).collect()
        for sample in family.samples
    }


def test_every_figure_is_a_series(notifier: Notifier, clock: ManualClock) -> None:
    notifier.take(LOG, [record(alert(n), n) for n in range(3)])
    notifier.deliver_due(CHAT)
    clock.advance(90)
    found = series(notifier, clock)
    assert found["alerts_total",] == 3
    assert (found["delivered_total",], found["dead_letters_total",]) == (1, 1)
    assert found["failed_attempts_total",] == 1
    assert (found["waiting", "chat"], found["waiting", "mail"]) == (1, 3)
    assert found["waiting_seconds", "mail"] == 90
    assert found["read_timestamp_seconds",] == NOW_US / 1e6


def test_targets_that_wait_for_nothing_are_there(notifier: Notifier, clock: ManualClock) -> None:
    found = series(notifier, clock)
    assert (found["waiting", "chat"], found["waiting_seconds", "chat"]) == (0, 0)


def test_it_is_ready_while_the_log_is_read(notifier: Notifier, clock: ManualClock) -> None:
    assert unready(notifier, 30, clock.now_us()) == "the log was not read yet"
    notifier.take(LOG, [])
    assert unready(notifier, 30, clock.now_us()) is None
    clock.advance(31)
    assert unready(notifier, 30, clock.now_us()) == "the log was not read for 31 s"


def test_a_thread_that_has_ended_makes_it_ill(notifier: Notifier) -> None:
    assert ailing(notifier) is None
    notifier.failed = OSError("no space left")
    assert "no space left" in str(ailing(notifier))
