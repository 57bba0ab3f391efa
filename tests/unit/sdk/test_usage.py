"""Usage out of every provider's reply: objects and dicts, cached tokens inside ``input``."""

from types import SimpleNamespace
from typing import Any

import pytest

import callmeter
from callmeter.sdk.usage import read_reply, usage_of
from callmeter.testing import Capture

OPENAI_CHAT = {
    "model": "gpt-4o-2024-08-06",
    "service_tier": "default",
    "choices": [{"finish_reason": "stop", "message": {"content": "hi"}}],
    "usage": {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_tokens": 150,
        "prompt_tokens_details": {"cached_tokens": 60, "audio_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 20, "audio_tokens": 0},
    },
}
SHAPES: dict[str, tuple[Any, dict[str, int] | None]] = {
    "openai chat": (
        OPENAI_CHAT,
        {"input": 100, "output": 50, "cache_read": 60, "audio_input": 3, "reasoning": 20},
    ),
    "openai responses": (
        {
            "usage": {
                "input_tokens": 100,
                "input_tokens_details": {"cached_tokens": 60},
                "output_tokens": 50,
                "output_tokens_details": {"reasoning_tokens": 20},
            }
        },
        {"input": 100, "output": 50, "cache_read": 60, "reasoning": 20},
    ),
    "openai embeddings": ({"usage": {"prompt_tokens": 9, "total_tokens": 9}}, {"input": 9}),
    "azure without details": (
        {"usage": {"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1}},
        {"input": 1, "output": 0},
    ),
    "anthropic": (
        {"type": "message", "usage": {"input_tokens": 10, "output_tokens": 5}},
        {"input": 10, "output": 5},
    ),
    "anthropic with a cache": (
        {
            "usage": {
                "input_tokens": 10,
                "cache_creation_input_tokens": 100,
                "cache_read_input_tokens": 1000,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": 70,
                    "ephemeral_1h_input_tokens": 30,
                },
                "output_tokens": 5,
                "server_tool_use": {"web_search_requests": 2},
            }
        },
        {
            "input": 1110,
            "output": 5,
            "cache_read": 1000,
            "cache_write": 100,
            "cache_write_1h": 30,
            "search": 2,
        },
    ),
    "anthropic, nothing cached": (
        {
            "usage": {
                "input_tokens": 10,
                "cache_creation_input_tokens": None,
                "cache_read_input_tokens": 0,
                "output_tokens": 5,
            }
        },
        {"input": 10, "output": 5},
    ),
    "bedrock converse": (
        {
            "usage": {
                "inputTokens": 10,
                "outputTokens": 5,
                "totalTokens": 15,
                "cacheReadInputTokens": 100,
                "cacheWriteInputTokens": 20,
            },
            "stopReason": "end_turn",
        },
        {"input": 130, "output": 5, "cache_read": 100, "cache_write": 20},
    ),
    "bedrock invoke_model": (
        {
            "ResponseMetadata": {
                "HTTPHeaders": {
                    "x-amzn-bedrock-input-token-count": "10",
                    "x-amzn-bedrock-output-token-count": "5",
                }
            }
        },
        {"input": 10, "output": 5},
    ),
    "bedrock titan": (
        {"inputTextTokenCount": 10, "results": [{"tokenCount": 5, "completionReason": "FINISH"}]},
        {"input": 10, "output": 5},
    ),
    "gemini": (
        {
            "usage_metadata": {
                "prompt_token_count": 100,
                "cached_content_token_count": 60,
                "candidates_token_count": 30,
                "thoughts_token_count": 20,
                "tool_use_prompt_token_count": 5,
            }
        },
        {"input": 105, "output": 50, "cache_read": 60, "reasoning": 20},
    ),
    "gemini over REST": (
        {"usageMetadata": {"promptTokenCount": 8, "candidatesTokenCount": 3}},
        {"input": 8, "output": 3},
    ),
    "ollama": (
        {"model": "llama3", "done_reason": "stop", "prompt_eval_count": 26, "eval_count": 298},
        {"input": 26, "output": 298},
    ),
    "tgi": (
        {"details": {"generated_tokens": 7, "prefill": [{}, {}, {}, {}]}},
        {"input": 4, "output": 7},
    ),
    "tgi in a list": ([{"details": {"generated_tokens": 7, "prefill": []}}], {"output": 7}),
    "langchain message": (
        {
            "usage_metadata": {
                "input_tokens": 100,
                "output_tokens": 50,
                "input_token_details": {"cache_read": 60, "cache_creation": 10, "audio": 1},
                "output_token_details": {"reasoning": 20},
            }
        },
        {
            "input": 100,
            "output": 50,
            "cache_read": 60,
            "cache_write": 10,
            "audio_input": 1,
            "reasoning": 20,
        },
    ),
    "langchain llm_output": (
        {"llm_output": {"token_usage": {"prompt_tokens": 3, "completion_tokens": 2}}},
        {"input": 3, "output": 2},
    ),
    "langchain generations": (
        {
            "generations": [
                [{"message": {"usage_metadata": {"input_tokens": 3, "output_tokens": 2}}}],
                [{"message": {"usage_metadata": {"input_tokens": 4, "output_tokens": 1}}}],
            ]
        },
        {"input": 7, "output": 3},
    ),
    "litellm over anthropic": (
        {
            "usage": {
                "prompt_tokens": 1110,
                "completion_tokens": 5,
                "cache_creation_input_tokens": 100,
                "cache_read_input_tokens": 1000,
            }
        },
        {"input": 1110, "output": 5, "cache_read": 1000, "cache_write": 100},
    ),
    "usage by itself": ({"prompt_tokens": 3, "completion_tokens": 2}, {"input": 3, "output": 2}),
    "no usage": ({"choices": [{"message": {"content": "hi"}}]}, None),
    "usage of None": ({"usage": None}, None),
    "usage without counts": ({"usage": {"prompt_tokens": None}}, None),
    "negative": ({"usage": {"prompt_tokens": -1, "completion_tokens": 2}}, None),
    "text": ("hello", None),
    "nothing": (None, None),
}


def as_objects(value: Any) -> Any:
    if isinstance(value, dict):
        if any(not str(k).isidentifier() for k in value):
            return value
        return SimpleNamespace(**{k: as_objects(v) for k, v in value.items()})
    if isinstance(value, list):
        return [as_objects(v) for v in value]
    return value


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("form", ["dict", "object"])
def test_every_shape(name: str, form: str) -> None:
    reply, usage = SHAPES[name]
    assert read_reply(as_objects(reply) if form == "object" else reply).usage == usage


def test_more_than_usage_is_read(captured: Capture) -> None:
    with callmeter.generation(model="gpt-4o") as call:
        call.record(OPENAI_CHAT)
    (event,) = captured.calls
    assert event["response_model"] == "gpt-4o-2024-08-06"
    assert event["finish_reason"] == "stop"
    assert event["service_tier"] == "default"


def test_what_the_caller_said_wins(captured: Capture) -> None:
    with callmeter.generation(model="gpt-4o", finish_reason="mine") as call:
        call.record(OPENAI_CHAT)
    assert captured.calls[0]["finish_reason"] == "mine"


def test_a_reply_without_usage_leaves_it_unknown(captured: Capture) -> None:
    with callmeter.generation(model="m") as call:
        call.record({"choices": []})
    assert "usage" not in captured.calls[0]


def test_the_cost_that_litellm_knows_is_kept_as_reported(captured: Capture) -> None:
    with callmeter.generation(model="m") as call:
        call.record({**OPENAI_CHAT, "_hidden_params": {"response_cost": 0.000154}})
    (event,) = captured.calls
    assert (event["cost_pico"], event["cost_source"]) == ("154000000", "litellm")


def test_zeros_that_litellm_adds_to_a_reply_without_usage_are_unknown(captured: Capture) -> None:
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    with callmeter.generation(model="m") as call:
        call.record({"usage": usage, "_hidden_params": {"response_cost": 0.0}})
    assert not {"usage", "cost_pico"} & captured.calls[0].keys()
    with callmeter.generation(model="m") as call:
        call.record({"usage": usage})
    assert captured.calls[1]["usage"] == {"input": 0, "output": 0}  # this provider said so


def test_a_reply_that_bites_does_not_hurt(captured: Capture) -> None:
    class Biting:
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError("no")

    with callmeter.generation(model="m") as call, pytest.raises(RuntimeError):
        call.record(Biting())


def test_usage_of_takes_the_usage_itself() -> None:
    assert usage_of({"input_tokens": 1, "output_tokens": 2}) == {"input": 1, "output": 2}
    assert usage_of(7) is None
