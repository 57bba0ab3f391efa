"""Fork, exit and signals: nothing twice, nothing left behind, no hang.

- Exit, uncaught exceptions included: ``atexit`` closes every client within its shutdown time.
- Fork: the child gets a source, a queue and (with its first event) a thread of its own. What the
  parent had queued and the calls it had open stay the parent's.
- ``multiprocessing`` ends its children without ``atexit``; its own finalizers are used there.
- SIGTERM, where the host left the default: deliver, then die by the signal as before. A host's own
  handler is never replaced; a host that puts the default back in order to die by it (uvicorn's
  workers do) gets the above. SIGINT already ends in a normal exit (``KeyboardInterrupt``).
"""

from __future__ import annotations

import atexit
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from callmeter.sdk.client import Client


class _Watch:
    """The clients of this process and the hooks that are installed."""

    def __init__(self) -> None:
        #: Kept until they are closed: what they hold must still be delivered.
        self.clients: set[Client] = set()
        self.after_fork: list[Callable[[], None]] = []
        self.hooked = False
        self.finalizer_pid = 0
        #: What a forked child must neither use nor let the garbage collector close.
        self.inherited: list[Any] = []


_watch = _Watch()
_set_handler = signal.signal


def watch(client: Client) -> None:
    """From now on the client follows the life of its process."""
    _watch.clients.add(client)
    if not _watch.hooked:
        _watch.hooked = True
        atexit.register(close_all)
        os.register_at_fork(after_in_child=_in_child)
    if client.settings.handle_signals:
        _handle_sigterm()


def unwatch(client: Client) -> None:
    """The client is closed."""
    _watch.clients.discard(client)


def on_fork(refresh: Callable[[], None]) -> None:
    """Call ``refresh`` in a forked child, once its clients are new."""
    _watch.after_fork.append(refresh)


def at_process_end() -> None:
    """Called when a client's thread starts: children of ``multiprocessing`` need a finalizer."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is None or process is None or process.parent_process() is None:
        return
    if _watch.finalizer_pid != os.getpid():
        _watch.finalizer_pid = os.getpid()
        util.Finalize(None, close_all, exitpriority=0)


def close_all() -> None:
    """Close every client. The longest shutdown time bounds them all together."""
    clients = list(_watch.clients)
    if not clients:
        return
    deadline_s = time.monotonic() + max(c.settings.shutdown_timeout_s for c in clients)
    for client in clients:
        client.close(max(0.0, deadline_s - time.monotonic()))


def _in_child() -> None:
    for client in list(_watch.clients):
        _watch.inherited.append(client.after_fork())
    for refresh in _watch.after_fork:
        refresh()


def _handle_sigterm() -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        _set_handler(signal.SIGTERM, _on_sigterm)
    elif signal.signal is _set_handler:
        signal.signal = _set_by_host  # type: ignore[assignment]  # the same, with a narrower type


@functools.wraps(_set_handler)
def _set_by_host(number: int, handler: Any) -> Any:
    """``signal.signal`` where the host had a handler of its own before us: should it put back the
    default of SIGTERM while something may be undelivered, we are its default.
    """
    ours = number == signal.SIGTERM and handler is signal.SIG_DFL and bool(_watch.clients)
    return _set_handler(number, _on_sigterm if ours else handler)


def _on_sigterm(number: int, _frame: FrameType | None) -> None:
    """Deliver within the shutdown time, then let the signal do what it would have done."""
    try:
        close_all()
    finally:
        _set_handler(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
