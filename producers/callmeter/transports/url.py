"""URLs that say where envelopes go, and how they are shown to people."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from callmeter.errors import ConfigError

KNOWN = "kafka://, kafka+ssl://, http://, https://, jsonl:PATH, memory: and noop:"
_SCHEMES = ("kafka", "kafka+ssl", "http", "https", "jsonl", "memory", "noop")


@dataclass(frozen=True, slots=True)
class HttpEndpoint:
    """A collector: where to connect, and the path that ``/v1/envelopes`` is added to."""

    tls: bool
    host: str
    port: int
    base: str

    @property
    def authority(self) -> str:
        """``host:port``, without a port that the scheme implies."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def display(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.base}"

    @property
    def loopback(self) -> bool:
        """Whether it is this very machine."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def scheme_of(url: str) -> str:
    """The scheme in lower case; ``ConfigError`` names the known ones."""
    scheme = url.partition(":")[0].lower()
    if ":" not in url or scheme not in _SCHEMES:
        raise ConfigError(f"unknown kind of URL {display_url(url)!r}: there are {KNOWN}")
    return scheme


def http_endpoint(url: str) -> HttpEndpoint:
    """Parse ``http://host[:port][/base]``; ``ConfigError`` never repeats what may be a secret."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigError("a collector's URL is http[s]://host[:port]") from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError("an API key does not belong in the URL: use api_key or CALLMETER_API_KEY")
    if not host or any(c.isspace() for c in url):
        raise ConfigError("a collector's URL is http[s]://host[:port]")
    if parts.query or parts.fragment:
        raise ConfigError("a collector's URL has no query and no fragment")
    tls = parts.scheme.lower() == "https"
    return HttpEndpoint(tls, host, port or (443 if tls else 80), parts.path.rstrip("/"))


def jsonl_path(url: str) -> str:
    """The path of ``jsonl:PATH``; ``jsonl:///abs/path`` is understood too."""
    path = url.partition(":")[2]
    if path.startswith("///"):
        path = path[2:]
    if not path or path.startswith("//") or "\0" in path:
        raise ConfigError("a file of envelopes is jsonl:PATH, for example jsonl:calls.jsonl")
    return path


def display_url(url: str) -> str:
    """A URL for log lines and errors: user, password and query are left out."""
    scheme, sep, rest = url.partition("://")
    if not sep:
        return url if "@" not in url else url.partition(":")[0] + ":…"
    authority, slash, path = rest.partition("?")[0].partition("/")
    if "@" in path:  # an unescaped '/' in a password: nothing after it can be trusted
        return f"{scheme}://…"
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
