"""Fork, exit and signals: nothing twice, nothing left behind, no hang.

- Exit, uncaught exceptions included: ``atexit`` closes every client within its shutdown time.
- Fork: the child gets a source, a queue and (with its first event) a thread of its own. What the
  parent had queued and the calls it had open stay the parent's.
- ``multiprocessing`` ends its children without ``atexit``; its own finalizers are used there.
- SIGTERM, where the host left the default: deliver, then die by the signal as before. A host's own
  handler is never replaced; a host that puts the default back in order to die by it (uvicorn's
  workers do) gets the above. SIGINT already ends in a normal exit (``KeyboardInterrupt``).
- A signal amid a close: supervisors and process groups send the same one twice, so a SIGTERM lets
  the close end within its time and then kills. One that raises (SIGINT, a host's ``sys.exit``)
  shortens the close to ``INSIST_S``, then to nothing; what is pending is counted and reported.
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

#: What a close still has when the host insists on its end.
INSIST_S = 1.0
#: What signal handlers raise in whatever they interrupt.
INSISTING = (KeyboardInterrupt, SystemExit)


class _Watch:
    """The clients of this process and the hooks that are installed."""

    def __init__(self) -> None:
        #: Kept until they are closed: what they hold must still be delivered.
        self.clients: set[Client] = set()
        #: Those that are being closed: by which thread, and until when.
        self.closing: dict[Client, tuple[int, float]] = {}
        #: The signal to die by, once the close that it interrupted is done.
        self.dying: int | None = None
        self.after_fork: list[Callable[[], None]] = []
        self.after_close: list[Callable[[Client], None]] = []
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


def begin_close(client: Client, seconds: float) -> None:
    """The client is about to be closed on this thread, within so many seconds."""
    _watch.closing[client] = (threading.get_ident(), time.monotonic() + seconds)
    _watch.clients.discard(client)


def end_close(client: Client) -> None:
    """The client is closed. Dies here if SIGTERM came meanwhile."""
    for release in _watch.after_close:
        release(client)
    _watch.closing.pop(client, None)
    if _watch.dying is not None and not _closes_here():
        _die(_watch.dying)


def on_fork(refresh: Callable[[], None]) -> None:
    """Call ``refresh`` in a forked child, once its clients are new."""
    _watch.after_fork.append(refresh)


def on_close(release: Callable[[Client], None]) -> None:
    """Call ``release`` with each client that was closed."""
    _watch.after_close.append(release)


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
    insisted: BaseException | None = None
    for client in clients:
        try:
            client.close(max(0.0, deadline_s - time.monotonic()))
        except INSISTING as exc:
            insisted, deadline_s = exc, min(deadline_s, time.monotonic() + INSIST_S)
    if insisted is not None:
        raise insisted


def _in_child() -> None:
    _watch.closing.clear()  # by threads that are not here
    _watch.dying = None
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
    undelivered = bool(_watch.clients or _watch.closing)
    ours = number == signal.SIGTERM and handler is signal.SIG_DFL and undelivered
    return _set_handler(number, _on_sigterm if ours else handler)


def _on_sigterm(number: int, _frame: FrameType | None) -> None:
    """Deliver within the shutdown time, then let the signal do what it would have done."""
    if _closes_here():
        _watch.dying = number  # the close that this interrupted goes on, and dies in the end
        return
    while any(time.monotonic() < end_s for _, end_s in list(_watch.closing.values())):
        time.sleep(0.01)  # another thread closes
    _die(number)


def _closes_here() -> bool:
    me = threading.get_ident()
    return any(thread == me for thread, _ in list(_watch.closing.values()))


def _die(number: int) -> None:
    try:
        close_all()
    finally:
        _set_handler(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
