"""An alert as people and programs read it: webhook JSON, Slack blocks, a mail."""

from __future__ import annotations

import hashlib
import hmac
import string
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from urllib.parse import quote

import orjson
from msgspec import UNSET

from callmeter.errors import ConfigError
from callmeter.money import format_usd
from callmeter.schema.alerts import Alert
from callmeter.schema.budgets import PPM

BODY_VERSION = 1
#: Fields that a link may name in braces.
LINK_FIELDS = ("id", "kind", "rule", "project", "entity", "source", "call_id", "trace_id")
_MARKS = {"critical": "🔴", "warning": "🟠", "info": "🔵"}
#: Slack refuses longer texts.
_SLACK_TITLE, _SLACK_TEXT, _SLACK_FIELDS = 150, 2900, 10
_SUBJECT = 200
_MONTH_US = 27 * 86_400_000_000
_DAY_US = 86_400_000_000


def check_link(template: str) -> None:
    """``ConfigError`` unless the template is a URL with known fields in its braces."""
    if not template.startswith(("http://", "https://")):
        raise ConfigError("a link begins with http:// or https://")
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as exc:
        raise ConfigError(f"a link's braces do not match: {exc}") from None
    for _, name, spec, conversion in parts:
        if name is not None and (name not in LINK_FIELDS or spec or conversion):
            raise ConfigError(
                f"a link may name {', '.join('{' + f + '}' for f in LINK_FIELDS)} and nothing else"
            )


def link_of(alert: Alert, template: str) -> str:
    """Where to look; "" without a template."""
    fields = {name: quote(str(getattr(alert, name)), safe="") for name in LINK_FIELDS}
    return template.format_map(fields) if template else ""


def webhook_body(alert: Alert, raw: bytes, link: str) -> bytes:
    """``{"v", "alert", "text", "link"}``; ``raw`` is the alert as it stands in the topic."""
    body = {"v": BODY_VERSION, "alert": orjson.Fragment(raw), "text": alert.message}
    return orjson.dumps(body | ({"link": link} if link else {}))


def signature(secret: str, timestamp_s: int, body: bytes) -> str:
    """``t=<seconds>,v1=<hex>``: HMAC-SHA256 of ``<seconds>.<body>`` by the secret."""
    signed = b"%d.%b" % (timestamp_s, body)
    mac = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return f"t={timestamp_s},v1={mac}"


def slack_body(alert: Alert, link: str) -> bytes:
    """A message of Block Kit, with a text for notifications and readers without blocks."""
    title = f"{_MARKS.get(alert.severity, '')} {_title(alert)}".strip()
    fields = [
        {"type": "mrkdwn", "text": f"*{_slack(name)}*\n{_slack(value)}"[:_SLACK_TEXT]}
        for name, value in facts(alert)
    ][:_SLACK_FIELDS]
    message = _slack(alert.message)[:_SLACK_TEXT] or "(no message)"
    blocks: list[dict[str, object]] = [
        {"type": "header", "text": {"type": "plain_text", "text": title[:_SLACK_TITLE]}},
        {"type": "section", "text": {"type": "mrkdwn", "text": message}},
    ]
    if fields:
        blocks.append({"type": "section", "fields": fields})
    if link:
        text = f"<{_slack(link)}|Look at it>"
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": text}})
    note = f"callmeter alert {alert.id}"
    blocks.append({"type": "context", "elements": [{"type": "mrkdwn", "text": _slack(note)}]})
    return orjson.dumps({"text": f"{_slack(title)}: {message}", "blocks": blocks})


def mail(alert: Alert, link: str, *, sender: str, to: Sequence[str]) -> EmailMessage:
    """A plain message; the Message-ID is the alert's, so that mail programs know it again."""
    message = EmailMessage()
    message["From"] = sender
    message["To"] = ", ".join(to)
    message["Subject"] = _one_line(f"[callmeter] {alert.severity}: {alert.message}")[:_SUBJECT]
    message["Message-ID"] = f"<{quote(alert.id, safe='')}@alerts.callmeter>"
    message["Date"] = datetime.fromtimestamp(alert.at_us / 1e6, UTC)
    message["Auto-Submitted"] = "auto-generated"
    if alert.corrects:
        message["In-Reply-To"] = f"<{quote(alert.corrects, safe='')}@alerts.callmeter>"
    lines = [alert.message, ""]
    lines += [f"{name}: {_one_line(value)}" for name, value in facts(alert)]
    if link:
        lines += ["", link]
    lines += ["", f"callmeter alert {alert.id}"]
    message.set_content("\n".join(lines) + "\n")
    return message


def facts(alert: Alert) -> Iterator[tuple[str, str]]:
    """What an alert is about, as names and texts: the most important first, nothing empty."""
    is_budget = bool(alert.window)
    pairs = (
        ("Budget" if is_budget else "Rule", alert.rule),
        ("Of", alert.entity),
        (_VALUE_NAMES.get(alert.measure, "Value"), amount(alert.value, alert.measure)),
        ("Limit", amount(alert.limit, alert.measure)),
        ("Threshold", alert.threshold),
        ("Window", _window(alert)),
        ("Project", alert.project),
        ("Model", " ".join(filter(None, (alert.provider, alert.model)))),
        ("Program", alert.program),
        ("User", alert.user),
        ("Session", alert.session),
        ("Call", alert.call_id),
        ("Trace", alert.trace_id),
        ("Source", alert.source),
        ("Corrects", alert.corrects),
        ("At", _when(alert.at_us)),
    )
    return ((name, text) for name, text in pairs if text)


_VALUE_NAMES = {
    "cost": "Spend",
    "tokens": "Spend",
    "error_rate": "Error rate",
    "latency": "Latency",
    "envelopes": "Missing",
}


def amount(text: str, measure: str) -> str:
    """An alert's ``value`` or ``limit`` in its measure's unit; "" stays "", other text as it is."""
    try:
        number = int(text)
    except ValueError:
        return text
    if measure == "cost":
        return f"{format_usd(number)} USD"
    if measure == "error_rate":
        return f"{number * 100 / PPM:g} %"
    if measure in ("latency", "clock_us"):
        return f"{number / 1_000_000:g} s"
    return f"{number:,} {measure}".strip()


def _window(alert: Alert) -> str:
    start, end = alert.start_us, alert.end_us
    if not alert.window or start is UNSET or end is UNSET or not end:
        return alert.window
    at = datetime.fromtimestamp(start / 1e6, UTC)
    span = end - start
    shown = (
        "%Y-%m" if span >= _MONTH_US else "%Y-%m-%d" if span >= _DAY_US else "%Y-%m-%d %H:00 UTC"
    )
    return f"{alert.window} {at.strftime(shown)}"


def _when(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _title(alert: Alert) -> str:
    return _one_line(f"{alert.rule}: {alert.kind.replace('_', ' ')}")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _slack(text: str) -> str:
    """Slack's three control characters, so that no producer's text becomes a link or a mention."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
