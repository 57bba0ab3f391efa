"""The LangChain callback (rows 104 and 105), by hand and with LangChain's own machinery."""

from __future__ import annotations

from uuid import uuid4

import pytest
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, LLMResult

from callmeter.compat.sygra import MetadataTrackingCallback

USAGE = {"token_usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}


def result(llm_output):
    generation = ChatGeneration(message=AIMessage(content="answer"))
    return LLMResult(generations=[[generation]], llm_output=llm_output)


def models(collector):
    return collector.get_metadata_summary()["models"]


async def ask(callback, llm_output=None, error=None):
    run_id = uuid4()
    await callback.on_llm_start(serialized={}, prompts=["question"], run_id=run_id)
    if error is None:
        await callback.on_llm_end(result(llm_output), run_id=run_id)
    else:
        await callback.on_llm_error(error, run_id=run_id)


@pytest.mark.acceptance(104)
async def test_an_agent_s_calls(collector, captured):
    callback = MetadataTrackingCallback(model_name="gpt-4o")
    await ask(callback, USAGE)
    block = models(collector)["gpt-4o"]
    statistics = block["token_statistics"]
    assert statistics["total_prompt_tokens"] == 10
    assert statistics["total_completion_tokens"] == 5
    assert statistics["total_tokens"] == 15
    assert block["response_code_distribution"] == {"200": 1}
    for without in (None, {}):
        await ask(callback, without)
    block = models(collector)["gpt-4o"]
    assert block["performance"]["total_requests"] == 3
    assert block["token_statistics"]["total_tokens"] == 15
    await ask(callback, error=ValueError("no"))
    block = models(collector)["gpt-4o"]
    assert block["response_code_distribution"] == {"200": 3, "999": 1}
    assert block["performance"]["total_failures"] == 1
    assert "usage" not in captured.calls[1]
    assert captured.calls[3]["error_type"] == "ValueError"
    assert callback.call_start_times == {}


@pytest.mark.acceptance(105)
async def test_a_callback_without_a_name(collector, captured):
    callback = MetadataTrackingCallback()
    await ask(callback, {**USAGE, "model_name": "gpt-4o-mini"})
    assert list(models(collector)) == ["gpt-4o-mini"]
    assert captured.calls[0]["model"] == "gpt-4o-mini"
    named = MetadataTrackingCallback("mine")
    await ask(named, {**USAGE, "model_name": "gpt-4o-mini"})
    assert list(models(collector)) == ["gpt-4o-mini", "mine"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_with_langchain_s_own_machinery(collector, captured, asynchronous):
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
    message = AIMessage(content="answer", usage_metadata=usage)
    chat = GenericFakeChatModel(messages=iter([message]))
    config = {"callbacks": [MetadataTrackingCallback(model_name="gpt-4o")]}
    if asynchronous:
        await chat.ainvoke("question", config=config)
    else:
        chat.invoke("question", config=config)
    block = models(collector)["gpt-4o"]
    assert block["performance"]["total_requests"] == 1
    assert block["token_statistics"]["total_tokens"] == 15
    (call,) = captured.calls
    assert call["usage"] == {"input": 10, "output": 5}


async def test_while_disabled_nothing_is_recorded(collector, captured):
    collector.set_enabled(False)
    callback = MetadataTrackingCallback(model_name="gpt-4o")
    await ask(callback, USAGE)
    await ask(callback, error=ValueError())
    assert models(collector) == {}
    assert captured.events == []
