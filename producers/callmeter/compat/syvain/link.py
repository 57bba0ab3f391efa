"""HTTP to a callmeter collector: experiments, folders, questions, and envelopes.

A write carries one idempotency key over all its tries. 408, 425, 429, 5xx and no answer at all are
tried three times, 0.25 and 0.5 s apart; a 401 or 403 once more with a fresh credential.
"""

from __future__ import annotations

import os
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import orjson

from callmeter._version import __version__
from callmeter.compat.syvain.delivery import Written
from callmeter.compat.syvain.errors import MetricsRequestError
from callmeter.ids import uuid7
from callmeter.settings import Settings
from callmeter.transports.compression import MIN_BYTES, BodyCodec, body_codec
from callmeter.transports.http_answers import judge
from callmeter.transports.http_connection import Answer, HttpConnection, NoAnswerError
from callmeter.transports.protocol import Outcome, Sealed
from callmeter.transports.url import http_endpoint

PAUSES_S = (0.25, 0.5)
_RETRIED = frozenset({408, 425, 429})
_MAX_ANSWER = 64 * 2**20


class Link:
    """One collector and one key. Thread-safe but for ``Pipe``, of which each experiment has one.

    ``timeout_s`` bounds requests about experiments, ``ingest_timeout_s`` those with envelopes.
    """

    def __init__(
        self,
        host: str,
        api_key: str,
        settings: Settings,
        *,
        timeout_s: float,
        ingest_timeout_s: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.endpoint = http_endpoint(host)
        self.ingest_timeout_s = ingest_timeout_s
        self.sleep = sleep
        self.settings = settings
        self._timeout_s = timeout_s
        self._api_key = api_key
        self._credential: str | None = None
        self._lock = threading.Lock()

    def connection(self, timeout_s: float) -> HttpConnection:
        """A connection of the caller's own."""
        return HttpConnection(
            self.endpoint,
            timeout_s=timeout_s,
            ca_file=self.settings.ca_file,
            environ=os.environ,
        )

    def headers(self, key: str | None = None, *, minted: bool = False) -> dict[str, str]:
        """Headers of a request; ``key`` tells the tries of one write. ``minted`` uses the
        short-lived credential, if the collector has given one.
        """
        token = (self._credential if minted else None) or self._api_key
        headers = {
            "Authorization": f"Bearer {token}",
            "User-Agent": f"callmeter-syvain/{__version__}",
        }
        return headers if key is None else {**headers, "Idempotency-Key": key}

    def post(self, path: str, body: Mapping[str, Any], what: str) -> Mapping[str, Any]:
        """A JSON write; its JSON answer. ``MetricsRequestError`` after its tries."""
        headers = {**self.headers(uuid7()), "Content-Type": "application/json"}
        data = orjson.dumps(body)
        connection = self.connection(self._timeout_s)
        try:
            answer = self.tried(lambda: connection.post(path, data, headers))
        except NoAnswerError as exc:
            raise MetricsRequestError(
                f"{what} failed: {exc}", status_code=None, retryable=True
            ) from None
        finally:
            connection.close()
        return _json(answer, what)

    def get(self, path: str, query: Mapping[str, Any], what: str) -> Mapping[str, Any]:
        """A JSON question. ``MetricsRequestError`` after its tries."""
        pairs = {name: value for name, value in query.items() if value not in (None, ())}
        url = f"{self.endpoint.display}{path}?{urlencode(pairs, doseq=True)}"
        try:
            return _json(self.tried(lambda: self._get(url)), what)
        except NoAnswerError as exc:
            raise MetricsRequestError(
                f"{what} failed: {exc}", status_code=None, retryable=True
            ) from None

    def tried(self, request: Callable[[], Answer]) -> Answer:
        """The answer, after three tries at most; ``NoAnswerError`` if the last has none."""
        for pause_s in PAUSES_S:
            try:
                answer = request()
            except NoAnswerError:
                self.sleep(pause_s)
                continue
            if answer.status not in _RETRIED and answer.status < 500:
                return answer
            self.sleep(pause_s)
        return request()

    def accept(self, answer: Mapping[str, Any]) -> None:
        """Use the credential that an answer brings, if it does."""
        credential = answer.get("credential")
        if isinstance(credential, str) and credential:
            with self._lock:
                self._credential = credential

    def refresh(self, connection: HttpConnection, refused: str) -> bool:
        """After a 401 or 403 for the token ``refused``: get another credential with the API key.

        True if there is something else to try now. Another thread may have refreshed meanwhile.
        """
        with self._lock:
            if self._credential is not None and self._credential != refused:
                return True
            self._credential = None
            try:
                answer = connection.post("/v1/credentials/refresh", b"{}", self.headers())
            except NoAnswerError:
                return False
            if answer.status != 200:
                return refused != self._api_key
            fresh = orjson.loads(answer.body).get("credential")
            self._credential = fresh if isinstance(fresh, str) and fresh else None
            return True

    def forget(self) -> None:
        """The credential is not taken: the API key itself goes on."""
        with self._lock:
            self._credential = None

    def _get(self, url: str) -> Answer:
        request = urllib.request.Request(url, headers=self.headers())  # noqa: S310  # http(s): http_endpoint has looked
        handlers: list[urllib.request.BaseHandler] = []
        if self.endpoint.tls:
            context = ssl.create_default_context(cafile=self.settings.ca_file)
            handlers.append(urllib.request.HTTPSHandler(context=context))
        if self.endpoint.loopback:
            handlers.append(urllib.request.ProxyHandler({}))
        opener = urllib.request.build_opener(*handlers)
        try:
            with opener.open(request, timeout=self._timeout_s) as response:
                return Answer(response.status, {}, response.read(_MAX_ANSWER))
        except urllib.error.HTTPError as exc:
            with exc:
                return Answer(exc.code, {}, exc.read(_MAX_ANSWER))
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "reason", None) or exc
            raise NoAnswerError(f"{self.endpoint.display}: {reason}") from None


class Pipe:
    """One experiment's envelopes to ``POST /v1/envelopes``. One thread at a time."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._connection = link.connection(link.ingest_timeout_s)
        self._codec: BodyCodec = body_codec(
            link.settings.compression, loopback=link.endpoint.loopback
        )

    def write(self, envelope: Sealed, timeout_s: float | None) -> Written:
        """Until the log has it, it is refused, or the tries are used up. ``timeout_s`` bounds a
        single last try.
        """
        hurried = timeout_s is not None
        connection = self._link.connection(timeout_s) if timeout_s else self._connection
        key = f"{envelope.source}:{envelope.seq}"
        try:
            answer = self._attempt(connection, envelope, key, hurried=hurried)
            if answer.status in (401, 403) and self._link.refresh(connection, self._token):
                answer = self._attempt(connection, envelope, key, hurried=hurried)
                if answer.status in (401, 403) and self._link.headers(minted=True) != (
                    self._link.headers()
                ):
                    self._link.forget()
                    answer = self._attempt(connection, envelope, key, hurried=hurried)
        except NoAnswerError as exc:
            return Written(Outcome.RETRY, str(exc))
        finally:
            if hurried:
                connection.close()
        return self._judged(envelope, answer)

    def close(self) -> None:
        """Close the connection; the next write opens another."""
        self._connection.close()

    def _attempt(
        self, connection: HttpConnection, envelope: Sealed, key: str, *, hurried: bool
    ) -> Answer:
        headers = {
            **self._link.headers(key, minted=True),
            "Content-Type": "application/x-ndjson",
        }
        self._token = headers["Authorization"].partition(" ")[2]
        data = envelope.data
        if self._codec.encoding is not None and len(data) >= MIN_BYTES:
            data = self._codec.compress(data)
            headers["Content-Encoding"] = self._codec.encoding

        def request() -> Answer:
            return connection.post("/v1/envelopes", data, headers)

        return request() if hurried else self._link.tried(request)

    def _judged(self, envelope: Sealed, answer: Answer) -> Written:
        judgement = judge([envelope], answer)
        if answer.status == 403:
            # A key that does not cover the project can be mended; what is queued must not go.
            return Written(Outcome.RETRY, judgement.reports[0].error or "HTTP 403")
        if judgement.weaker_codec:
            self._codec = self._codec.weaker()
            return Written(Outcome.RETRY, "HTTP 415: trying another compression")
        if judgement.halt is not None:
            return Written(Outcome.RETRY, judgement.halt, judgement.retry_after_s)
        report = judgement.reports[0]
        return Written(report.outcome, report.error or "")


def _json(answer: Answer, what: str) -> Mapping[str, Any]:
    try:
        body = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        body = None
    if 200 <= answer.status < 300 and isinstance(body, dict):
        return body
    reason = body.get("error") if isinstance(body, dict) else None
    if not isinstance(reason, str) or not reason:
        reason = "is this a callmeter collector?" if answer.status < 500 else "the server failed"
    raise MetricsRequestError(
        f"{what} failed: HTTP {answer.status}: {reason[:300]}",
        status_code=answer.status,
        retryable=answer.status in _RETRIED or answer.status >= 500,
    )
