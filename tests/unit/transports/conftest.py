"""Servers and transports for the tests of this folder."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

import pytest

from support.serving import Reply, Sending, Server


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*script: Reply, tls: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(list(script), tls))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def sending() -> Iterator[Callable[..., Sending]]:
    made: list[Sending] = []

    def start(url: str, **options) -> Sending:
        made.append(Sending(url, **options))
        return made[-1]

    yield start
    for one in made:
        one.transport.close(0.0)
