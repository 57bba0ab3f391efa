"""The real LiteLLM against a local stub, alone and over an instrumented OpenAI client.

LiteLLM pins an older client of OpenAI's, so it is run in an environment of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

import callmeter
from callmeter.testing import Capture, capture
from support.openai_stub import ANSWER, OpenAIStub

litellm = pytest.importorskip("litellm")

pytestmark = pytest.mark.filterwarnings("ignore")  # its own

MESSAGES = [{"role": "user", "content": "What is the answer?"}]
USAGE = {"input": 12, "output": 7, "cache_read": 4, "reasoning": 2}


@pytest.fixture
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as it:
        yield it


@pytest.fixture
def captured() -> Iterator[Capture]:
    with capture(record_inputs=True, record_outputs=True) as it, callmeter.instrument("litellm"):
        yield it


def ask(stub: OpenAIStub, **more: Any) -> dict[str, Any]:
    return {
        "model": "openai/gpt-4o-mini",
        "messages": MESSAGES,
        "api_base": stub.base_url,
        "api_key": "k",
        "max_retries": 0,
        **more,
    }


def calls(captured: Capture, count: int = 1) -> list[dict[str, Any]]:
    """LiteLLM tells of the end in a thread of its own, a little later."""
    deadline_s = time.monotonic() + 20
    while len(found := captured.calls) < count:
        assert time.monotonic() < deadline_s, found
        time.sleep(0.02)
    return found


def test_a_completion(stub: OpenAIStub, captured: Capture) -> None:
    reply = litellm.completion(**ask(stub, user="u1"))
    assert reply.choices[0].message.content == ANSWER
    (event,) = calls(captured)
    assert (event["provider"], event["model"]) == ("openai", "gpt-4o-mini")
    assert (event["operation"], event["status"]) == ("chat", "ok")
    assert event["usage"] == USAGE
    assert event["user"] == "u1"
    assert event["inputs"] == MESSAGES


def test_a_stream(stub: OpenAIStub, captured: Capture) -> None:
    told = {"include_usage": True}
    for _ in litellm.completion(**ask(stub, stream=True, stream_options=told)):
        pass
    (event,) = calls(captured)
    assert (event["usage"]["input"], event["usage"]["output"]) == (12, 7)
    assert event["ttft_us"] >= 0


def test_embeddings(stub: OpenAIStub, captured: Capture) -> None:
    litellm.embedding(
        model="openai/text-embedding-3-small", input=["x"], api_base=stub.base_url, api_key="k"
    )
    (event,) = calls(captured)
    assert event["operation"] == "embeddings"
    assert event["usage"]["input"] == 12


def test_a_failure(stub: OpenAIStub, captured: Capture) -> None:
    stub.fail_next(400)
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(**ask(stub))
    (event,) = calls(captured)
    assert (event["status"], event["http_status"]) == ("error", 400)
    assert "usage" not in event


async def test_async(stub: OpenAIStub, captured: Capture) -> None:
    await litellm.acompletion(**ask(stub))
    stub.fail_next(400)
    with pytest.raises(litellm.BadRequestError):
        await litellm.acompletion(**ask(stub))
    for _ in range(500):
        if len(captured.calls) == 2:
            break
        await asyncio.sleep(0.02)
    assert sorted(event["status"] for event in captured.calls) == ["error", "ok"]
    (fine,) = (event for event in captured.calls if event["status"] == "ok")
    assert fine["usage"] == USAGE


def test_over_an_instrumented_client_one_call_is_billed(
    stub: OpenAIStub, captured: Capture
) -> None:
    with callmeter.instrument("openai"):
        litellm.completion(**ask(stub))
        found = calls(captured, 2)
    billed = [event for event in found if event["operation"] == "chat"]
    wrapped = [event for event in found if event["operation"] == "invoke_model"]
    assert (len(billed), len(wrapped)) == (1, 1)
    assert billed[0]["usage"] == USAGE
    assert "usage" not in wrapped[0]
    assert "cost_pico" not in wrapped[0]


def test_undo_unregisters(stub: OpenAIStub) -> None:
    with capture() as it:
        with callmeter.instrument("litellm"):
            litellm.completion(**ask(stub))
            calls(it)
        litellm.completion(**ask(stub))
        assert len(it.calls) == 1
    held = [value for value in vars(litellm).values() if isinstance(value, list)]
    assert not [one for some in held for one in some if type(one).__name__ == "Callback"]
