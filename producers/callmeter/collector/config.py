"""Settings of the collector."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from callmeter.collector.keyfile import grants_of, read_keys
from callmeter.collector.keys import KeyRing
from callmeter.errors import ConfigError
from callmeter.schema.envelope import MAX_BYTES

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 4248


@dataclass(frozen=True, slots=True)
class CollectorConfig:
    """Where to listen, who may write, and how much.

    ``rate_envelopes_per_s`` (with ``burst_envelopes``) and ``rate_bytes_per_s`` bound each key;
    None is no bound. ``max_bodies_bytes`` bounds what all requests in hand hold together; beyond it
    they are told to come back (503). ``append_timeout_s`` is how long the log may take.

    A body has ``body_timeout_s`` in all, and after ``body_grace_s`` must have come at
    ``min_body_bytes_per_s`` on average; headers have ``header_timeout_s``; a connection without a
    request is closed after ``keepalive_timeout_s``; there are at most ``max_connections``.

    On SIGTERM it is unready and refuses what is new for ``drain_grace_s`` at least and for as long
    as requests are in hand, ``drain_timeout_s`` at most. ``trace_project`` is the project of the
    Monitor hook's traces and of OTLP spans where neither key nor span names one. ``otlp_spans`` is
    ``all``, or ``genai`` to leave out spans that speak of no model, agent or tool.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    keys: KeyRing = field(default_factory=KeyRing)
    keys_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_body_bytes: int = 8 * 2**20
    max_envelope_bytes: int = MAX_BYTES
    max_bodies_bytes: int = 256 * 2**20
    max_connections: int = 4096
    max_header_bytes: int = 8190
    rate_envelopes_per_s: float | None = None
    burst_envelopes: float | None = None
    rate_bytes_per_s: float | None = None
    append_timeout_s: float = 15.0
    header_timeout_s: float = 10.0
    keepalive_timeout_s: float = 75.0
    body_timeout_s: float = 30.0
    body_grace_s: float = 5.0
    min_body_bytes_per_s: float = 1024.0
    drain_timeout_s: float = 10.0
    drain_grace_s: float = 0.0
    trace_project: str = "default"
    trace_environment: str = ""
    otlp_spans: str = "all"

    def __post_init__(self) -> None:
        if self.keys_file is not None:
            if not self.keys_file.exists():
                raise ConfigError(
                    f"there is no key file {self.keys_file}: `callmeter keys create` makes it"
                )
            self.keys.replace_filed(grants_of(read_keys(self.keys_file)))
        if not self.keys.usable and not is_loopback(self.host):
            raise ConfigError(
                f"the collector does not listen on {self.host} without API keys: configure "
                f"key:project or a key file (callmeter keys create), or listen on {DEFAULT_HOST}"
            )
        for rate in (self.rate_envelopes_per_s, self.rate_bytes_per_s):
            if rate is not None and rate <= 0:
                raise ConfigError("the collector's rate limits are positive numbers per second")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ConfigError("TLS needs a certificate and its key: --tls-cert and --tls-key")
        if self.otlp_spans not in ("all", "genai"):
            raise ConfigError("which OTLP spans are stored is 'all' or 'genai'")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
