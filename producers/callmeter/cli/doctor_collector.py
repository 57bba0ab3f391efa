"""The doctor's look at a collector: whether it takes envelopes, and its clock."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import SplitResult, urlsplit

from callmeter.cli.doctor_finding import Finding, State
from callmeter.cli.doctor_store import skew
from callmeter.settings import resolve

_TIMEOUT_S = 5.0


def _connection(parts: SplitResult) -> http.client.HTTPConnection:
    """Not yet connected; certificates are verified by the system's authorities, or ``ca_file``."""
    host = parts.hostname or ""
    if parts.scheme != "https":
        return http.client.HTTPConnection(host, parts.port, timeout=_TIMEOUT_S)
    context = ssl.create_default_context(cafile=resolve().ca_file)
    return http.client.HTTPSConnection(host, parts.port, timeout=_TIMEOUT_S, context=context)


def look_at_collector(url: str) -> Iterator[Finding]:
    """Readiness by ``/readyz``, the clock by the answer's ``Date`` (whole seconds)."""
    guide = "collector.md#health-and-metrics"
    try:
        connection = _connection(urlsplit(url))
    except (ValueError, OSError) as exc:
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
