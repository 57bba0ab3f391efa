"""The doctor's look at a collector: whether it takes envelopes, and its clock."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from callmeter.cli.doctor_finding import Finding, State
from callmeter.cli.doctor_store import skew

_TIMEOUT_S = 5.0


def look_at_collector(url: str) -> Iterator[Finding]:
    """Readiness by ``/readyz``, the clock by the answer's ``Date`` (whole seconds)."""
    guide = "collector.md#health-and-metrics"
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)
    except ValueError as exc:
        yield Finding("collector", State.WRONG, f"{url}: {exc}", guide)
        return
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        body = answer.read(200).decode("utf-8", "replace").strip()
    except (OSError, http.client.HTTPException) as exc:
        why = str(exc) or type(exc).__name__
        yield Finding("collector", State.WRONG, f"{url}: not reachable: {why}", guide)
        return
    finally:
        connection.close()
    if answer.status != 200:
        yield Finding(
            "collector", State.WRONG, f"{url}: not ready ({answer.status}): {body}", guide
        )
    else:
        yield Finding("collector", State.OK, f"{url}: ready", guide)
    date = answer.getheader("Date")
    if date is not None:
        # Cut to the second: half a second more is the best guess.
        yield skew("collector", parsedate_to_datetime(date).timestamp() + 0.5 - time.time())
