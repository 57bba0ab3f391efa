"""Record type of the topic ``live``: a project's running windows by model.

The contract is docs/reference/formats.md, "Live".
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

LIVE_VERSION = 1


class LiveModel(Struct, kw_only=True, omit_defaults=True):
    """One model in one window. Latencies in microseconds, absent if none was measured."""

    provider: str = ""
    model: str = ""
    calls: int = 0
    failures: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_pico: str = "0"
    unpriced: int = 0
    usage_unknown: int = 0
    latency_p50_us: int | UnsetType = UNSET
    latency_p95_us: int | UnsetType = UNSET
    latency_p99_us: int | UnsetType = UNSET


class LiveWindow(Struct, kw_only=True):
    """One window, by model in the order of names."""

    window: Literal["minute", "hour", "day"]
    start_us: int
    models: list[LiveModel]


class LiveOpen(Struct, kw_only=True):
    """Calls that have begun and not ended, as far as their begin was announced."""

    provider: str
    model: str
    open: int


class LiveProject(Struct, kw_only=True):
    """One project: its newest minutes, hours and days, and its open calls."""

    v: int = LIVE_VERSION
    log: str
    project: str
    at_us: int
    windows: list[LiveWindow]
    open: list[LiveOpen]


_decoder = msgspec.json.Decoder(LiveProject)


def decode_live(value: bytes) -> LiveProject:
    """A record of the topic. ``msgspec.DecodeError`` if it is none."""
    return _decoder.decode(value)
