"""Delivery: each alert to each target, not again, later if it fails, never lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callmeter.clock import ManualClock
from callmeter.errors import ConfigError
from callmeter.log.record import LogRecord
from callmeter_processors.notify.deadletters import DeadLetterFile, read_letters
from callmeter_processors.notify.notifier import Notifier
from callmeter_processors.notify.outbox import Outbox
from callmeter_processors.notify.outcome import Again, Outcome, Refused, Sent
from callmeter_processors.notify.schedule import Retry
from callmeter_processors.notify.targets import Choice, Webhook
from support.alerting import LOG, NOW_US, ScriptedSender, alert, record

FIRST = Webhook(name="first", url="http://localhost/1")
SECOND = Webhook(name="second", url="http://localhost/2", choice=Choice.of(kinds=["gap"]))


class Desk:
    """A notifier whose process can die: only its directory is left."""

    def __init__(self, home: Path, script: list[Outcome] | None = None, **options: object) -> None:
        self.home = home
        self.clock = ManualClock(NOW_US)
        self.sender = ScriptedSender(script or [])
        self.options = {"retry": Retry(attempts=3, base_s=1, cap_s=4), **options}
        self.targets = [FIRST]
        self.begin()

    def begin(self) -> None:
        self.outbox = Outbox(self.home / "outbox.db", self.clock.now_us())
        self.notifier = Notifier(
            self.outbox, self.targets, self.sender, DeadLetterFile(self.home / "dead.jsonl"),
            self.clock, rng=random.Random(1), **self.options,
        )  # fmt: skip

    def die(self) -> None:
        self.outbox.close()
        self.begin()

    def deliver(self) -> None:
        for target in self.targets:
            self.notifier.deliver_due(target)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_each_alert_goes_to_each_target_that_wants_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.targets = [FIRST, SECOND]
    desk.die()
    gap = alert(2, kind="gap", rule="gap")
    desk.notifier.take(LOG, [record(alert(1)), record(gap, 1)])
    desk.deliver()
    assert desk.sender.sent == [("first", alert(1).id), ("first", gap.id), ("second", gap.id)]
    assert desk.notifier.stats.delivered == 3
    assert desk.notifier.waiting == 0


def test_an_alert_seen_again_is_not_sent_again(desk: Desk) -> None:
    desk.notifier.take(LOG, [record(alert(1), 0)])
    desk.deliver()
    desk.notifier.take(LOG, [record(alert(1), 7), record(alert(1), 8, partition=3)])
    desk.deliver()
    assert len(desk.sender.sent) == 1
    assert (desk.notifier.stats.taken, desk.notifier.stats.known) == (1, 2)


def test_a_restart_goes_on_where_it_was(desk: Desk) -> None:
    desk.notifier.take(LOG, [record(alert(1), 4), record(alert(2), 9, partition=2)])
    desk.die()
    assert desk.outbox.positions(LOG) == {0: 5, 2: 10}
    assert desk.outbox.positions("another-log") == {}
    desk.deliver()
    desk.die()
    desk.deliver()
    assert [id_ for _, id_ in desk.sender.sent] == [alert(1).id, alert(2).id]


def test_positions_never_go_back(desk: Desk) -> None:
    desk.notifier.take(LOG, [record(alert(1), 9)])
    desk.notifier.take(LOG, [record(alert(2), 3)])
    assert desk.outbox.positions(LOG) == {0: 10}


def test_a_kill_between_sending_and_marking_sends_the_same_id_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.notifier.take(LOG, [record(alert(1))])

    def killed(_delivery: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(desk.outbox, "done", killed)
    with pytest.raises(KeyboardInterrupt):
        desk.deliver()
    desk.die()
    desk.deliver()
    assert [id_ for _, id_ in desk.sender.sent] == [alert(1).id] * 2
    assert desk.notifier.waiting == 0


def test_failures_are_tried_again_later_and_then_are_dead_letters(tmp_path: Path) -> None:
    desk = Desk(tmp_path, [Again("away")] * 3)
    desk.notifier.take(LOG, [record(alert(1))])
    waits = []
    for _ in range(2):
        wait_s = desk.notifier.deliver_due(FIRST)
        assert wait_s is not None
        waits.append(wait_s)
        tried = len(desk.sender.tried)
        desk.clock.advance(wait_s * 0.9)
        desk.deliver()
        assert len(desk.sender.tried) == tried, "not before its time"
        desk.clock.advance(wait_s * 0.2)
    desk.deliver()
    assert len(desk.sender.tried) == 3
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2
    (letter,) = read_letters(tmp_path / "dead.jsonl")
    assert (letter.target, letter.kind, letter.tries) == ("first", "webhook", 3)
    assert letter.reason == "gave up: away"
    assert desk.notifier.waiting == 0
    assert desk.notifier.stats.dead == 1


def test_tries_are_counted_over_restarts(tmp_path: Path) -> None:
    desk = Desk(tmp_path, [Again("away")] * 3)
    desk.notifier.take(LOG, [record(alert(1))])
    for _ in range(3):
        desk.deliver()
        desk.clock.advance(10)
        desk.die()
    desk.deliver()
    assert len(desk.sender.tried) == 3
    assert len(list(read_letters(tmp_path / "dead.jsonl"))) == 1


def test_a_refusal_is_a_dead_letter_at_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path, [Refused("HTTP 404 Not Found")])
    desk.notifier.take(LOG, [record(alert(1)), record(alert(2), 1)])
    desk.deliver()
    assert [letter.reason for letter in read_letters(tmp_path / "dead.jsonl")] == [
        "HTTP 404 Not Found"
    ]
    assert [id_ for _, id_ in desk.sender.sent] == [alert(2).id]


def test_a_kill_between_the_dead_letter_and_marking_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path, [Refused("no")] * 2)
    desk.notifier.take(LOG, [record(alert(1))])

    def killed(_delivery: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(desk.outbox, "done", killed)
    with pytest.raises(KeyboardInterrupt):
        desk.deliver()
    desk.die()
    desk.deliver()
    assert (tmp_path / "dead.jsonl").read_bytes().count(b"\n") == 2
    assert len(list(read_letters(tmp_path / "dead.jsonl"))) == 1, "one letter, however often"


def test_retry_after_holds_the_whole_target_back(tmp_path: Path) -> None:
    desk = Desk(tmp_path, [Again("HTTP 429", 30.0)])
    desk.notifier.take(LOG, [record(alert(1)), record(alert(2), 1)])
    wait_s = desk.notifier.deliver_due(FIRST)
    assert wait_s == pytest.approx(30.0)
    desk.clock.advance(29.9)
    desk.deliver()
    assert len(desk.sender.tried) == 1
    desk.clock.advance(0.2)
    desk.deliver()
    assert {id_ for _, id_ in desk.sender.sent} == {alert(1).id, alert(2).id}


def test_a_failing_alert_does_not_hold_up_the_next(tmp_path: Path) -> None:
    desk = Desk(tmp_path, [Again("HTTP 500")])
    desk.notifier.take(LOG, [record(alert(1)), record(alert(2), 1)])
    desk.deliver()
    assert desk.sender.sent == [("first", alert(2).id)]


def test_what_is_older_than_the_first_start_is_known_and_not_sent(tmp_path: Path) -> None:
    desk = Desk(tmp_path, begin_us=NOW_US)
    desk.notifier.take(LOG, [record(alert(1), at_us=NOW_US - 1), record(alert(2), 1)])
    desk.deliver()
    assert desk.sender.sent == [("first", alert(2).id)]
    assert desk.notifier.stats.old == 1


def test_a_record_that_is_no_alert_is_counted_and_passed(desk: Desk) -> None:
    broken = LogRecord("alerts", 0, 0, NOW_US, b"x", b"{")
    desk.notifier.take(LOG, [broken, record(alert(1), 1)])
    desk.deliver()
    assert desk.notifier.stats.unreadable == 1
    assert desk.outbox.positions(LOG) == {0: 2}
    assert len(desk.sender.sent) == 1


def test_deliveries_of_a_target_that_is_gone_wait_for_it(desk: Desk) -> None:
    desk.notifier.take(LOG, [record(alert(1))])
    desk.targets = [SECOND]
    desk.die()
    desk.deliver()
    assert desk.notifier.left_behind == {"first": 1}
    desk.targets = [FIRST]
    desk.die()
    desk.deliver()
    assert desk.sender.sent == [("first", alert(1).id)]


def test_ids_are_forgotten_only_when_nobody_waits_and_no_topic_shows_them(desk: Desk) -> None:
    desk.notifier.take(LOG, [record(alert(1))])
    late_us = NOW_US + 46 * 86_400_000_000
    assert desk.outbox.forget(late_us) == 0
    desk.deliver()
    assert desk.outbox.forget(NOW_US + 44 * 86_400_000_000) == 0
    assert desk.outbox.forget(late_us) == 1


def test_targets_need_names_of_their_own(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.targets = [FIRST, FIRST]
    with pytest.raises(ConfigError, match="two targets are called 'first'"):
        desk.die()
    desk.targets = []
    with pytest.raises(ConfigError, match="nobody to notify"):
        desk.die()


def test_threads_deliver_until_they_are_stopped(desk: Desk) -> None:
    desk.notifier.start()
    desk.notifier.take(LOG, [record(alert(n), n) for n in range(20)])
    for _ in range(6000):
        if desk.notifier.stats.delivered == 20:
            break
        desk.notifier._stopping.wait(0.01)
    desk.notifier.stop()
    assert len(desk.sender.sent) == 20
    assert desk.notifier.failed is None


def test_a_file_that_cannot_be_written_ends_it_and_keeps_the_alert(tmp_path: Path) -> None:
    desk = Desk(tmp_path, [Refused("no")])
    (tmp_path / "dead.jsonl").mkdir()
    desk.notifier.take(LOG, [record(alert(1))])
    desk.notifier.start()
    for _ in range(6000):
        if desk.notifier.failed is not None:
            break
        desk.notifier._stopping.wait(0.01)
    desk.notifier.stop()
    assert "dead.jsonl" in str(desk.notifier.failed)
    assert desk.notifier.waiting == 1


@settings(max_examples=25)  # each writes to disk
@given(
    seed=st.integers(0, 2**32),
    plan=st.lists(st.sampled_from(["take", "deliver", "die", "wait", "again"]), max_size=30),
    answers=st.lists(st.sampled_from(["sent", "again", "refused"]), max_size=30),
)
def test_whatever_happens_each_alert_ends_sent_or_in_the_file(
    tmp_path_factory: pytest.TempPathFactory, seed: int, plan: list[str], answers: list[str]
) -> None:
    home = tmp_path_factory.mktemp("notify")
    script: list[Outcome] = [
        {"again": Again("away"), "refused": Refused("no"), "sent": Sent()}[a] for a in answers
    ]
    desk = Desk(home, script)
    offset = 0
    for step in [*plan, *["wait", "deliver"] * 4]:
        if step == "take":
            desk.notifier.take(LOG, [record(alert(offset), offset)])
            offset += 1
        elif step == "again" and offset:
            desk.notifier.take(LOG, [record(alert(seed % offset), offset)])
        elif step == "deliver":
            desk.deliver()
        elif step == "wait":
            desk.clock.advance(5)
        elif step == "die":
            desk.die()
    while desk.notifier.waiting:
        desk.clock.advance(5)
        desk.deliver()
    path = home / "dead.jsonl"
    dead = [bytes(x.alert) for x in read_letters(path)] if path.exists() else []
    sent = [id_ for _, id_ in desk.sender.sent]
    assert len(sent) == len(set(sent)), "nothing twice without a kill in an attempt"
    assert len(sent) + len(dead) == offset
    desk.outbox.close()
