"""What an answer of the collector means for each envelope of a POST. Pure."""

from __future__ import annotations

import email.utils
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from callmeter.transports.http_connection import Answer
from callmeter.transports.protocol import Delivery, Outcome, Sealed

_MAX_RETRY_AFTER_S = 3600.0


@dataclass(slots=True)
class Judgement:
    """``reports`` are final. ``again`` are smaller POSTs to make now. ``halt`` says why there is no
    point in going on: everything else in hand is a RETRY. ``weaker_codec``: send again, but
    compressed otherwise.
    """

    reports: list[Delivery] = field(default_factory=list)
    again: list[Sequence[Sealed]] = field(default_factory=list)
    halt: str | None = None
    retry_after_s: float | None = None
    weaker_codec: bool = False


def judge(batch: Sequence[Sealed], answer: Answer) -> Judgement:
    """One report or one place in ``again`` for each envelope of the batch, or a halt for all."""
    status = answer.status
    body = _object(answer.body)
    if 200 <= status < 300:
        return _delivered(batch, body, status)
    reason = _reason(status, body)
    if status in (400, 403, 413):
        culprit = _named(batch, body)
        if culprit is not None:
            rest = [envelope for envelope in batch if envelope is not culprit]
            return Judgement([_refused(culprit, reason)], [rest] if rest else [])
        if status == 403 or len(batch) == 1:
            return Judgement([_refused(envelope, reason) for envelope in batch])
        middle = len(batch) // 2
        return Judgement(again=[batch[:middle], batch[middle:]])
    if status == 415:
        return Judgement(again=[batch], weaker_codec=True)
    # All else may pass: 429 and 5xx by themselves, 401 when the key is rotated, 3xx and 404 when
    # the URL is put right. Nothing is given up for a mistake in the settings.
    return Judgement(halt=reason, retry_after_s=_retry_after(answer.headers.get("retry-after")))


def _delivered(batch: Sequence[Sealed], body: Mapping[str, Any], status: int) -> Judgement:
    results = body.get("results")
    if not isinstance(results, list):
        return Judgement(halt=f"HTTP {status} without results: is this a callmeter collector?")
    places: dict[tuple[object, object], tuple[int | None, int | None]] = {}
    for result in results:
        if isinstance(result, dict):
            key = (result.get("source"), result.get("seq"))
            places[key] = (_int(result.get("partition")), _int(result.get("offset")))
    judgement = Judgement()
    for envelope in batch:
        place = places.get((envelope.source, envelope.seq))
        if place is None:
            error = "the collector's answer leaves this envelope out"
            judgement.reports.append(Delivery(envelope, Outcome.RETRY, error=error))
        else:
            judgement.reports.append(Delivery(envelope, Outcome.DELIVERED, *place))
    return judgement


def _named(batch: Sequence[Sealed], body: Mapping[str, Any]) -> Sealed | None:
    """The envelope an error speaks of: by (source, seq) if it says so, else by its place."""
    for envelope in batch:
        if body.get("source") == envelope.source and body.get("seq") == envelope.seq:
            return envelope
    index = _int(body.get("envelope"))
    return batch[index] if index is not None and 0 <= index < len(batch) else None


def _refused(envelope: Sealed, reason: str) -> Delivery:
    return Delivery(envelope, Outcome.REFUSED, error=reason)


def _reason(status: int, body: Mapping[str, Any]) -> str:
    text = body.get("error")
    if isinstance(text, str) and text:
        return f"HTTP {status}: {text.splitlines()[0][:300]}"
    hint = {
        401: "the API key is missing or not known",
        404: "no collector at this URL",
        405: "no collector at this URL",
        407: "the proxy wants a user and a password",
    }.get(status, "")
    if 300 <= status < 400:
        hint = "redirected: give the collector's own URL"
    return f"HTTP {status}" + (f": {hint}" if hint else "")


def _retry_after(value: str | None) -> float | None:
    """Seconds or an HTTP date (RFC 9110, section 10.2.3), as seconds from now."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            when = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = when.timestamp() - time.time()
    # An hour is as good as never asked.
    return min(max(seconds, 0.0), _MAX_RETRY_AFTER_S) if not math.isnan(seconds) else None


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _int(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
