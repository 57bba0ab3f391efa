"""A shared budget's status from a collector: a stream of server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import msgspec

from callmeter._version import __version__
from callmeter.errors import ConfigError
from callmeter.schema.budgets import Budget, decode_budget
from callmeter.schema.status import decode_status
from callmeter.sdk.budget.feed import take_record

if TYPE_CHECKING:
    from callmeter.sdk.budget.shared import SharedBudget
    from callmeter.sdk.client import Client

#: A collector's stream says something every 5 s.
_SILENCE_S = 12.0
_READ_BYTES = 65_536
_PATH = "/v1/budgets/status?stream&budget="


class _Snapshot(msgspec.Struct):
    definitions: list[msgspec.Raw]
    statuses: list[msgspec.Raw]


class _Change(msgspec.Struct):
    key: str
    value: msgspec.Raw


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
