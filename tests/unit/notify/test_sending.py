"""Webhooks over a real socket: what is sent, what each answer means, what is never said."""

from __future__ import annotations

import json
import socket

import pytest

from callmeter.clock import ManualClock
from callmeter.errors import ConfigError
from callmeter.schema.alerts import encode_alert
from callmeter_processors.notify.outcome import Again, Refused, Sent
from callmeter_processors.notify.render import signature
from callmeter_processors.notify.sending import Message, NetworkSender
from callmeter_processors.notify.targets import Slack, Webhook
from support.alert_receiver import AlertReceiver, Answer
from support.alerting import NOW_US, alert

MESSAGE = Message(alert(), encode_alert(alert()))


def sender() -> NetworkSender:
    return NetworkSender(ManualClock(NOW_US), timeout_s=5)


def test_a_webhook_gets_the_alert_its_id_and_a_signature() -> None:
    with AlertReceiver() as receiver:
        target = Webhook(name="w", url=receiver.url + "?a=1", secret="hunter2")
        assert sender().send(target, MESSAGE) == Sent()
        (got,) = receiver.requests
    assert got.path == "/alerts?a=1"
    assert got.key == alert().id
    assert got.headers["content-type"] == "application/json"
    assert got.headers["callmeter-signature"] == signature("hunter2", NOW_US // 10**6, got.body)
    assert json.loads(got.body)["alert"]["id"] == alert().id


def test_without_a_secret_nothing_is_signed() -> None:
    with AlertReceiver() as receiver:
        sender().send(Webhook(name="w", url=receiver.url), MESSAGE)
        assert "callmeter-signature" not in receiver.requests[0].headers


def test_slack_gets_blocks() -> None:
    with AlertReceiver() as receiver:
        assert sender().send(Slack(name="s", url=receiver.url), MESSAGE) == Sent()
        assert json.loads(receiver.requests[0].body)["blocks"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (200, Sent), (204, Sent), (500, Again), (503, Again), (429, Again), (408, Again),
        (400, Refused), (401, Refused), (404, Refused), (410, Refused), (302, Refused),
    ],
)  # fmt: skip
def test_what_an_answer_means(status: int, kind: type) -> None:
    headers = {"Location": "http://127.0.0.1:1/"} if status == 302 else {}
    with AlertReceiver(lambda _: Answer(status, headers)) as receiver:
        outcome = sender().send(Webhook(name="w", url=receiver.url), MESSAGE)
        assert type(outcome) is kind
        assert len(receiver.requests) == 1
        if not isinstance(outcome, Sent):
            assert str(status) in outcome.reason


def test_retry_after_is_honoured() -> None:
    with AlertReceiver(lambda _: Answer(429, {"Retry-After": "17"})) as receiver:
        outcome = sender().send(Webhook(name="w", url=receiver.url), MESSAGE)
    assert isinstance(outcome, Again)
    assert outcome.retry_after_s == 17


def test_nobody_there_and_nobody_answering_are_tried_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        patient = NetworkSender(ManualClock(NOW_US), timeout_s=0.2)
        url = f"http://127.0.0.1:{port}/services/SECRET"
        outcome = patient.send(Slack(name="s", url=url), MESSAGE)
        assert outcome == Again("no answer in time")
    outcome = patient.send(Slack(name="s", url=url), MESSAGE)
    assert isinstance(outcome, Again)
    assert outcome.reason.startswith("not reachable")
    assert "SECRET" not in outcome.reason


def test_hanging_up_is_tried_again() -> None:
    with AlertReceiver(lambda _: Answer(hang_up=True)) as receiver:
        outcome = sender().send(Webhook(name="w", url=receiver.url), MESSAGE)
    assert isinstance(outcome, Again)


@pytest.mark.parametrize("url", ["", "ftp://x", "file:///etc/passwd", "http:///p", "http://a b"])
def test_only_http_urls_are_targets_and_none_is_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Webhook(name="w", url=url)
    assert not url or url not in str(caught.value)


def test_no_secret_is_in_a_repr() -> None:
    target = Webhook(name="w", url="https://x/SECRET", secret="SECRET")
    assert "SECRET" not in repr(target)
    assert "SECRET" not in repr(Slack(name="s", url="https://hooks.example/SECRET"))
