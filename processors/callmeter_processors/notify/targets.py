"""Who is told of which alerts, and how: the targets of ``callmeter notify``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from callmeter.errors import ConfigError
from callmeter.schema.alerts import Alert, AlertKind

KINDS = tuple(kind.value for kind in AlertKind)
SEVERITIES = ("info", "warning", "critical")
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SMTP_PORTS = {"smtp": 587, "smtps": 465}


@dataclass(frozen=True, slots=True)
class Choice:
    """Which alerts a target is told of; what is empty limits nothing.

    An alert without a project (a gap, a budget over several projects) is not one of a project's.
    """

    projects: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    severities: frozenset[str] = frozenset()
    rules: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        *,
        projects: Iterable[str] = (),
        kinds: Iterable[str] = (),
        severities: Iterable[str] = (),
        rules: Iterable[str] = (),
    ) -> Choice:
        """A choice from lists; ``ConfigError`` for a kind or a severity that there is not."""
        choice = cls(frozenset(projects), frozenset(kinds), frozenset(severities), frozenset(rules))
        for what, given, known in (
            ("kind", choice.kinds, KINDS),
            ("severity", choice.severities, SEVERITIES),
        ):
            for name in sorted(given - set(known)):
                raise ConfigError(
                    f"no alerts of {what} {name[:60]!r}: there are {', '.join(known)}"
                )
        return choice

    def takes(self, alert: Alert) -> bool:
        """Whether the target is told of this one."""
        return (
            (not self.projects or alert.project in self.projects)
            and (not self.kinds or alert.kind in self.kinds)
            and (not self.severities or alert.severity in self.severities)
            and (not self.rules or alert.rule in self.rules)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A program that takes JSON by POST. ``secret`` signs it. ``repr`` shows neither."""

    name: str
    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    choice: Choice = Choice()
    kind: str = field(default="webhook", init=False)

    def __post_init__(self) -> None:
        check_url(self.url, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slack:
    """An incoming webhook of Slack; its URL is a secret."""

    name: str
    url: str = field(repr=False)
    choice: Choice = Choice()
    kind: str = field(default="slack", init=False)

    def __post_init__(self) -> None:
        check_url(self.url, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Smtp:
    """A mail server. ``implicit_tls`` (``smtps:``) or STARTTLS; without either only loopback."""

    host: str
    port: int
    implicit_tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: str | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether what is sent does not leave the machine."""
        return self.host in _LOOPBACK

    @classmethod
    def from_url(cls, url: str, password: str | None = None, ca_file: str | None = None) -> Smtp:
        """``smtp://[user[:password]@]host[:port]`` or ``smtps://…``; ``ConfigError`` otherwise."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in _SMTP_PORTS or not parts.hostname:
            raise ConfigError("a mail server is smtp://[user@]host[:port] or smtps://…")
        secret = password or (unquote(parts.password) if parts.password else None)
        user = unquote(parts.username) if parts.username else None
        if secret and not user:
            raise ConfigError("a password for the mail server, but no user: smtp://USER@host")
        return cls(
            host=parts.hostname,
            port=port or _SMTP_PORTS[parts.scheme],
            implicit_tls=parts.scheme == "smtps",
            username=user,
            password=secret,
            ca_file=ca_file,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Email:
    """People who get mail, one message for all of them."""

    name: str
    to: tuple[str, ...]
    smtp: Smtp
    sender: str
    choice: Choice = Choice()
    kind: str = field(default="email", init=False)

    def __post_init__(self) -> None:
        for address in (*self.to, self.sender):
            if "@" not in address or any(c.isspace() or c in "<>,;" for c in address):
                raise ConfigError(f"{address[:100]!r} is no mail address like name@example.org")
        if not self.to:
            raise ConfigError(f"{self.name} has nobody to send to")


Target = Webhook | Slack | Email


def default_name(kind: str, where: str) -> str:
    """A target's name when none is given: the same after a restart, and no secret."""
    return f"{kind}-{hashlib.sha256(where.encode()).hexdigest()[:8]}"


def check_url(url: str, name: str) -> None:
    """``ConfigError`` unless it is an http or https URL; its text is not repeated."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        fine = False
    if not fine or any(c.isspace() for c in url):
        raise ConfigError(f"the URL of {name} is not an http:// or https:// one")


def check_names(targets: Sequence[Target]) -> None:
    """``ConfigError`` if there is none, or two have one name: what was delivered is kept by it."""
    if not targets:
        raise ConfigError("nobody to notify: give --webhook, --slack, --email or --config")
    seen: set[str] = set()
    for target in targets:
        if target.name in seen:
            raise ConfigError(f"two targets are called {target.name!r}: give each its own name")
        seen.add(target.name)
