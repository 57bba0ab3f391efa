"""Programs that the Monitor hook watches, and the endpoint it is told of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from callmeter.compat import synalinks
from callmeter.compat.synalinks.hooks import Monitor
from support import synalinks_standins as engine
from support.trace_endpoint import TraceEndpoint


@pytest.fixture(autouse=True)
def own_endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees another's base URL or key."""
    monkeypatch.delenv("SYNALINKS_API_BASE", raising=False)
    monkeypatch.delenv("SYNALINKS_API_KEY", raising=False)
    yield
    synalinks.set_api_base(None)
    synalinks.set_api_key(None)


@pytest.fixture
def base(endpoint: TraceEndpoint) -> TraceEndpoint:
    """The endpoint, as the configured base URL."""
    synalinks.set_api_base(endpoint.url)
    return endpoint


def watched(work: Any = None, **more: Any) -> engine.Program:
    return engine.Program(work, name="answer", description="Answers.", hooks=[Monitor(**more)])


async def echo(*args: Any) -> Any:
    return args[0] if args else None
