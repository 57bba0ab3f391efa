"""The same model calls, made through every interface that makes model calls.

Each function makes the calls it is given, in its users' own way, and says what the interface itself
tells of them. (Syvain's interface has experiments, series and notes, and no model calls.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

import callmeter
from callmeter.compat import synalinks, synapsekit
from callmeter.compat.sygra import get_metadata_collector, track_model_request
from callmeter.integrations.langchain import CallmeterCallback
from support.synalinks_standins import DataModel, LanguageModel, Program, Reply
from support.synapsekit_standins import LLMConfig, StubLLM

PROVIDER = "openai"


@dataclass(frozen=True, slots=True)
class Ask:
    """One call of a model: what it uses, or that it fails."""

    model: str
    input: int
    output: int
    fails: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What an interface says of its calls, in its own process; None where it has no such figure."""

    calls: int | None
    input: int
    output: int
    cost_usd: Decimal | None = None


class DownError(Exception):
    """What a provider's client raises."""


def by_sdk(asks: Sequence[Ask]) -> Told:
    """Callmeter's own call."""
    before = callmeter.stats().accepted
    for ask in asks:
        try:
            with callmeter.generation("answer", model=ask.model, provider=PROVIDER) as call:
                if ask.fails:
                    raise DownError
                call.usage(ask.input, ask.output)
        except DownError:
            continue
    return Told(callmeter.stats().accepted - before, *_tokens(asks))


def by_langchain(asks: Sequence[Ask]) -> Told:
    """LangChain's models with the callback."""
    config: Any = {"callbacks": [CallmeterCallback()]}
    tokens = [0, 0]
    for ask in asks:
        try:
            answer = ChainModel(ask=ask).invoke("q", config=config)
        except DownError:
            continue
        assert answer.usage_metadata is not None
        tokens[0] += answer.usage_metadata["input_tokens"]
        tokens[1] += answer.usage_metadata["output_tokens"]
    return Told(None, *tokens)


class ChainModel(BaseChatModel):
    """A chat model that does what it was told to."""

    ask: Any

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": PROVIDER, "ls_model_name": self.ask.model}

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        if self.ask.fails:
            raise DownError
        used: Any = {
            "input_tokens": self.ask.input,
            "output_tokens": self.ask.output,
            "total_tokens": self.ask.input + self.ask.output,
        }
        message = AIMessage(content="an answer", usage_metadata=used)
        return ChatResult(generations=[ChatGeneration(message=message)])


def by_sygra(asks: Sequence[Ask]) -> Told:
    """SyGra's decorator; its summary counts the model's requests."""
    collector = get_metadata_collector()
    collector.reset()
    for ask in asks:
        try:
            _Tracked(ask.model).request(ask)
        except DownError:
            continue
    blocks = collector.get_metadata_summary()["models"].values()
    told = Told(
        sum(block["performance"]["total_requests"] for block in blocks),
        sum(block["token_statistics"]["total_prompt_tokens"] for block in blocks),
        sum(block["token_statistics"]["total_completion_tokens"] for block in blocks),
    )
    collector.reset()
    return told


class _Tracked:
    def __init__(self, name: str) -> None:
        self._name = name
        self.model_config = {"type": "OpenAI", "url": "https://api.openai.com/v1"}

    def name(self) -> str:
        return self._name

    @track_model_request
    def request(self, ask: Ask) -> tuple[Any, int]:
        if ask.fails:
            raise DownError
        usage = {"prompt_tokens": ask.input, "completion_tokens": ask.output}
        return {"usage": {**usage, "total_tokens": ask.input + ask.output}}, 200


def by_synalinks(asks: Sequence[Ask]) -> Told:
    """Synalinks' language models; its metrics count them. The engine swallows failures."""
    models = {
        name: LanguageModel(f"{PROVIDER}/{name}", retry=1)
        for name in sorted({ask.model for ask in asks})
    }

    async def run() -> None:
        with synalinks.op_scope("inference"):
            for ask in asks:
                reply = DownError() if ask.fails else Reply(ask.input, ask.output)
                models[ask.model].script = [reply]
                await models[ask.model](DataModel(q=1))

    program = Program(modules=list(models.values()))
    read = [synalinks.metrics.InputTokens(), synalinks.metrics.OutputTokens()]
    with synalinks.instrument():
        for metric in read:
            metric.bind_program(program)
        asyncio.run(run())
        return Told(None, *(int(metric.result()) for metric in read))


def by_synapsekit(asks: Sequence[Ask]) -> Told:
    """SynapseKit's tracer and cost tracker around a model; their records are of answered calls."""

    async def run() -> None:
        for ask in asks:
            llm = StubLLM(
                DownError() if ask.fails else ("an answer", ask.input, ask.output),
                config=LLMConfig(model=ask.model, provider=PROVIDER),
            )
            tracker = synapsekit.CostTracker(llm)
            tracer = synapsekit.TokenTracer(tracker)
            trackers.append(tracker)
            try:
                await tracer.generate("q")
            except DownError:
                continue
            used = tracer.tokens_used
            assert used["total"] == used["input"] + used["output"]
            tokens[0] += used["input"]
            tokens[1] += used["output"]

    tokens = [0, 0]
    trackers: list[synapsekit.CostTracker] = []
    asyncio.run(run())
    records = [record for tracker in trackers for record in tracker.records]
    cost = sum((Decimal(repr(record.total_cost_usd)) for record in records), Decimal())
    return Told(len(records), *tokens, cost)


def _tokens(asks: Sequence[Ask]) -> tuple[int, int]:
    answered = [ask for ask in asks if not ask.fails]
    return sum(ask.input for ask in answered), sum(ask.output for ask in answered)


FACADES: dict[str, Callable[[Sequence[Ask]], Told]] = {
    "sdk": by_sdk,
    "langchain": by_langchain,
    "sygra": by_sygra,
    "synalinks": by_synalinks,
    "synapsekit": by_synapsekit,
}
