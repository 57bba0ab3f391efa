"""The real Anthropic library against a local stub: all is metered, and callers notice nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

import callmeter
from callmeter.testing import Capture, capture
from support.anthropic_stub import ANSWER, AnthropicStub

anthropic = pytest.importorskip("anthropic")

MESSAGES = [{"role": "user", "content": "What is the answer?"}]
ASK = {"model": "claude-test-model", "max_tokens": 64, "messages": MESSAGES}
USAGE = {"input": 142, "output": 7, "cache_read": 100, "cache_write": 30}


@pytest.fixture
def stub() -> Iterator[AnthropicStub]:
    with AnthropicStub() as it:
        yield it


@pytest.fixture
def captured() -> Iterator[Capture]:
    with capture(record_inputs=True, record_outputs=True) as it, callmeter.instrument("anthropic"):
        yield it


@pytest.fixture
def client(stub: AnthropicStub) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=stub.base_url, api_key="k", max_retries=1) as it:
        yield it


def check(captured: Capture) -> dict[str, object]:
    (event,) = captured.calls
    assert (event["operation"], event["status"]) == ("chat", "ok")
    assert (event["provider"], event["model"]) == ("anthropic", "claude-test-model")
    assert event["response_model"] == "claude-test-model-20250929"
    assert event["finish_reason"] == "end_turn"
    assert event["usage"] == USAGE
    assert event["inputs"] == MESSAGES
    assert event["attributes"]["max_tokens"] == "64"
    return event


def test_a_message(client: anthropic.Anthropic, captured: Capture) -> None:
    reply = client.messages.create(**ASK, metadata={"user_id": "u1"})
    assert reply.content[0].text == ANSWER
    assert check(captured)["user"] == "u1"


def test_a_stream_of_events(client: anthropic.Anthropic, captured: Capture) -> None:
    stream = client.messages.create(**ASK, stream=True)
    assert isinstance(stream, anthropic.Stream)
    kinds = [event.type for event in stream]
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    event = check(captured)
    assert event["outputs"] == ANSWER
    assert 0 <= event["ttft_us"] <= event["latency_us"]


def test_the_stream_helper(client: anthropic.Anthropic, captured: Capture) -> None:
    with client.messages.stream(**ASK) as stream:
        assert "".join(stream.text_stream) == ANSWER
        assert stream.get_final_message().usage.output_tokens == 7
    assert check(captured)["outputs"] == ANSWER


async def test_async_message_and_streams(stub: AnthropicStub, captured: Capture) -> None:
    async with anthropic.AsyncAnthropic(base_url=stub.base_url, api_key="k") as client:
        reply = await client.messages.create(**ASK)
        assert reply.content[0].text == ANSWER
        kinds = [e.type async for e in await client.messages.create(**ASK, stream=True)]
        assert kinds[-1] == "message_stop"
        async with client.messages.stream(**ASK) as stream:
            assert "".join([text async for text in stream.text_stream]) == ANSWER
    assert [event["usage"] for event in captured.calls] == [USAGE] * 3
    assert [event["status"] for event in captured.calls] == ["ok"] * 3


def test_a_raw_response(client: anthropic.Anthropic, captured: Capture) -> None:
    raw = client.messages.with_raw_response.create(**ASK)
    assert raw.parse().content[0].text == ANSWER
    check(captured)


def test_retries_are_one_call(
    client: anthropic.Anthropic, captured: Capture, stub: AnthropicStub
) -> None:
    stub.failures.append(529)
    client.messages.create(**ASK)
    assert check(captured)["attempts"] == 2


def test_a_failure(client: anthropic.Anthropic, captured: Capture, stub: AnthropicStub) -> None:
    stub.failures.append(400)
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**ASK)
    (event,) = captured.calls
    assert (event["status"], event["http_status"]) == ("error", 400)
    assert "usage" not in event


def test_a_stream_that_breaks(
    client: anthropic.Anthropic, captured: Capture, stub: AnthropicStub
) -> None:
    stub.break_streams = 1
    with pytest.raises(anthropic.APIStatusError):
        list(client.messages.create(**ASK, stream=True))
    (event,) = captured.calls
    assert event["status"] == "error"


def test_a_stream_that_is_left(client: anthropic.Anthropic, captured: Capture) -> None:
    stream = client.messages.create(**ASK, stream=True)
    next(iter(stream))
    stream.close()
    del stream
    gc.collect()
    (event,) = captured.calls
    assert event["status"] == "cancelled"


def test_what_is_no_call_is_not_metered(client: anthropic.Anthropic, captured: Capture) -> None:
    counted = client.messages.count_tokens(model="claude-test-model", messages=MESSAGES)
    assert counted.input_tokens == 12
    assert captured.calls == []


def test_around_it_the_users_own_generation_is_not_billed_too(
    client: anthropic.Anthropic, captured: Capture
) -> None:
    with callmeter.generation("mine", model="claude-test-model", provider="anthropic") as call:
        call.record(client.messages.create(**ASK))
    inner, outer = captured.calls
    assert inner["usage"] == USAGE
    assert outer["operation"] == "invoke_model"
    assert "usage" not in outer
    assert inner["trace_id"] == outer["trace_id"]


def test_undo_puts_everything_back() -> None:
    families = (*anthropic.Anthropic.__mro__, *anthropic.AsyncAnthropic.__mro__)
    before = [vars(cls).copy() for cls in families]
    undo = callmeter.instrument("anthropic")
    assert callmeter.instrument("anthropic").names == ()
    assert [vars(cls).copy() for cls in families] != before
    undo()
    assert [vars(cls).copy() for cls in families] == before
