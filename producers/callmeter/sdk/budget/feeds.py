"""Follows a shared budget's status on a thread of its own: from a collector, or from Kafka."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

import msgspec

from callmeter._version import __version__
from callmeter.errors import ConfigError
from callmeter.schema.budgets import Budget, decode_budget
from callmeter.schema.status import decode_status
from callmeter.sdk.containment import Complaints

if TYPE_CHECKING:
    from callmeter.sdk.budget.shared import SharedBudget
    from callmeter.sdk.client import Client

#: Its own: a program that seeds the global one gets the numbers it would get without us.
_random = random.Random()
_FIRST_PAUSE_S = 0.1
_MAX_PAUSE_S = 5.0
#: A collector's stream says something every 5 s.
_SILENCE_S = 12.0
_READ_BYTES = 65_536
_PATH = "/v1/budgets/status?stream&budget="


class Feed(Protocol):
    """Reads a source of status and tells a ``SharedBudget``.

    ``follow`` is called on the follower's thread, on a new feed whenever it has returned or raised:
    then the source is away. ``stop``, from any thread, makes it return or raise soon.
    """

    def follow(self, budget: SharedBudget) -> None: ...

    def stop(self) -> None: ...


class _Snapshot(msgspec.Struct):
    definitions: list[msgspec.Raw]
    statuses: list[msgspec.Raw]


class _Change(msgspec.Struct):
    key: str
    value: msgspec.Raw


class Follower:
    """The thread: follows for ever, with growing pauses while the source is away."""

    def __init__(self, budget: SharedBudget, open_feed: Callable[[], Feed]) -> None:
        self._budget = budget
        self._open_feed = open_feed
        self._complaints = Complaints()
        self._ended = threading.Event()
        self._feed: Feed | None = None

    def start(self) -> None:
        """Start following; in a forked child too, where the parent's thread does not exist."""
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="callmeter-budget", daemon=True).start()

    def stop(self) -> None:
        """End following, soon."""
        self._ended.set()
        feed = self._feed
        if feed is not None:
            feed.stop()

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._ended.is_set():
            before = self._budget.loaded
            try:
                self._feed = self._open_feed()
                self._feed.follow(self._budget)
                pause_s = _FIRST_PAUSE_S
            except Exception as exc:  # noqa: BLE001  # the thread must outlive any one trouble
                what = str(exc) or type(exc).__name__
                self._complaints.warn(f"the status of budget {self._budget.name!r}: {what}")
            if self._budget.loaded and not before:
                pause_s = _FIRST_PAUSE_S
            self._ended.wait(pause_s * (0.5 + _random.random() / 2))
            pause_s = min(_MAX_PAUSE_S, pause_s * 2)


class HttpFeed:
    """``GET /v1/budgets/status?stream``: server-sent events, with the standard library."""

    def __init__(self, client: Client) -> None:
        import os

        from callmeter.transports.http_connection import HttpConnection
        from callmeter.transports.url import http_endpoint

        settings = client.settings
        self._endpoint = http_endpoint(client.url or "")
        self._key = settings.api_key
        self._connection = HttpConnection(
            self._endpoint, timeout_s=_SILENCE_S, ca_file=settings.ca_file, environ=os.environ
        )

    def stop(self) -> None:
        self._connection.abort()

    def follow(self, budget: SharedBudget) -> None:
        headers = {"Accept": "text/event-stream", "User-Agent": f"callmeter/{__version__}"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        connection = self._connection._connect()
        try:
            connection.request("GET", self._endpoint.base + _PATH + budget.name, headers=headers)
            response = connection.getresponse()
            if response.status != 200:
                raise ConfigError(
                    f"{self._endpoint.display} answers {response.status} to budget status"
                )

            def read() -> bytes:
                return response.read1(_READ_BYTES)

            for event, data in _events(read, budget.heard):
                take_event(budget, event, data)
        finally:
            self._connection.close()


def _events(read: Callable[[], bytes], heard: Callable[[], None]) -> Iterator[tuple[str, bytes]]:
    """(event, data) of a stream until it ends; ``heard`` is told of every sign of life."""
    rest = b""
    while True:
        got = read()
        if not got:
            return
        *parts, rest = (rest + got).split(b"\n\n")
        for part in parts:
            fields: dict[bytes, bytes] = {}
            for line in part.split(b"\n"):
                name, _, value = line.partition(b": ")
                fields[name] = value
            if b"event" in fields:
                yield fields[b"event"].decode(), fields.get(b"data", b"")
            else:
                heard()


def take_event(budget: SharedBudget, event: str, data: bytes) -> None:
    """One event of the stream. What cannot be read raises, so that the stream begins anew."""
    if event == "snapshot":
        told = msgspec.json.decode(data, type=_Snapshot)
        found = [decode_budget(bytes(raw)) for raw in told.definitions]
        definition: Budget | None = next((b for b in found if b.id == budget.name), None)
        statuses = [decode_status(bytes(raw)) for raw in told.statuses]
        budget.snapshot(definition, [s for s in statuses if s.budget == budget.name])
        return
    change = msgspec.json.decode(data, type=_Change)
    value = bytes(change.value)
    take_record(budget, event == "status", change.key, None if value == b"null" else value)


def take_record(budget: SharedBudget, is_status: bool, key: str, value: bytes | None) -> None:
    """A record of ``budget-status`` or ``budgets``; those of other budgets are passed by."""
    name, _, entity = key.partition("|") if is_status else (key, "", "")
    if name != budget.name:
        return
    if is_status:
        budget.report(entity, None if value is None else decode_status(value))
    else:
        budget.define(None if value is None else decode_budget(value))


def feed_for(client: Client) -> Callable[[], Feed]:
    """Opens what the client's URL has: a collector's stream or Kafka's topics."""
    url = client.url or ""
    if url.startswith(("http://", "https://")):
        return lambda: HttpFeed(client)
    if url.startswith("kafka"):
        from callmeter.sdk.budget.kafka import KafkaFeed

        prefix = client.settings.prefix
        return lambda: KafkaFeed(url, prefix)
    raise ConfigError("a shared budget needs a collector or Kafka: callmeter.init(url) first")
