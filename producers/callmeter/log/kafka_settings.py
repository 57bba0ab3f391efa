"""How to reach a Kafka: one URL and a few environment variables, for every client of it.

    kafka://host:9092,host2:9092             plain
    kafka+ssl://host:9093                    TLS, the broker's certificate and name are verified
    kafka+ssl://user:password@host:9093      TLS and SASL

Options stand in the query (``?prefix=…&mechanism=…``) or in ``CALLMETER_KAFKA_*``; the URL wins.
See docs/guides/kafka-security.md. Importing this module needs no Kafka client.
"""

from __future__ import annotations

import os
import re
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from callmeter.errors import ConfigError
from callmeter.schema.topics import DEFAULT_PREFIX

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER")
DEFAULT_PORT = 9092
_OPTIONS = ("prefix", "mechanism", "ca", "cert", "key")
_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,200}\Z")
_SCHEMES = {"kafka": False, "kafka+ssl": True}


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Everything a Kafka client must know. ``repr`` shows no secret.

    ``ca``, ``cert`` and ``key`` are PEM text; without ``ca`` the system's authorities are trusted.
    ``token_file`` is read again for every connection, so a token may be rotated.
    """

    servers: tuple[str, ...]
    prefix: str = DEFAULT_PREFIX
    tls: bool = False
    mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    ca: str | None = field(default=None, repr=False)
    cert: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)
    key_password: str | None = field(default=None, repr=False)

    @classmethod
    def from_url(cls, url: str, environ: Mapping[str, str] = os.environ) -> KafkaSettings:
        """Settings from a URL and the environment; ``ConfigError`` in one line, without secrets."""
        scheme, sep, rest = url.partition("://")
        if not sep or scheme.lower() not in _SCHEMES:
            raise ConfigError("a Kafka URL is kafka://host:port[,host:port] or kafka+ssl://…")
        tls = _SCHEMES[scheme.lower()]
        authority, options = _split(rest)
        userinfo, at, hosts = authority.rpartition("@")
        user, _, password = userinfo.partition(":")
        env = _Environment(environ)
        username = unquote(user) if at else env.text("USERNAME")
        secret = unquote(password) if at and password else env.secret("PASSWORD")
        token, token_file = env.text("TOKEN"), env.text("TOKEN_FILE")
        return cls(
            servers=_servers(hosts),
            prefix=options.get("prefix") or env.text("PREFIX") or DEFAULT_PREFIX,
            tls=tls,
            mechanism=_mechanism(
                options.get("mechanism") or env.text("SASL_MECHANISM"),
                has_user=bool(username),
                has_token=bool(token or token_file),
            ),
            username=username or None,
            password=secret,
            token=token,
            token_file=token_file,
            ca=_pem(options, "ca") or env.secret("CA"),
            cert=_pem(options, "cert") or env.secret("CERT"),
            key=_pem(options, "key") or env.secret("KEY"),
            key_password=env.secret("KEY_PASSWORD"),
        )

    def __post_init__(self) -> None:
        if not _PREFIX.match(self.prefix):
            raise ConfigError("a Kafka topic prefix is letters, digits, '.', '_' and '-'")
        if not self.tls and (self.ca or self.cert or self.key):
            raise ConfigError(
                "certificates are given but kafka:// is not encrypted: use kafka+ssl://"
            )
        if self.key and not self.cert:
            raise ConfigError("a Kafka client key is given without its certificate")
        if self.mechanism == "OAUTHBEARER":
            if not (self.token or self.token_file):
                raise ConfigError(
                    "OAUTHBEARER needs CALLMETER_KAFKA_TOKEN or CALLMETER_KAFKA_TOKEN_FILE"
                )
        elif self.mechanism and not (self.username and self.password):
            raise ConfigError(
                f"Kafka's {self.mechanism} needs a user and a password: in the URL, or in "
                "CALLMETER_KAFKA_USERNAME and CALLMETER_KAFKA_PASSWORD (or …_PASSWORD_FILE)"
            )

    @property
    def bootstrap_servers(self) -> str:
        """``host:port,host:port``, as every Kafka client takes it."""
        return ",".join(self.servers)

    @property
    def security_protocol(self) -> str:
        """PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL."""
        layer = "SSL" if self.tls else "PLAINTEXT"
        return f"SASL_{layer}" if self.mechanism else layer

    @property
    def display(self) -> str:
        """The URL for log lines and errors: no user, no password."""
        return f"kafka{'+ssl' if self.tls else ''}://{self.bootstrap_servers}"

    def ssl_context(self) -> ssl.SSLContext | None:
        """A context that verifies certificate and host name; None without TLS.

        ``ConfigError`` if a certificate or key cannot be used.
        """
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cadata=self.ca)
            if self.cert:
                self._load_client_certificate(context)
        except (ssl.SSLError, ValueError) as exc:
            raise ConfigError(f"Kafka's certificates cannot be used: {exc}") from None
        return context

    def _load_client_certificate(self, context: ssl.SSLContext) -> None:
        # OpenSSL reads the chain from a file only: a private one that is gone a moment later.
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write((self.cert or "") + "\n" + (self.key or ""))
            file.flush()
            # An empty password makes an encrypted key an error; None would ask on the terminal.
            context.load_cert_chain(file.name, password=self.key_password or "")

    def client_kwargs(self) -> dict[str, Any]:
        """Keyword arguments for any aiokafka producer, consumer or admin client."""
        kwargs: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": self.security_protocol,
        }
        context = self.ssl_context()
        if context is not None:
            kwargs["ssl_context"] = context
        if self.mechanism == "OAUTHBEARER":
            from callmeter.log.kafka_oauth import token_provider

            kwargs["sasl_mechanism"] = self.mechanism
            kwargs["sasl_oauth_token_provider"] = token_provider(self.read_token)
        elif self.mechanism:
            kwargs["sasl_mechanism"] = self.mechanism
            kwargs["sasl_plain_username"] = self.username
            kwargs["sasl_plain_password"] = self.password
        return kwargs

    def read_token(self) -> str:
        """The OAuth token as it is now; ``ConfigError`` if its file cannot be read."""
        if self.token_file:
            return _read(self.token_file, "CALLMETER_KAFKA_TOKEN_FILE")
        return self.token or ""


@dataclass(frozen=True, slots=True)
class _Environment:
    """``CALLMETER_KAFKA_<NAME>``, and ``<NAME>_FILE`` for what may come from a file."""

    environ: Mapping[str, str] = field(repr=False)

    def text(self, name: str) -> str | None:
        return self.environ.get(f"CALLMETER_KAFKA_{name}") or None

    def secret(self, name: str) -> str | None:
        direct = self.text(name)
        if direct is not None:
            return direct
        path = self.text(f"{name}_FILE")
        return None if path is None else _read(path, f"CALLMETER_KAFKA_{name}_FILE")


def _split(rest: str) -> tuple[str, dict[str, str]]:
    if "#" in rest:
        raise ConfigError("a Kafka URL has no fragment; write '#' in a password as %23")
    before, _, query = rest.partition("?")
    authority, slash, path = before.partition("/")
    if slash and path:
        raise ConfigError(
            "a Kafka URL has no path: the topic prefix is ?prefix=NAME; "
            "write '/' in a password as %2F and '?' as %3F"
        )
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(options.keys() - set(_OPTIONS))
    if unknown:
        raise ConfigError(
            f"unknown option {unknown[0]!r} in the Kafka URL; there are {', '.join(_OPTIONS)}"
        )
    return authority, options


def _servers(hosts: str) -> tuple[str, ...]:
    servers = []
    for entry in hosts.split(","):
        match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]@]+)(?::(\d{1,5}))?", entry.strip())
        port = int(match[2] or DEFAULT_PORT) if match else 0
        if match is None or not 1 <= port <= 65535:
            raise ConfigError(
                "a Kafka URL names one or more host:port, joined by commas; "
                "write '@', ':' and ',' in a password as %40, %3A and %2C"
            )
        servers.append(f"{match[1]}:{port}")
    return tuple(servers)


def _mechanism(wanted: str | None, *, has_user: bool, has_token: bool) -> str | None:
    if wanted is None:
        if has_user:
            return "PLAIN"
        return "OAUTHBEARER" if has_token else None
    name = wanted.upper().replace("_", "-")
    if name not in MECHANISMS:
        raise ConfigError(f"unknown SASL mechanism {wanted!r}; there are {', '.join(MECHANISMS)}")
    return name


def _pem(options: Mapping[str, str], name: str) -> str | None:
    path = options.get(name)
    return _read(path, f"option {name!r} of the Kafka URL") if path else None


def _read(path: str, named_by: str) -> str:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not text"
        raise ConfigError(f"cannot read {path} ({named_by}): {reason}") from None
    return text if "-----BEGIN" in text else text.strip()
