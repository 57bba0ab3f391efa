"""API keys: which projects a caller may write to and read."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from callmeter.errors import ConfigError

ANY = "*"
_MIN_LENGTH = 8


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What one key may put on the collector; None is the collector's own setting.

    Rates are per second, sizes in bytes; ``body_bytes`` is of the plain body.
    """

    envelopes_per_s: float | None = None
    bytes_per_s: float | None = None
    body_bytes: int | None = None
    envelope_bytes: int | None = None


NO_LIMITS = KeyLimits()


@dataclass(frozen=True, slots=True)
class Grant:
    """What one key may do. ``name`` tells keys apart in logs and limits without showing them."""

    name: str
    projects: frozenset[str]
    may_write: bool
    may_read: bool
    expires_us: int | None = None
    limits: KeyLimits = NO_LIMITS

    def covers(self, project: str) -> bool:
        """Whether the project is one of the key's."""
        return ANY in self.projects or project in self.projects


#: What everybody may do when no keys are configured, which is allowed on loopback only.
OPEN_GRANT = Grant("local", frozenset({ANY}), may_write=True, may_read=True)


class KeyRing:
    """Keys as SHA-256 digests: a look-up by digest tells nothing through its timing.

    A write key does not read: who can send envelopes from a fleet of servers need not see the
    spend. Keys come from settings for the life of the process, from a key file that is replaced
    while it runs, and as short-lived credentials of either. One event loop changes a ring; any
    thread may look keys up. ``repr`` shows no key.
    """

    def __init__(self, grants: Mapping[bytes, Grant] | None = None) -> None:
        self._fixed = dict(grants or {})
        self._filed: dict[bytes, Grant] | None = None
        self._lent: dict[bytes, tuple[bytes, Grant]] = {}  # a credential, its key and its grant
        #: When a key of the file was last used, by its name (µs).
        self.used_us: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"KeyRing({len(self._fixed)} from settings, {len(self._filed or ())} from a file)"

    @classmethod
    def parse(cls, write: Iterable[str] = (), read: Iterable[str] = ()) -> KeyRing:
        """From settings, each ``key:project[,project]``; project ``*`` means all.

        A read key may leave its projects out and then reads all. The same key in both lists does
        both. ``ConfigError`` counts the entry and never shows it.
        """
        grants: dict[bytes, Grant] = {}
        for number, entry in enumerate(write, 1):
            _add(grants, entry, f"API key {number}", write=True)
        for number, entry in enumerate(read, 1):
            _add(grants, entry, f"read key {number}", write=False)
        return cls(grants)

    def __bool__(self) -> bool:
        """Whether a key is asked for. An empty key file asks for one too, and nobody has it."""
        return bool(self._fixed) or self._filed is not None

    @property
    def usable(self) -> bool:
        """Whether there is a key that somebody may have."""
        return bool(self._fixed) or bool(self._filed)

    @property
    def has_read_keys(self) -> bool:
        """Whether reading is possible and so must be asked for with a key.

        A key file without any key is one that was emptied: it opens nothing.
        """
        filed = self._filed
        grants = [*self._fixed.values(), *(filed or {}).values()]
        return filed == {} or any(grant.may_read for grant in grants)

    def replace_filed(self, grants: Mapping[bytes, Grant]) -> None:
        """Take what a key file says now; credentials of keys that have gone go with them."""
        self._filed = dict(grants)
        for credential, (parent, _) in list(self._lent.items()):
            if parent not in self._fixed and parent not in self._filed:
                del self._lent[credential]

    def lend(self, authorization: str | None, token: str) -> bytes | None:
        """Make ``token`` a credential of the key in a header, to write alone; its digest.

        None if the header's is no key but a credential itself, or no keys are asked for.
        """
        parent = digest_of(_presented(authorization or ""))
        grant = self._lasting(parent)
        if grant is None:
            return None
        digest = digest_of(token)
        lent = Grant(
            grant.name,
            grant.projects,
            may_write=True,
            may_read=False,
            expires_us=grant.expires_us,
            limits=grant.limits,
        )
        self._lent[digest] = (parent, lent)
        return digest

    def take_back(self, digest: bytes) -> None:
        """A credential is no longer good."""
        self._lent.pop(digest, None)

    def find(self, authorization: str | None, now_us: int | None = None) -> Grant | None:
        """The grant of an ``Authorization`` header: ``Bearer KEY``, or the key alone, as the
        Monitor hook sends it. Without any keys configured everybody has the open grant.
        """
        if not self:
            return OPEN_GRANT
        if not authorization:
            return None
        digest = digest_of(_presented(authorization))
        lent = self._lent.get(digest)
        grant = self._lasting(digest) if lent is None else lent[1]
        if grant is None:
            return None
        now_us = time.time_ns() // 1000 if now_us is None else now_us
        if grant.expires_us is not None and grant.expires_us <= now_us:
            return None
        if self._filed is not None:
            self.used_us[grant.name] = now_us
        return grant

    def _lasting(self, digest: bytes) -> Grant | None:
        return self._fixed.get(digest) or (self._filed or {}).get(digest)


def _presented(authorization: str) -> str:
    scheme, _, rest = authorization.strip().partition(" ")
    return rest.strip() if scheme.lower() == "bearer" else authorization.strip()


def _add(grants: dict[bytes, Grant], entry: str, what: str, *, write: bool) -> None:
    key, _, names = entry.strip().rpartition(":") if ":" in entry else (entry.strip(), "", "")
    projects = frozenset(name.strip() for name in names.split(",") if name.strip())
    if not projects and not write:
        projects = frozenset({ANY})
    if not projects:
        raise ConfigError(f"{what} names no project: write key:project[,project] or key:*")
    if len(key) < _MIN_LENGTH or any(c.isspace() for c in key):
        raise ConfigError(f"{what} is too short or has blanks: {_MIN_LENGTH} characters at least")
    digest = digest_of(key)
    known = grants.get(digest)
    if known is not None and known.projects != projects:
        raise ConfigError(f"{what} stands twice with different projects")
    grants[digest] = Grant(
        digest.hex()[:8],
        projects,
        may_write=write or (known is not None and known.may_write),
        may_read=not write or (known is not None and known.may_read),
    )


def digest_of(key: str) -> bytes:
    """What is kept of a key: its SHA-256 (docs/decisions/0019)."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
