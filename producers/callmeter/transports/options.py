"""What a transport may be told beside its URL."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

#: ``auto`` means: zstd where its codec is installed, else gzip; over HTTP to this machine, none.
COMPRESSIONS = ("auto", "zstd", "lz4", "gzip", "none")


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """Settings of every transport; each uses what concerns it. ``repr`` shows no secret.

    ``timeout_s`` bounds how long an envelope may stay unanswered before it is reported as RETRY.
    ``max_in_flight_bytes`` bounds what a transport holds; beyond it ``send`` returns False.
    ``prefix`` is Kafka's topic prefix where the URL names none. ``ca_file`` verifies a collector's
    certificate instead of the system's authorities. ``environ`` is where proxies and
    ``CALLMETER_KAFKA_*`` are looked up.
    """

    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 10.0
    compression: str = "auto"
    prefix: str | None = None
    max_in_flight_bytes: int = 16 * 2**20
    ca_file: str | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
