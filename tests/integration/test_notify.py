"""``callmeter notify`` as a process over a directory's log: kill -9, restarts, dead letters."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from callmeter.ids import uuid7
from callmeter.log.record import NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter.schema.alerts import Alert, encode_alert
from support.alert_receiver import AlertReceiver, Answer, Received
from support.alerting import alert
from support.cli import callmeter, environment, started
from support.mail_server import MailServer


class Place:
    """A data directory with a log to which alerts can be added."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with SqliteLog(home / "log.db", partitions=4):
            pass

    def say(self, alerts: Sequence[Alert]) -> None:
        with SqliteLog(self.home / "log.db") as log:
            log.append(
                [NewRecord("alerts", each.rule.encode(), encode_alert(each)) for each in alerts]
            )


def _more_than(receiver: AlertReceiver, count: int) -> bool:
    return len(receiver.requests) > count


def fetched(url: str) -> str:
    """The answer's body, whatever its status."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as refusal:
        with refusal:
            return str(refusal.read().decode())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    home = tmp_path / "data"
    home.mkdir()
    return Place(home)


def until(holds: Callable[[], bool], patience_s: float = 90) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def test_each_alert_once_over_restarts(place: Place) -> None:
    alerts = [alert(n, rule=f"r{n}") for n in range(12)]
    with AlertReceiver() as receiver:
        arguments = ("notify", "--dir", place.home, "--webhook", receiver.url, "--drain")
        place.say(alerts[:5])
        ran = callmeter(*arguments)
        assert ran.code == 0, ran.err
        assert "5 alerts taken, 5 delivered" in ran.out
        place.say([*alerts[3:], alerts[0]])  # some again, as a store restored twice would
        ran = callmeter(*arguments)
        assert "7 alerts taken, 7 delivered" in ran.out
        assert callmeter(*arguments).code == 0
        assert receiver.tried == {each.id: 1 for each in alerts}


def test_sigkill_loses_nothing_and_sigterm_is_clean(place: Place) -> None:
    """Killed again and again while alerts come and the receiver is moody."""

    def moody(request: Received) -> Answer:
        turn = len(receiver.requests)
        if turn % 5 == 0:
            return Answer(503, {"Retry-After": "0"})
        return Answer(hang_up=turn % 7 == 0)

    receiver = AlertReceiver(moody)
    alerts = [alert(n, rule=f"r{n % 7}") for n in range(60)]
    config = place.home / "notify.toml"
    kills = 0
    with receiver:
        config.write_text(
            "[retry]\nbase_s = 0.05\ncap_s = 0.2\n"
            f"[[target]]\ntype = 'webhook'\nname = 'stub'\nurl = '{receiver.url}'\n"
        )
        arguments = ("notify", "--dir", place.home, "--config", config)
        for batch in range(6):
            with started(*arguments) as process:
                enough = len(receiver.requests) + batch
                place.say(alerts[batch * 10 : batch * 10 + 10])
                until(partial(_more_than, receiver, enough))
                process.kill()
                process.wait()
                kills += 1
        with started(*arguments, "--metrics", "0") as process:
            assert process.stdout is not None
            served = re.findall(r"http://\S+(?=/metrics)", process.stdout.readline())[0]
            until(lambda: "callmeter_notify_known_alerts_total" in fetched(f"{served}/metrics"))
            until(lambda: len(receiver.taken) == len(alerts))
            assert "ok" in fetched(f"{served}/healthz")
            # What waited is delivered before the log is read: it may not be ready yet.
            until(lambda: "ok" in fetched(f"{served}/readyz"))
            until(lambda: 'waiting{target="stub"} 0.0' in fetched(f"{served}/metrics"))
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        assert "0 waiting" in out.splitlines()[-1]
        # At least once each; twice only what was under way at a kill or an end without an answer.
        assert set(receiver.taken) == {each.id for each in alerts}
        assert sum(receiver.taken.values()) - len(alerts) <= kills


def test_what_nobody_takes_is_kept_and_sent_again(place: Place) -> None:
    place.say([alert(1, rule="a"), alert(2, rule="b")])
    letters = place.home / "dead.jsonl"
    broken = [True]
    with AlertReceiver(lambda _: Answer(410 if broken[0] else 200)) as receiver:
        target = ("--dir", place.home, "--webhook", receiver.url, "--dead-letters", letters)
        ran = callmeter("notify", *target, "--drain")
        assert ran.code == 1
        lines = [json.loads(line) for line in letters.read_text().splitlines()]
        assert {line["alert"]["id"] for line in lines} == {alert(1).id, alert(2).id}
        assert all(line["reason"] == "HTTP 410 Gone" for line in lines)
        ran = callmeter("notify", *target, "--redeliver", letters)
        assert ran.code == 64
        moved = letters.rename(place.home / "again.jsonl")
        broken[0] = False
        ran = callmeter("notify", *target, "--redeliver", moved)
        assert (ran.code, ran.out) == (0, "2 delivered, 0 not\n")
        assert receiver.taken == {alert(1).id: 1, alert(2).id: 1}
        other = ("--dir", place.home, "--webhook", receiver.url + "/other")
        ran = callmeter("notify", *other, "--redeliver", moved)
        assert ran.code == 64
        assert "configure a target of this name" in ran.err


def test_a_sample_reaches_every_target_and_no_secret_is_printed(tmp_path: Path) -> None:
    with AlertReceiver() as receiver, MailServer(user="u", password="SECRET") as server:
        (tmp_path / "password").write_text("SECRET\n")
        env = environment(
            CALLMETER_NOTIFY_SLACK=receiver.url + "/SECRET",
            CALLMETER_NOTIFY_SMTP_PASSWORD_FILE=str(tmp_path / "password"),
            CALLMETER_NOTIFY_WEBHOOK_SECRET="SECRET",
        )
        ran = callmeter(
            "notify", "--test", "-v", "--webhook", receiver.url, "--email", "a@example.org",
            "--smtp", f"smtp://u@localhost:{server.port}", env=env,
        )  # fmt: skip
        assert ran.code == 0, ran.err
        assert ran.out.count("taken") == 3
        assert "SECRET" not in ran.out + ran.err
        assert len(server.messages) == 1
        hook = next(r for r in receiver.requests if r.path == "/alerts")
        assert hook.headers["callmeter-signature"].startswith("t=")
        assert "SECRET" not in hook.body.decode()
    ran = callmeter("notify", "--test", "--webhook", receiver.url)
    assert ran.code == 1
    assert "not reachable" in ran.err


def test_one_process_a_state(place: Place) -> None:
    arguments = ("notify", "--dir", place.home, "--webhook", "http://127.0.0.1:9/")
    with started(*arguments) as process:
        until((place.home / "notify" / "outbox.db").exists)
        ran = callmeter(*arguments, "--drain")
        assert ran.code == 73
        assert str(process.pid) in ran.err
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(60) == 0


def test_up_notifies_by_itself(tmp_path: Path) -> None:
    """A budget is crossed by what a program sends; the webhook hears of it, also after a kill."""
    home = tmp_path / "data"
    config = tmp_path / "notify.toml"
    with AlertReceiver() as receiver:
        config.write_text(f"[[target]]\ntype = 'webhook'\nurl = '{receiver.url}'\n")
        arguments = ("up", "--dir", home, "--port", "0", "--notify-config", config)
        for turn, name in enumerate(("first", "second"), start=1):
            with started(*arguments) as process:
                assert process.stdout is not None
                url = re.findall(r"http://\S+?(?=,)", process.stdout.readline())[0]
                ran = callmeter("budget", "set", name, "--limit", "1", "--thresholds", "100%",
                                "--scope", f"service={name}", "--dir", home)  # fmt: skip
                assert ran.code == 0, ran.err
                assert callmeter("notify", "--dir", home, "--config", config).code == 73
                until(partial(_spend, url, name, receiver, turn))
                process.kill()
                process.wait()
        assert len(receiver.taken) == 2
        assert {json.loads(r.body)["alert"]["rule"] for r in receiver.requests} == {
            "first", "second",
        }  # fmt: skip


def _spend(url: str, service: str, receiver: AlertReceiver, alerts: int) -> bool:
    """Two dollars more; whether so many alerts were taken."""
    event = {
        "kind": "cost", "ts_us": time.time_ns() // 1000, "started_us": time.time_ns() // 1000,
        "cost_pico": str(2 * 10**12), "source": "bill",
    }  # fmt: skip
    header = {
        "v": 1, "source": uuid7(), "seq": 0, "n": 1, "sent_us": time.time_ns() // 1000,
        "project": "p", "service": service,
    }  # fmt: skip
    body = "".join(json.dumps(x, separators=(",", ":")) + "\n" for x in (header, event))
    request = urllib.request.Request(f"{url}/v1/envelopes", body.encode(), method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200
    time.sleep(0.3)  # the pace of spending
    return len(receiver.taken) >= alerts


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--dir", "."), 78, "nobody to notify"),
        (("--dir", ".", "--kafka", "kafka://x", "--webhook", "http://x"), 64, "give one of"),
        (("--url", "http://x", "--kafka", "kafka://x", "--webhook", "http://x"), 64, "give one of"),
        (("--webhook", "http://x", "--kind", "x"), 78, "threshold"),
        (("--email", "a@b"), 64, "--smtp"),
        (("--webhook", "gopher://x"), 78, "http"),
        (("--dir", "/nowhere", "--webhook", "http://x"), 78, "no log"),
        (("--webhook", "http://x", "--link", "https://x/{y}"), 78, "trace_id"),
        (("--config", "/nowhere.toml"), 78, "cannot be read"),
        (("--webhook", "http://x", "--redeliver", "/nowhere"), 65, "cannot be read"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    arguments: tuple[str, ...], code: int, says: str
) -> None:
    ran = callmeter("notify", *arguments)
    assert ran.code == code, ran.err
    assert says in ran.err
    assert ran.err.count("\n") == 1
