"""Where the Monitor hook posts to: base URL and key, under the names Synalinks has for them."""

from __future__ import annotations

import os

DEFAULT_API_BASE = "http://localhost:4248"


class _Endpoint:
    """What ``set_api_base`` and ``set_api_key`` said; None: the environment decides."""

    __slots__ = ("base", "key")

    def __init__(self) -> None:
        self.base: str | None = None
        self.key: str | None = None


_endpoint = _Endpoint()


def api_base() -> str:
    """The base URL: what was set, else ``SYNALINKS_API_BASE``, else the local collector."""
    return _endpoint.base or os.environ.get("SYNALINKS_API_BASE") or DEFAULT_API_BASE


def set_api_base(url: str | None) -> None:
    """Monitors made from now on post to ``url`` + ``/trace``; None takes the setting back."""
    _endpoint.base = url.rstrip("/") if url else None


def api_key() -> str | None:
    """The key: what was set, else ``SYNALINKS_API_KEY``."""
    return _endpoint.key or os.environ.get("SYNALINKS_API_KEY") or None


def set_api_key(key: str | None) -> None:
    """Monitors made from now on send ``key`` verbatim as ``Authorization``; None takes it back."""
    _endpoint.key = key
