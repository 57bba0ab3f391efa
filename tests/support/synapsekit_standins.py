"""Stand-ins for what SynapseKit's programs bring along: a model, a store, a retrieval pipeline.

The model counts its tokens over all calls, as SynapseKit's do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any


@dataclass
class LLMConfig:
    model: str = "gpt-4o-mini"
    api_key: str = "sk-none"
    provider: str = "openai"


class StubLLM:
    """Answers from ``script``: (answer, input tokens, output tokens), the last one for ever, or an
    exception to raise. ``asked`` holds what it was given.
    """

    def __init__(self, *script: Any, config: LLMConfig | None = None) -> None:
        self.config = config or LLMConfig()
        self.script = list(script) or [("an answer", 12, 38)]
        self.asked: list[tuple[Any, dict[str, Any]]] = []
        self.closed_streams = 0
        self.while_asked: Callable[[], Awaitable[None]] | None = None
        self._input = self._output = 0

    @property
    def tokens_used(self) -> dict[str, int]:
        return {"input": self._input, "output": self._output}

    async def generate(self, prompt: Any, **kwargs: Any) -> str:
        return "".join([chunk async for chunk in self.stream(prompt, **kwargs)])

    async def stream(self, prompt: Any, **kwargs: Any) -> AsyncIterator[str]:
        self.asked.append((prompt, kwargs))
        turn = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if self.while_asked is not None:
            await self.while_asked()
        else:
            await asyncio.sleep(0)
        if isinstance(turn, BaseException):
            raise turn
        answer, tokens_in, tokens_out = turn
        try:
            for word in answer.split(" "):
                yield word + " "
        except GeneratorExit:
            self.closed_streams += 1
            raise
        self._input += tokens_in
        self._output += tokens_out

    async def generate_with_messages(self, messages: Any, **kwargs: Any) -> str:
        return await self.generate(messages, **kwargs)

    async def stream_with_messages(self, messages: Any, **kwargs: Any) -> AsyncIterator[str]:
        async for chunk in self.stream(messages, **kwargs):
            yield chunk

    async def call_with_tools(self, messages: Any, tools: Any) -> dict[str, Any]:
        return {"content": await self.generate(messages), "tool_calls": tools}

    def cache_stats(self) -> dict[str, int]:
        return {"hits": 3}


class OpenAILLM(StubLLM):
    """Built as the document builds it: from a configuration alone."""

    def __init__(self, config: LLMConfig) -> None:
        super().__init__(config=config)


class InMemoryVectorStore:
    def __init__(self, embeddings: Any = None) -> None:
        self.texts: list[str] = []


class SynapsekitEmbeddings:
    pass


@dataclass
class RAGConfig:
    llm: Any
    vector_store: Any


class RAG:
    """Asks its model about what it was told."""

    def __init__(self, config: RAGConfig) -> None:
        self.config = config

    async def aadd(self, texts: list[str]) -> int:
        self.config.vector_store.texts += texts
        return len(texts)

    async def aquery(self, question: str) -> str:
        known = " ".join(self.config.vector_store.texts)
        return str(await self.config.llm.generate(f"{known}\n{question}"))
