"""LangChain and LangGraph, the real libraries: their runs become a tree of calls, billed once."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Annotated, Any, TypedDict

import openai
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.documents import Document
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import interrupt

import callmeter
from callmeter.integrations.langchain import CallmeterCallback
from callmeter.testing import Capture, capture
from support.openai_stub import COMPLETION_TOKENS, PROMPT_TOKENS, OpenAIStub

USAGE = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}


@pytest.fixture
def kept() -> Iterator[Capture]:
    with capture() as kept, callmeter.instrument("langchain"):
        yield kept


def model(**fields: Any) -> GenericFakeChatModel:
    answers = iter([AIMessage(content="a long answer", usage_metadata=USAGE) for _ in range(9)])
    return GenericFakeChatModel(messages=answers, **fields)


class OverOpenAI(BaseChatModel):
    """As LangChain's own models are made: over the provider's client."""

    client: Any
    name_of_model: str = "gpt-4o-mini"

    @property
    def _llm_type(self) -> str:
        return "over-openai"

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": self.name_of_model}

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        reply = self.client.chat.completions.create(
            model=self.name_of_model, messages=[{"role": "user", "content": "?"}]
        )
        used = {
            "input_tokens": reply.usage.prompt_tokens,
            "output_tokens": reply.usage.completion_tokens,
            "total_tokens": reply.usage.total_tokens,
        }
        message = AIMessage(
            content=reply.choices[0].message.content,
            usage_metadata=used,
            response_metadata={"finish_reason": "stop", "model_name": "gpt-4o-mini-2024-07-18"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


@tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


class Said(TypedDict):
    """The state of the graphs here."""

    said: Annotated[list[Any], operator.add]


def graph(checkpointer: Any = None, **nodes: Any) -> Any:
    """Nodes in a row."""
    made: Any = StateGraph(Said)
    before = START
    for name, node in nodes.items():
        made.add_node(name, node)
        made.add_edge(before, name)
        before = name
    made.add_edge(before, END)
    return made.compile(checkpointer=checkpointer)


def span(call: dict[str, Any]) -> str:
    """A call's span id: the low 8 bytes of its id."""
    return str(call["call_id"]).replace("-", "")[16:]


def named(kept: Capture) -> dict[str, dict[str, Any]]:
    return {call.get("name") or call["operation"]: call for call in kept.calls}


def thinks(state: Any) -> Any:
    model().invoke("q")
    return {"said": [add.invoke({"a": 1, "b": 2})]}


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_graph_is_a_tree(kept: Capture, asynchronous: bool) -> None:
    async def thinks_too(state: Any) -> Any:
        await model().ainvoke("q")
        return {"said": [await add.ainvoke({"a": 1, "b": 2})]}

    config = {"metadata": {"user_id": "u-1"}, "configurable": {"thread_id": "t-1"}}
    made = graph(think=thinks_too if asynchronous else thinks)
    if asynchronous:
        await made.ainvoke({"said": []}, config=config)
    else:
        made.invoke({"said": []}, config=config)
    calls = named(kept)
    assert {name: call["operation"] for name, call in calls.items()} == {
        "LangGraph": "program", "think": "node", "add": "execute_tool", "chat": "chat",
    }  # fmt: skip
    ids = {name: span(call) for name, call in calls.items()}
    parents = {name: call.get("parent_span_id") for name, call in calls.items()}
    assert parents == {
        "LangGraph": None, "think": ids["LangGraph"], "add": ids["think"], "chat": ids["think"],
    }  # fmt: skip
    assert len({call["trace_id"] for call in kept.calls}) == 1
    assert {call["user"] for call in kept.calls} == {"u-1"}
    assert {call["session"] for call in kept.calls} == {"t-1"}
    assert calls["chat"]["usage"] == {"input": 10, "output": 5}
    assert calls["chat"]["node"] == "think"
    assert all("cost_pico" not in call for call in kept.calls)


def test_branches_at_the_same_time_keep_their_own_calls(kept: Capture) -> None:
    made: Any = StateGraph(Said)
    for name in ("left", "right"):
        made.add_node(name, thinks)
        made.add_edge(START, name)
        made.add_edge(name, END)
    made.compile().invoke({"said": []})
    nodes = {span(call): call["name"] for call in kept.calls if call["operation"] == "node"}
    chats = [call for call in kept.calls if call["operation"] == "chat"]
    assert sorted(nodes.values()) == ["left", "right"]
    assert {nodes[call["parent_span_id"]]: call["node"] for call in chats} == {
        "left": "left", "right": "right",
    }  # fmt: skip


def test_the_calls_of_a_run_belong_to_the_program_around_it(kept: Capture) -> None:
    @callmeter.track(name="mine")
    def mine() -> None:
        graph(think=thinks).invoke({"said": []})

    mine()
    calls = named(kept)
    assert calls["LangGraph"]["parent_span_id"] == span(calls["mine"])


def test_a_stream_knows_its_first_token_and_an_abandoned_one_is_cancelled(kept: Capture) -> None:
    assert "".join(str(piece.content) for piece in model().stream("q")) == "a long answer"
    abandoned = model().stream("q")
    next(abandoned)
    abandoned.close()
    whole, left = kept.calls
    assert "ttft_us" in whole
    assert whole["status"] == "ok"
    assert left["status"] == "cancelled"


def test_over_an_instrumented_client_the_client_s_call_is_billed(kept: Capture) -> None:
    with OpenAIStub() as stub, callmeter.instrument("openai"):
        client = openai.OpenAI(base_url=stub.base_url, api_key="k")
        graph(think=lambda state: {"said": [OverOpenAI(client=client).invoke("q")]}).invoke(
            {"said": []}
        )
    calls = {call["operation"]: call for call in kept.calls}
    assert set(calls) == {"program", "node", "invoke_model", "chat"}
    assert "usage" not in calls["invoke_model"]
    assert calls["chat"]["usage"]["input"] == PROMPT_TOKENS
    assert calls["chat"]["usage"]["output"] == COMPLETION_TOKENS
    assert calls["chat"]["parent_span_id"] == span(calls["invoke_model"])
    assert calls["invoke_model"]["parent_span_id"] == span(calls["node"])
    assert len({call["trace_id"] for call in kept.calls}) == 1


def test_without_the_client_s_instrument_langchain_s_own_call_is_billed(kept: Capture) -> None:
    with OpenAIStub() as stub:
        client = openai.OpenAI(base_url=stub.base_url, api_key="k")
        OverOpenAI(client=client).invoke("q")
    (call,) = kept.calls
    assert (call["model"], call["provider"]) == ("gpt-4o-mini", "openai")
    assert (call["finish_reason"], call["response_model"]) == ("stop", "gpt-4o-mini-2024-07-18")
    assert call["usage"] == {"input": PROMPT_TOKENS, "output": COMPLETION_TOKENS}


def test_an_answer_from_the_cache_costs_nothing(kept: Capture) -> None:
    with OpenAIStub() as stub:
        cached = OverOpenAI(client=openai.OpenAI(base_url=stub.base_url, api_key="k"))
        cached.cache = InMemoryCache()
        cached.invoke("q")
        cached.invoke("q")
        assert len(stub.requests) == 1
    asked, found = kept.calls
    assert asked["usage"] == {"input": PROMPT_TOKENS, "output": COMPLETION_TOKENS}
    assert found["usage"] == {"input": 0, "output": 0}
    assert found["cost_pico"] == "0"
    assert found["attributes"]["cache_hit"] == "true"


def test_failures_are_told_where_they_happen_and_an_interrupt_is_none(kept: Capture) -> None:
    def fails(state: Any) -> Any:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        graph(fail=fails).invoke({"said": []})
    assert {c["name"]: c["status"] for c in kept.calls} == {"fail": "error", "LangGraph": "error"}
    before = len(kept.calls)
    asks = graph(InMemorySaver(), ask=lambda state: {"said": [interrupt("sure?")]})
    asks.invoke({"said": []}, config={"configurable": {"thread_id": "t"}})
    assert {c["name"]: c["status"] for c in kept.calls[before:]} == {
        "ask": "ok", "LangGraph": "ok",
    }  # fmt: skip


class Shelf(BaseRetriever):
    """One document."""

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(page_content=query)]


@pytest.mark.parametrize(
    ("every_chain", "operations"),
    [(False, ["retrieval", "program"]), (True, ["chain", "retrieval", "program"])],
)
def test_a_retriever_and_every_chain_if_asked(every_chain: bool, operations: list[str]) -> None:
    chain = RunnableLambda(lambda x: x) | Shelf()
    with capture() as kept:
        chain.invoke("q", config={"callbacks": [CallmeterCallback(every_chain=every_chain)]})
        assert [c["operation"] for c in kept.calls] == operations


def test_taken_out_it_meters_nothing_and_it_can_be_put_in_again(kept: Capture) -> None:
    with callmeter.instrument("langchain") as again:
        assert again.names == ()
    undo = callmeter.instrument()
    undo()
    callmeter.integrations._installed.pop("langchain")()
    model().invoke("q")
    assert kept.calls == []
    with callmeter.instrument("langchain"):
        model().invoke("q")
    assert len(kept.calls) == 1


def test_runs_whose_end_is_never_told_do_not_stay(
    kept: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("callmeter.integrations.langchain.MAX_OPEN", 2)
    streams = [model().stream("q") for _ in range(4)]
    for stream in streams:
        next(stream)
    assert [call["status"] for call in kept.calls] == ["cancelled", "cancelled"]
