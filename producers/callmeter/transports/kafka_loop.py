"""The event loop of the Kafka transport's thread: resolves names by itself, knows its sockets."""

from __future__ import annotations

import asyncio
import socket
import weakref
from typing import Any


class KafkaLoop(asyncio.SelectorEventLoop):
    """Resolves names in its own thread: the default executor is gone while a program exits, which
    is when a short program first connects. Nobody but the producer waits for this loop.

    Knows its connections, so that none is left open whatever state a session ends in.
    """

    def __init__(self) -> None:
        super().__init__()
        self._connections: weakref.WeakSet[asyncio.BaseTransport] = weakref.WeakSet()

    async def getaddrinfo(self, *args: Any, **kwargs: Any) -> list[Any]:
        return socket.getaddrinfo(*args, **kwargs)

    async def create_connection(self, *args: Any, **kwargs: Any) -> Any:
        made = await super().create_connection(*args, **kwargs)
        self._connections.add(made[0])
        return made

    async def abort_connections(self) -> None:
        """Close every socket now: what a silent broker has not taken will not be waited for."""
        for connection in list(self._connections):
            if isinstance(connection, asyncio.WriteTransport):
                connection.abort()
        for _ in range(3):  # a transport closes its socket in the loop's next rounds
            await asyncio.sleep(0)
