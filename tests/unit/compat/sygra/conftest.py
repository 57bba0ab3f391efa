"""A collector that starts from nothing, in a directory of its own, over a capturing client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from callmeter.compat.sygra import (
    MetadataCollector,
    TokenUsage,
    get_metadata_collector,
    track_model_request,
)
from callmeter.testing import Capture, capture


@pytest.fixture(autouse=True)
def captured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Capture]:
    """What the program meters; no switch is set, and files go to a temporary directory."""
    monkeypatch.delenv("SYGRA_DISABLE_METADATA", raising=False)
    monkeypatch.delenv("CALLMETER_DISABLED", raising=False)
    monkeypatch.chdir(tmp_path)
    collector = get_metadata_collector()
    collector.set_enabled(None)
    collector.reset()
    with capture() as it:
        yield it
    collector.set_enabled(None)
    collector.reset()


@pytest.fixture
def collector() -> MetadataCollector:
    return get_metadata_collector()


class Model(TokenUsage):
    """A model of a user's own. ``answers`` are (answer, code) pairs or exceptions, in turn."""

    def __init__(self, name: str = "gpt-4o-mini", kind: str = "OpenAI", **config: Any) -> None:
        self._name = name
        self.model_config = {"type": kind, "url": "https://api.openai.com/v1", **config}
        self.answers: list[Any] = []

    def name(self) -> str:
        return self._name

    @track_model_request
    def ask(self, prompt: str) -> tuple[Any, int]:
        """Ask at once."""
        return self._next()

    @track_model_request
    async def ask_async(self, prompt: str) -> tuple[Any, int]:
        """Ask in a task."""
        return self._next()

    def _next(self) -> tuple[Any, int]:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        self._extract_token_usage(answer[0])
        return answer


def reply(prompt: int, completion: int) -> SimpleNamespace:
    """An answer of an OpenAI-compatible server."""
    return SimpleNamespace(
        usage=SimpleNamespace(
            prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
        )
    )


@pytest.fixture
def model() -> Model:
    return Model()
