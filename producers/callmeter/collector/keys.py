"""API keys: which projects a caller may write to and read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from callmeter.errors import ConfigError

ANY = "*"
_MIN_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Grant:
    """What one key may do. ``name`` tells keys apart in logs and limits without showing them."""

    name: str
    projects: frozenset[str]
    may_write: bool
    may_read: bool

    def covers(self, project: str) -> bool:
        """Whether the project is one of the key's."""
        return ANY in self.projects or project in self.projects


#: What everybody may do when no keys are configured, which is allowed on loopback only.
OPEN_GRANT = Grant("local", frozenset({ANY}), may_write=True, may_read=True)


@dataclass(frozen=True, slots=True)
class KeyRing:
    """Keys as SHA-256 digests: a look-up by digest tells nothing through its timing.

    A write key does not read: who can send envelopes from a fleet of servers need not see the
    spend. ``repr`` shows no key.
    """

    grants: dict[bytes, Grant] = field(default_factory=dict, repr=False)

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
        return bool(self.grants)

    @property
    def has_read_keys(self) -> bool:
        """Whether reading is possible and so must be asked for with a key."""
        return any(grant.may_read for grant in self.grants.values())

    def find(self, authorization: str | None) -> Grant | None:
        """The grant of an ``Authorization`` header: ``Bearer KEY``, or the key alone, as the
        Monitor hook sends it. Without any keys configured everybody has the open grant.
        """
        if not self.grants:
            return OPEN_GRANT
        if not authorization:
            return None
        scheme, _, rest = authorization.strip().partition(" ")
        key = rest.strip() if scheme.lower() == "bearer" else authorization.strip()
        return self.grants.get(_digest(key))


def _add(grants: dict[bytes, Grant], entry: str, what: str, *, write: bool) -> None:
    key, _, names = entry.strip().rpartition(":") if ":" in entry else (entry.strip(), "", "")
    projects = frozenset(name.strip() for name in names.split(",") if name.strip())
    if not projects and not write:
        projects = frozenset({ANY})
    if not projects:
        raise ConfigError(f"{what} names no project: write key:project[,project] or key:*")
    if len(key) < _MIN_LENGTH or any(c.isspace() for c in key):
        raise ConfigError(f"{what} is too short or has blanks: {_MIN_LENGTH} characters at least")
    digest = _digest(key)
    known = grants.get(digest)
    if known is not None and known.projects != projects:
        raise ConfigError(f"{what} stands twice with different projects")
    grants[digest] = Grant(
        digest.hex()[:8],
        projects,
        may_write=write or (known is not None and known.may_write),
        may_read=not write or (known is not None and known.may_read),
    )


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
