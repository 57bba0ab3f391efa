"""Who may look: read keys from a header, or from a session that a sign-in form began.

Keys are the collector's; whoever mounts the dashboard hands their check in as an ``Access``. A
session holds the key in memory and asks the check again at each request, so a key that is revoked
ends its sessions; a restart ends them all.
"""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web

COOKIE = "callmeter_session"
SESSION_S = 12 * 3600
_MAX_SESSIONS = 1000


@dataclass(frozen=True, slots=True)
class Reader:
    """What one caller may see; ``projects`` None is all of them."""

    projects: frozenset[str] | None = None

    def covers(self, project: str) -> bool:
        """Whether the project is one of the caller's."""
        return self.projects is None or project in self.projects


#: The reader that an ``Authorization`` header names; None if it names none that may read.
Access = Callable[[str | None], Reader | None]


def OPEN(_authorization: str | None) -> Reader:  # noqa: N802  # a constant that is callable
    """Everybody reads all: only for a dashboard that this machine alone can reach."""
    return Reader()


class Sessions:
    """Signed-in browsers: random cookie to key, at most a thousand, each for twelve hours."""

    def __init__(self, access: Access, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._access = access
        self._now_s = now_s
        self._keys: OrderedDict[str, tuple[str, float]] = OrderedDict()

    @property
    def needed(self) -> bool:
        """Whether a caller without a key is refused."""
        return self._access(None) is None

    def reader(self, request: web.Request) -> Reader | None:
        """The caller of a request, by its header or else its cookie."""
        header = request.headers.get("Authorization")
        if header:
            return self._access(header)
        held = self._keys.get(request.cookies.get(COOKIE, ""))
        if held is not None and held[1] > self._now_s():
            return self._access(f"Bearer {held[0]}")
        return self._access(None)

    def begin(self, key: str) -> str | None:
        """A new session's cookie, or None if the key may not read."""
        if not key or self._access(f"Bearer {key}") is None:
            return None
        while len(self._keys) >= _MAX_SESSIONS:
            self._keys.popitem(last=False)
        cookie = secrets.token_urlsafe(32)
        self._keys[cookie] = (key, self._now_s() + SESSION_S)
        return cookie

    def end(self, request: web.Request) -> None:
        """Forget the request's session."""
        self._keys.pop(request.cookies.get(COOKIE, ""), None)


def local_path(wanted: str) -> str:
    """A place of this dashboard to go on to; ``/`` for anything that leads elsewhere."""
    parts = urlsplit(wanted)
    inside = wanted.startswith("/") and not wanted.startswith(("//", "/\\"))
    harmless = not parts.scheme and not parts.netloc and wanted.isprintable()
    return wanted if inside and harmless else "/"
