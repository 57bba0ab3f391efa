"""What receivers get: bodies, signatures, Slack blocks, mails, links."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from callmeter.errors import ConfigError
from callmeter.schema.alerts import AlertKind, encode_alert
from callmeter_processors.notify import render
from callmeter_processors.notify.sample import sample_alert
from support.alerting import NOW_US, alert


def test_a_webhook_gets_the_alert_as_it_stands_in_the_topic() -> None:
    raw = encode_alert(alert()).replace(b"{", b'{"later_field":1,', 1)
    body = json.loads(render.webhook_body(alert(), raw, "https://x/1"))
    assert body["v"] == 1
    assert body["text"] == alert().message
    assert body["link"] == "https://x/1"
    assert body["alert"]["later_field"] == 1
    assert body["alert"]["id"] == alert().id
    assert "link" not in json.loads(render.webhook_body(alert(), raw, ""))


def test_the_signature_is_checked_with_standard_tools() -> None:
    stamp, mac = render.signature("hunter2", 1_700_000_000, b'{"a":1}').split(",")
    wanted = hmac.new(b"hunter2", b'1700000000.{"a":1}', hashlib.sha256).hexdigest()
    assert (stamp, mac) == ("t=1700000000", f"v1={wanted}")


def test_slack_shows_budget_spend_limit_window_and_link() -> None:
    body = json.loads(render.slack_body(alert(), "https://x/1"))
    text = json.dumps(body, ensure_ascii=False)
    for wanted in ("team", "4.01 USD", "5 USD", "80%", "day 2026-09-21", "https://x/1", "shop"):
        assert wanted in text
    assert [block["type"] for block in body["blocks"]] == [
        "header", "section", "section", "section", "context",
    ]  # fmt: skip
    assert len(body["blocks"][2]["fields"]) <= 10


def test_no_text_of_a_producer_becomes_a_link_or_a_mention_in_slack() -> None:
    evil = alert(message="<!channel> <https://evil|x> & y", model="<@U1>", rule="a\nb", user="<x>")
    text = render.slack_body(evil, "").decode()
    assert "<!channel>" not in text
    assert "<@U1>" not in text
    assert "<https://evil" not in text
    assert "&lt;!channel&gt;" in text


def test_long_texts_are_cut_to_what_slack_takes() -> None:
    long = alert(message="m" * 9000, rule="r" * 900, model="x" * 9000)
    body = json.loads(render.slack_body(long, ""))
    assert len(body["blocks"][0]["text"]["text"]) <= 150
    assert len(body["blocks"][1]["text"]["text"]) <= 3000
    assert all(len(field["text"]) <= 3000 for field in body["blocks"][2]["fields"])


def test_a_mail_says_it_and_is_known_by_the_alert() -> None:
    message = render.mail(
        alert(corrects="c" * 32), "https://x/1", sender="a@example.org", to=["b@example.org"]
    )
    text = message.get_content()
    assert message["Message-ID"] == f"<{alert().id}@alerts.callmeter>"
    assert message["In-Reply-To"] == f"<{'c' * 32}@alerts.callmeter>"
    assert message["Subject"] == f"[callmeter] warning: {alert().message}"
    assert "Spend: 4.01 USD" in text
    assert "Limit: 5 USD" in text
    assert "https://x/1" in text


def test_no_text_of_a_producer_becomes_a_mail_header() -> None:
    evil = alert(message="x\r\nBcc: all@example.org\r\n\r\nbody", user="u\nBcc: y@example.org")
    message = render.mail(evil, "", sender="a@example.org", to=["b@example.org"])
    assert message["Bcc"] is None
    assert b"\nBcc" not in message.as_bytes().split(b"\n\n")[0]


@pytest.mark.parametrize("kind", AlertKind)
def test_every_kind_is_rendered(kind: AlertKind) -> None:
    each = alert(kind=kind.value, measure="", value="", limit="", window="", at_us=NOW_US)
    assert json.loads(render.slack_body(each, ""))["blocks"]
    assert render.mail(each, "", sender="a@b", to=["c@d"]).as_bytes()


@pytest.mark.parametrize(
    ("value", "measure", "shown"),
    [
        ("4010000000000", "cost", "4.01 USD"),
        ("1", "cost", "0.000000000001 USD"),
        ("1200000", "tokens", "1,200,000 tokens"),
        ("52500", "error_rate", "5.25 %"),
        ("2500000", "latency", "2.5 s"),
        ("-11000000", "clock_us", "-11 s"),
        ("3", "envelopes", "3 envelopes"),
        ("", "cost", ""),
        ("odd", "cost", "odd"),
    ],
)
def test_amounts_have_units(value: str, measure: str, shown: str) -> None:
    assert render.amount(value, measure) == shown


def test_links_are_filled_and_quoted() -> None:
    each = alert(trace_id="ab", rule="a/b c")
    assert render.link_of(each, "https://x/{trace_id}?rule={rule}") == "https://x/ab?rule=a%2Fb%20c"
    assert render.link_of(each, "") == ""


@pytest.mark.parametrize(
    "template", ["ftp://x", "https://x/{nothing}", "https://x/{", "https://x/{id.__class__}"]
)
def test_links_that_cannot_be_filled_are_refused(template: str) -> None:
    with pytest.raises(ConfigError):
        render.check_link(template)


def test_samples_have_ids_of_their_own() -> None:
    assert sample_alert(NOW_US).id != sample_alert(NOW_US).id
    assert "Spend" in dict(render.facts(sample_alert(NOW_US)))


def test_the_guide_checks_signatures_as_they_are_made() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "guides" / "notify.md").read_text()
    (snippet,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(snippet, "notify.md", "exec"), names)
    body, now_s = b'{"v":1}', int(time.time())
    genuine = names["genuine"]
    assert genuine(render.signature("s", now_s, body), body, "s")
    assert not genuine(render.signature("s", now_s, body), body + b" ", "s")
    assert not genuine(render.signature("t", now_s, body), body, "s")
    assert not genuine(render.signature("s", now_s - 3600, body), body, "s")
