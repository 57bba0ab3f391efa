"""Settings of the collector."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

from callmeter.collector.keys import KeyRing
from callmeter.errors import ConfigError
from callmeter.schema.envelope import MAX_BYTES

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 4248


@dataclass(frozen=True, slots=True)
class CollectorConfig:
    """Where to listen, who may write, and how much.

    ``rate_envelopes_per_s`` and ``burst_envelopes`` bound each key; None is no bound.
    ``max_bodies_bytes`` bounds what all requests in hand hold together; beyond it they are told to
    come back (503). ``append_timeout_s`` is how long the log may take. ``trace_project`` is the
    project of the Monitor hook's traces where its key does not name exactly one.
    """

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    keys: KeyRing = field(default_factory=KeyRing)
    max_body_bytes: int = 8 * 2**20
    max_envelope_bytes: int = MAX_BYTES
    max_bodies_bytes: int = 256 * 2**20
    rate_envelopes_per_s: float | None = None
    burst_envelopes: float | None = None
    append_timeout_s: float = 15.0
    body_timeout_s: float = 30.0
    drain_timeout_s: float = 10.0
    trace_project: str = "default"
    trace_environment: str = ""

    def __post_init__(self) -> None:
        if not self.keys and not is_loopback(self.host):
            raise ConfigError(
                f"the collector does not listen on {self.host} without API keys: configure "
                f"key:project, or listen on {DEFAULT_HOST}"
            )
        if self.rate_envelopes_per_s is not None and self.rate_envelopes_per_s <= 0:
            raise ConfigError("the collector's rate limit is a positive number of envelopes/s")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
