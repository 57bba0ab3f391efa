"""The real OpenAI library against a local stub: all is metered, and callers notice nothing."""

import gc
from collections.abc import Iterator

import openai
import pytest

import callmeter
from callmeter.testing import Capture, capture
from support.openai_stub import ANSWER, OpenAIStub

MESSAGES = [{"role": "user", "content": "What is the answer?"}]
USAGE = {"input": 12, "output": 7, "cache_read": 4, "reasoning": 2}


@pytest.fixture
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as it:
        yield it


@pytest.fixture
def captured() -> Iterator[Capture]:
    with capture(record_inputs=True, record_outputs=True) as it, callmeter.instrument("openai"):
        yield it


@pytest.fixture
def client(stub: OpenAIStub) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=stub.base_url, api_key="k", max_retries=1) as it:
        yield it


def chat(client, **more):
    return client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, **more)


def test_chat(client: openai.OpenAI, captured: Capture) -> None:
    reply = chat(client, temperature=0.5, max_tokens=10, user="u1")
    assert reply.choices[0].message.content == ANSWER
    (event,) = captured.calls
    assert event["operation"] == "chat"
    assert (event["provider"], event["model"]) == ("openai", "gpt-4o-mini")
    assert event["response_model"] == "gpt-4o-mini-2024-07-18"
    assert (event["finish_reason"], event["service_tier"]) == ("stop", "default")
    assert event["usage"] == USAGE
    assert event["user"] == "u1"
    assert event["attributes"] == {"temperature": "0.5", "max_tokens": "10"}
    assert event["inputs"] == MESSAGES
    assert event["outputs"][0]["message"]["content"] == ANSWER
    assert "attempts" not in event


def test_a_reply_without_usage_is_unknown(
    client: openai.OpenAI, captured: Capture, stub: OpenAIStub
) -> None:
    stub.no_usage = True
    chat(client)
    assert "usage" not in captured.calls[0]


def test_a_stream_is_metered_and_looks_as_if_it_were_not(
    client: openai.OpenAI, captured: Capture, stub: OpenAIStub
) -> None:
    stream = chat(client, stream=True)
    assert isinstance(stream, openai.Stream)
    chunks = list(stream)
    assert all(chunk.choices for chunk in chunks)  # the chunk that brings the usage is ours
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert stub.requests[0]["stream_options"] == {"include_usage": True}
    (event,) = captured.calls
    assert event["usage"] == USAGE
    assert event["finish_reason"] == "stop"
    assert event["outputs"] == ANSWER
    assert 0 <= event["ttft_us"] <= event["latency_us"]


def test_a_caller_who_asked_for_usage_gets_it(client: openai.OpenAI, captured: Capture) -> None:
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage.total_tokens == 19
    assert captured.calls[0]["usage"] == USAGE


def test_a_caller_who_refused_usage_is_not_overruled(
    client: openai.OpenAI, captured: Capture, stub: OpenAIStub
) -> None:
    list(chat(client, stream=True, stream_options={"include_usage": False}))
    assert stub.requests[0]["stream_options"] == {"include_usage": False}
    assert "usage" not in captured.calls[0]


def test_a_server_that_does_not_know_the_option_is_asked_again_without_it(
    client: openai.OpenAI, captured: Capture, stub: OpenAIStub
) -> None:
    stub.refuse_stream_options = True
    assert len(list(chat(client, stream=True))) == 6
    assert len(list(chat(client, stream=True))) == 6
    assert ["stream_options" in body for body in stub.requests] == [True, False, False]
    first, second = captured.calls
    assert first["attempts"] == 2
    assert "attempts" not in second
    assert (first["status"], "usage" in first) == ("ok", False)


def test_a_stream_that_breaks(client: openai.OpenAI, captured: Capture, stub: OpenAIStub) -> None:
    stub.break_streams = 1
    with pytest.raises(openai.APIError, match="broken"):
        list(chat(client, stream=True))
    (event,) = captured.calls
    assert (event["status"], event["error_type"]) == ("error", "openai.APIError")


def test_abandoned_streams_end_their_calls(client: openai.OpenAI, captured: Capture) -> None:
    closed = chat(client, stream=True)
    next(closed)
    closed.close()
    with chat(client, stream=True) as left:
        for _ in left:
            break
    dropped = chat(client, stream=True)
    next(dropped)
    del dropped
    gc.collect()  # the library's own stream is a cycle
    calls = captured.calls
    assert [event["status"] for event in calls] == ["cancelled"] * 3
    assert captured.client.stats().open_calls == 0


def test_a_call_in_flight_is_open(client: openai.OpenAI, captured: Capture) -> None:
    stream = chat(client, stream=True)
    assert captured.client.stats().open_calls == 1
    list(stream)
    assert captured.client.stats().open_calls == 0


def test_the_stream_helper(client: openai.OpenAI, captured: Capture) -> None:
    with client.chat.completions.stream(model="gpt-4o-mini", messages=MESSAGES) as stream:
        assert stream.get_final_completion().choices[0].message.content == ANSWER
    (event,) = captured.calls
    assert (event["status"], event["usage"]) == ("ok", USAGE)


def test_raw_responses(client: openai.OpenAI, captured: Capture) -> None:
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=MESSAGES)
    assert raw.parse().choices[0].message.content == ANSWER
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-4o-mini", messages=MESSAGES, stream=True
    )
    assert len(list(raw.parse())) == 6
    with client.chat.completions.with_streaming_response.create(
        model="gpt-4o-mini", messages=MESSAGES
    ) as streamed:
        assert streamed.parse().choices[0].message.content == ANSWER
    with client.chat.completions.with_streaming_response.create(
        model="gpt-4o-mini", messages=MESSAGES
    ):
        pass  # nobody reads it
    calls = captured.calls
    assert [event.get("usage") for event in calls] == [USAGE, USAGE, USAGE, None]
    assert [event["status"] for event in calls] == ["ok", "ok", "ok", "cancelled"]


def test_responses(client: openai.OpenAI, captured: Capture) -> None:
    reply = client.responses.create(model="gpt-4o", input="What is the answer?")
    assert reply.output_text == ANSWER
    events = list(client.responses.create(model="gpt-4o", input="What?", stream=True))
    assert events[-1].type == "response.completed"
    plain, streamed = captured.calls
    for event in (plain, streamed):
        assert (event["operation"], event["usage"]) == ("chat", USAGE)
        assert event["finish_reason"] == "completed"
        assert event["outputs"] == ANSWER
    assert plain["inputs"] == "What is the answer?"
    assert "ttft_us" in streamed
    assert "ttft_us" not in plain


def test_embeddings(client: openai.OpenAI, captured: Capture) -> None:
    reply = client.embeddings.create(model="text-embedding-3-small", input=["a", "b"])
    assert len(reply.data) == 2
    (event,) = captured.calls
    assert (event["operation"], event["usage"]) == ("embeddings", {"input": 12})
    assert "outputs" not in event  # vectors are no text


def test_an_error_is_told_with_its_status(
    client: openai.OpenAI, captured: Capture, stub: OpenAIStub
) -> None:
    stub.fail_next(401)
    with pytest.raises(openai.AuthenticationError):
        chat(client)
    (event,) = captured.calls
    assert (event["status"], event["http_status"]) == ("error", 401)
    assert event["error_type"] == "openai.AuthenticationError"


def test_attempts_are_counted(client: openai.OpenAI, captured: Capture, stub: OpenAIStub) -> None:
    stub.fail_next(503, headers={"retry-after-ms": "1"})
    chat(client)
    stub.fail_next(503, times=2, headers={"retry-after-ms": "1"})
    with pytest.raises(openai.InternalServerError):
        chat(client)
    first, second = captured.calls
    assert (first["status"], first["attempts"]) == ("ok", 2)
    assert (second["status"], second["attempts"]) == ("error", 2)


def test_azure_is_a_provider_of_its_own(stub: OpenAIStub, captured: Capture) -> None:
    with openai.AzureOpenAI(
        azure_endpoint=stub.base_url.removesuffix("/v1"), api_key="k", api_version="2024-10-21"
    ) as client:
        chat(client)
    (event,) = captured.calls
    assert (event["provider"], event["model"]) == ("azure", "gpt-4o-mini")


def test_a_generation_around_it_is_not_billed_again(
    client: openai.OpenAI, captured: Capture
) -> None:
    with callmeter.generation("mine", model="gpt-4o-mini") as call:
        call.record(chat(client))
    inner, outer = captured.calls
    assert (inner["operation"], inner["usage"]) == ("chat", USAGE)
    assert inner["parent_span_id"] == outer["call_id"].replace("-", "")[16:]
    assert outer["operation"] == "invoke_model"
    assert "usage" not in outer


def test_another_models_call_inside_a_generation_is_billed_beside_it(
    client: openai.OpenAI, captured: Capture
) -> None:
    with callmeter.generation("mine", model="my-own-model") as call:
        client.embeddings.create(model="text-embedding-3-small", input="a")
        call.usage(input=1, output=2)
    inner, outer = captured.calls
    assert (inner["operation"], outer["operation"]) == ("embeddings", "chat")
    assert outer["usage"] == {"input": 1, "output": 2}


def test_other_requests_are_left_alone(client: openai.OpenAI, captured: Capture) -> None:
    with pytest.raises(openai.NotFoundError):
        client.moderations.create(input="x")
    assert captured.calls == []


async def test_async(stub: OpenAIStub, captured: Capture) -> None:
    async with openai.AsyncOpenAI(base_url=stub.base_url, api_key="k") as client:
        await chat(client)
        stream = await chat(client, stream=True)
        assert isinstance(stream, openai.AsyncStream)
        chunks = [chunk async for chunk in stream]
        assert all(chunk.choices for chunk in chunks)
        left = await chat(client, stream=True)
        async for _ in left:
            break
        await left.close()
        raw = await client.chat.completions.with_raw_response.create(
            model="gpt-4o-mini", messages=MESSAGES
        )
        assert raw.parse().choices[0].message.content == ANSWER
        async with client.chat.completions.with_streaming_response.create(
            model="gpt-4o-mini", messages=MESSAGES
        ) as streamed:
            assert (await streamed.parse()).choices[0].message.content == ANSWER
        stub.fail_next(400)
        with pytest.raises(openai.BadRequestError):
            await chat(client)
    calls = captured.calls
    statuses = [event["status"] for event in calls]
    assert statuses == ["ok", "ok", "cancelled", "ok", "ok", "error"]
    assert [event.get("usage") for event in calls] == [USAGE, USAGE, None, USAGE, USAGE, None]


def test_undone_nothing_is_metered(client: openai.OpenAI) -> None:
    with capture() as captured:
        with callmeter.instrument("openai"):
            chat(client)
        chat(client)
        assert len(captured.calls) == 1
