"""Sends one alert to one target and says how that went: HTTP by the standard library."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from typing import NamedTuple, Protocol

from callmeter._version import __version__
from callmeter.clock import Clock
from callmeter.schema.alerts import Alert
from callmeter_processors.notify import render
from callmeter_processors.notify.mailing import send_mail
from callmeter_processors.notify.outcome import Again, Outcome, Refused, Sent
from callmeter_processors.notify.schedule import retry_after_s
from callmeter_processors.notify.targets import Email, Slack, Target, Webhook

TIMEOUT_S = 10.0
#: Statuses that may pass; every other 4xx says that this will never be taken.
_PASSING = frozenset({408, 423, 425, 429})
_ANSWER_BYTES = 1024


class Message(NamedTuple):
    """An alert to send: decoded, as it stands in the topic, and where to look."""

    alert: Alert
    raw: bytes
    link: str = ""


class Sender(Protocol):
    """Sends to targets. May block for a few time-outs; never raises; any thread may call it."""

    def send(self, target: Target, message: Message) -> Outcome: ...


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirected POST becomes a GET and loses the alert, so a redirect is an answer."""

    def redirect_request(self, *_: object) -> None:
        return None


class NetworkSender:
    """The real one: webhooks, Slack, mail. Proxies are taken from the environment."""

    def __init__(self, clock: Clock, timeout_s: float = TIMEOUT_S) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._opener = urllib.request.build_opener(_NoRedirects)

    def send(self, target: Target, message: Message) -> Outcome:
        if isinstance(target, Email):
            letter = render.mail(message.alert, message.link, sender=target.sender, to=target.to)
            return send_mail(target.smtp, letter, self._timeout_s)
        return self._post(target, message)

    def _post(self, target: Webhook | Slack, message: Message) -> Outcome:
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"callmeter/{__version__}",
            "Idempotency-Key": message.alert.id,
        }
        if isinstance(target, Slack):
            body = render.slack_body(message.alert, message.link)
        else:
            body = render.webhook_body(message.alert, message.raw, message.link)
            if target.secret:
                seconds = self._clock.now_us() // 1_000_000
                headers["Callmeter-Signature"] = render.signature(target.secret, seconds, body)
        # Its scheme was checked when the target was made.
        request = urllib.request.Request(target.url, body, headers, method="POST")  # noqa: S310
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                answer.read(_ANSWER_BYTES)
        except urllib.error.HTTPError as exc:
            with exc:
                return self._judge(exc)
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as exc:
            return Again(_reason(exc))
        return Sent()

    def _judge(self, exc: urllib.error.HTTPError) -> Outcome:
        says = f"HTTP {exc.code} {exc.reason or ''}".strip()
        if exc.code >= 500 or exc.code in _PASSING:
            return Again(says, retry_after_s(exc.headers.get("Retry-After"), self._clock.now_us()))
        return Refused(says)


def _reason(exc: Exception) -> str:
    """What went wrong, without the URL: it may be a secret."""
    cause = exc.reason if isinstance(exc, urllib.error.URLError) else exc
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, OSError):
        return f"not reachable: {cause.strerror or type(cause).__name__}"
    return f"not reachable: {type(cause).__name__}"
