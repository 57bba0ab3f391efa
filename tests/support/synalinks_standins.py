"""A small engine with Synalinks' shape: modules, programs, models with retries and fallbacks.

It knows nothing of callmeter. Tests put it where ``import synalinks`` finds it (fixture
``synalinks_engine``), or hand it over. Models answer from a script instead of a provider.
"""

from __future__ import annotations

import asyncio
import sys
import types
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest


class DataModel:
    """A value with a schema."""

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    def get_json(self) -> dict[str, Any]:
        return dict(self._fields)

    def get_schema(self) -> dict[str, Any]:
        return {"title": type(self).__name__, "properties": sorted(self._fields)}


class SymbolicDataModel:
    """A value to come: a schema only."""

    def __init__(self, title: str) -> None:
        self._title = title

    def get_schema(self) -> dict[str, Any]:
        return {"title": self._title}


class Module:
    """A unit of a program; ``call`` does its work. Tells its hooks, as the engine does."""

    def __init__(
        self, name: str | None = None, description: str = "", hooks: list[Any] | None = None
    ) -> None:
        self.name = name or type(self).__name__.lower()
        self.description = description
        self.hooks = list(hooks or ())
        self.modules: list[Module] = []
        for hook in self.hooks:
            hook.set_module(self)

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call_id = str(uuid.uuid4())
        for hook in self.hooks:
            hook.on_call_begin(call_id=call_id, inputs=args)
        try:
            outputs = await self.call(*args, **kwargs)
        except Exception as exc:
            for hook in self.hooks:
                hook.on_call_end(call_id=call_id, exception=str(exc))
            raise
        for hook in self.hooks:
            hook.on_call_end(call_id=call_id, outputs=outputs)
        return outputs

    async def call(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if args else None


class Program(Module):
    """A module made of a function and the modules it uses."""

    def __init__(
        self,
        work: Callable[..., Awaitable[Any]] | None = None,
        modules: list[Module] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.work = work
        self.modules = list(modules or ())
        self.stop_training = False

    async def call(self, *args: Any, **kwargs: Any) -> Any:
        return await self.work(*args, **kwargs) if self.work is not None else None

    async def fit(self, batches: list[Any], callbacks: list[Any]) -> int:
        """Train: one call a batch; how many batches were run."""
        for callback in callbacks:
            callback.set_program(self)
            callback.on_train_begin()
        for number, batch in enumerate(batches):
            await self(batch)
            for callback in callbacks:
                callback.on_train_batch_end(number)
            if self.stop_training:
                return number + 1
        return len(batches)


class Generator(Module):
    """A module that asks a language model."""

    def __init__(self, language_model: LanguageModel, **more: Any) -> None:
        super().__init__(**more)
        self.language_model = language_model

    async def call(self, *args: Any, **kwargs: Any) -> Any:
        return await self.language_model(*args, **kwargs)


class Reply:
    """What the provider answers: usage, cost, what to do meanwhile, chunks of a stream."""

    def __init__(
        self,
        prompt: int = 0,
        completion: int = 0,
        *,
        cost: float | None = None,
        cached: int = 0,
        reasoning: int = 0,
        vectors: int = 0,
        meanwhile: Callable[[], Awaitable[None]] | None = None,
        chunks: Callable[[], Any] | None = None,
    ) -> None:
        self.prompt = prompt
        self.completion = completion
        self.cost = cost
        self.cached = cached
        self.reasoning = reasoning
        self.vectors = vectors
        self.meanwhile = meanwhile
        self.chunks = chunks


class _Model(Module):
    """Answers from a script: a ``Reply``, or an exception for one attempt that fails."""

    def __init__(
        self,
        model: str = "openai/gpt-4o-mini",
        script: list[Reply | Exception] | None = None,
        *,
        retry: int = 3,
        fallback: Any = None,
        cache: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self.model = model
        self.script = list(script or ())
        self.retry = retry
        self.fallback = fallback
        self.attempts = 0
        self.last_call_cost: float | None = 0.0
        self.last_call_prompt_tokens = 0
        self.last_call_completion_tokens = 0
        self.last_call_cached_tokens = 0
        self.last_call_reasoning_tokens = 0
        self.last_call_vectors = 0
        self._cache: dict[str, Any] | None = {} if cache else None

    def get_config(self) -> dict[str, Any]:
        return {"model": self.model, "retry": self.retry}

    def _record_event(self, suffix: str) -> None:
        """The engine counts events of its own here."""

    async def call(self, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(arg, SymbolicDataModel) for arg in args):
            return SymbolicDataModel("answer")
        key = repr([arg.get_json() for arg in args if arg is not None])
        if self._cache is not None and key in self._cache:
            self._record_event("cache_hits")
            return self._cache[key]
        try:
            answer = await self._call_with_retry(*args)
        except Exception:  # noqa: BLE001  # the engine swallows what its retries could not mend
            self._record_event("failed_calls")
            if self.fallback is None:
                return None
            self._record_event("fallback_activations")
            return await self.fallback(*args, **kwargs)
        if self._cache is not None:
            self._cache[key] = answer
        return answer

    async def _call_with_retry(self, *args: Any) -> Any:
        for attempt in range(self.retry):
            try:
                return await self._attempt()
            except Exception:
                if attempt == self.retry - 1:
                    raise
        raise AssertionError("no attempt was made")

    async def _attempt(self) -> Any:
        self.attempts += 1
        reply = self.script.pop(0)
        if isinstance(reply, Exception):
            raise reply
        if reply.meanwhile is not None:
            await reply.meanwhile()
        if reply.chunks is not None:
            return reply.chunks()
        if reply.cost is not None:
            self.last_call_cost = reply.cost
        self.last_call_prompt_tokens = reply.prompt
        self.last_call_completion_tokens = reply.completion
        self.last_call_cached_tokens = reply.cached
        self.last_call_reasoning_tokens = reply.reasoning
        self.last_call_vectors = reply.vectors
        return DataModel(role="assistant", content="Paris")


class LanguageModel(_Model):
    """A chat model."""


class EmbeddingModel(_Model):
    """A model that makes vectors."""


class Gate:
    """Lets calls overlap: all wait until ``opened`` is set."""

    def __init__(self, parties: int) -> None:
        self._parties = parties
        self._arrived = 0
        self._all_here = asyncio.Event()
        self.opened = asyncio.Event()

    async def wait(self) -> None:
        self._arrived += 1
        if self._arrived == self._parties:
            self._all_here.set()
        await self.opened.wait()

    async def all_here(self) -> None:
        await self._all_here.wait()


@pytest.fixture
def synalinks_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """These classes as the installed ``synalinks``; no metering of another test, none is left."""
    from callmeter.compat import synalinks

    metered = synalinks.engine._patches.replaced
    synalinks.engine.Attached(tuple(metered))()

    engine = types.ModuleType("synalinks")
    for cls in (Module, Program, Generator, LanguageModel, EmbeddingModel, DataModel):
        setattr(engine, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "synalinks", engine)
    yield engine
    synalinks.disable_observability()
    synalinks.stop_recording()
    synalinks.engine.Attached(tuple(metered))()
