"""Where a ClickHouse server is, and with what secrets, from a URL and the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from callmeter.errors import ConfigError
from callmeter_sinks.clickhouse.params import is_identifier

_OPTIONS = {"cluster", "ca", "verify", "timeout", "compress", "replicated"}
_NO = {"no", "0", "false", "off"}
_COMPRESS = {"lz4", "zstd", "gzip", "no"}


@dataclass(frozen=True, slots=True)
class HttpUrl:
    """A server, checked. ``repr`` and ``display`` carry no secret."""

    host: str
    port: int
    database: str = "default"
    secure: bool = False
    user: str = "default"
    password: str = field(default="", repr=False)
    cluster: str | None = None
    ca_file: str | None = None
    verify: bool = True
    timeout_s: int = 300
    compress: str | bool = "lz4"
    replicated: bool = True

    @classmethod
    def parse_shards(cls, url: str, environ: Mapping[str, str]) -> tuple[HttpUrl, ...]:
        """One server a shard, in the order of the shards: ``clickhouse://host,host/db?cluster=NAME``.

        One address is one store, and everything is as ``parse`` says. Several are refused without
        ``cluster``, and an address may be named once.
        """
        parts = urlsplit(url)
        credentials, at, hosts = parts.netloc.rpartition("@")
        shards = tuple(
            cls.parse(urlunsplit(parts._replace(netloc=f"{credentials}{at}{host}")), environ)
            for host in hosts.split(",")
        )
        if len(shards) == 1:
            return shards
        if shards[0].cluster is None:
            raise ConfigError(
                f"the store's URL names {len(shards)} hosts, so {len(shards)} shards, and no "
                "cluster that has them: add ?cluster=NAME"
            )
        named = [(shard.host, shard.port) for shard in shards]
        for place, address in enumerate(named):
            if address in named[:place]:
                raise ConfigError(
                    f"the store's URL names {address[0]}:{address[1]} twice: one address a shard"
                )
        return shards

    @classmethod
    def parse(cls, url: str, environ: Mapping[str, str]) -> HttpUrl:
        """``clickhouse[s]://[user[:password]@]host[:port]/[database][?option=…]``.

        ``replicated=no`` is for tests against the shim alone: ``migrate`` refuses a server without
        Replicated tables otherwise. ``ConfigError`` says in one line what is wrong, no secret in
        it.
        """
        parts = urlsplit(url)
        secure = parts.scheme == "clickhouses"
        try:
            port = parts.port or (8443 if secure else 8123)
        except ValueError as exc:
            raise ConfigError("the store's port is not a number") from exc
        if not parts.hostname:
            raise ConfigError("the store's URL lacks a host: clickhouse://host:port/db")
        database = unquote(parts.path.strip("/")) or "default"
        if not is_identifier(database):
            raise ConfigError(f"not the name of a database: {database!r}")
        options = dict(parse_qsl(parts.query))
        unknown = sorted(options.keys() - _OPTIONS)
        if unknown:
            raise ConfigError(f"unknown option of the store's URL: {', '.join(unknown)}")
        cluster = options.get("cluster") or environ.get("CALLMETER_STORE_CLUSTER") or None
        if cluster is not None and not is_identifier(cluster):
            raise ConfigError(f"not the name of a cluster: {cluster!r}")
        return cls(
            host=parts.hostname,
            port=port,
            database=database,
            secure=secure,
            user=unquote(parts.username or "") or environ.get("CALLMETER_STORE_USER") or "default",
            password=unquote(parts.password or "") or _password(environ),
            cluster=cluster,
            ca_file=options.get("ca"),
            verify=options.get("verify", "yes").lower() not in _NO,
            timeout_s=_timeout(options.get("timeout", "300")),
            compress=_compress(options.get("compress", "lz4")),
            replicated=options.get("replicated", "yes").lower() not in _NO,
        )

    def display(self) -> str:
        """The URL for people: no user, no password."""
        scheme = "clickhouses" if self.secure else "clickhouse"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}/{self.database}"


def _password(environ: Mapping[str, str]) -> str:
    given = environ.get("CALLMETER_STORE_PASSWORD")
    if given:
        return given
    path = environ.get("CALLMETER_STORE_PASSWORD_FILE")
    if not path:
        return ""
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "not text"
        raise ConfigError(f"CALLMETER_STORE_PASSWORD_FILE: {path}: {why}") from exc


def _timeout(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ConfigError(f"the store's timeout is a number of seconds, not {text!r}")
    return int(text)


def _compress(text: str) -> str | bool:
    if text.lower() not in _COMPRESS:
        raise ConfigError(f"the store's compress is one of {', '.join(sorted(_COMPRESS))}")
    return False if text.lower() == "no" else text.lower()
