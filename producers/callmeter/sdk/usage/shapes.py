"""The shapes of usage, one function each. A shape recognises itself by a field no other has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from callmeter.sdk.usage.fields import added, count, counts, first, get

Usage = dict[str, int]


def openai_chat(u: Any) -> Usage | None:
    """OpenAI and Azure chat completions and embeddings; LiteLLM, vLLM and others that follow them.

    LiteLLM's ``prompt_tokens`` include what Anthropic read from and wrote to its cache.
    """
    if count(get(u, "prompt_tokens")) is None:
        return None
    return counts(
        input=get(u, "prompt_tokens"),
        output=get(u, "completion_tokens"),
        cache_read=first_count(
            get(u, "prompt_tokens_details", "cached_tokens"), get(u, "cache_read_input_tokens")
        ),
        cache_write=first_count(
            get(u, "cache_creation_input_tokens"), get(u, "prompt_tokens_details", "cache_write")
        ),
        audio_input=get(u, "prompt_tokens_details", "audio_tokens"),
        reasoning=get(u, "completion_tokens_details", "reasoning_tokens"),
        audio_output=get(u, "completion_tokens_details", "audio_tokens"),
    )


def anthropic(u: Any) -> Usage | None:
    """Anthropic messages: ``input_tokens`` leaves out what the cache gave or took."""
    if count(get(u, "input_tokens")) is None or not (
        has(u, "cache_read_input_tokens") or has(u, "cache_creation_input_tokens")
    ):
        return None
    read, written = get(u, "cache_read_input_tokens"), get(u, "cache_creation_input_tokens")
    return counts(
        input=added(get(u, "input_tokens"), read, written),
        output=get(u, "output_tokens"),
        cache_read=read,
        cache_write=written,
        cache_write_1h=get(u, "cache_creation", "ephemeral_1h_input_tokens"),
        search=get(u, "server_tool_use", "web_search_requests"),
    )


def openai_responses(u: Any) -> Usage | None:
    """OpenAI's Responses API, LangChain's ``usage_metadata`` and Anthropic without a cache:
    ``input_tokens`` count everything.
    """
    if count(get(u, "input_tokens")) is None:
        return None
    return counts(
        input=get(u, "input_tokens"),
        output=get(u, "output_tokens"),
        cache_read=first_count(
            get(u, "input_tokens_details", "cached_tokens"),
            get(u, "input_token_details", "cache_read"),
        ),
        cache_write=get(u, "input_token_details", "cache_creation"),
        audio_input=get(u, "input_token_details", "audio"),
        reasoning=first_count(
            get(u, "output_tokens_details", "reasoning_tokens"),
            get(u, "output_token_details", "reasoning"),
        ),
        audio_output=get(u, "output_token_details", "audio"),
        search=get(u, "server_tool_use", "web_search_requests"),
    )


def bedrock(u: Any) -> Usage | None:
    """Bedrock's Converse: ``inputTokens`` leave out what the cache gave or took."""
    if count(get(u, "inputTokens")) is None:
        return None
    read = first(u, "cacheReadInputTokens", "cacheReadInputTokenCount")
    written = first(u, "cacheWriteInputTokens", "cacheWriteInputTokenCount")
    return counts(
        input=added(get(u, "inputTokens"), read, written),
        output=get(u, "outputTokens"),
        cache_read=read,
        cache_write=written,
    )


def gemini(u: Any) -> Usage | None:
    """Gemini and Vertex, in Python's names and JSON's. Thoughts are output beside the
    candidates.
    """
    prompt = first(u, "prompt_token_count", "promptTokenCount")
    if count(prompt) is None:
        return None
    answer = first(u, "candidates_token_count", "candidatesTokenCount")
    thoughts = first(u, "thoughts_token_count", "thoughtsTokenCount")
    return counts(
        input=added(prompt, first(u, "tool_use_prompt_token_count", "toolUsePromptTokenCount")),
        output=added(answer, thoughts) if count(answer) is not None else thoughts,
        cache_read=first(u, "cached_content_token_count", "cachedContentTokenCount"),
        reasoning=thoughts,
    )


def ollama(u: Any) -> Usage | None:
    """Ollama: the counts stand in the reply itself; a cached prompt is not counted at all."""
    if count(get(u, "eval_count")) is None and count(get(u, "prompt_eval_count")) is None:
        return None
    return counts(input=get(u, "prompt_eval_count"), output=get(u, "eval_count"))


def tgi(u: Any) -> Usage | None:
    """Text Generation Inference with ``details``; without ``prefill`` the input is unknown."""
    if count(get(u, "generated_tokens")) is None:
        return None
    prefill = get(u, "prefill")
    return counts(
        input=len(prefill) if isinstance(prefill, list | tuple) and prefill else None,
        output=get(u, "generated_tokens"),
    )


def titan(u: Any) -> Usage | None:
    """Amazon's own models through Bedrock's InvokeModel."""
    if count(get(u, "inputTextTokenCount")) is None:
        return None
    return counts(input=get(u, "inputTextTokenCount"), output=get(u, "results", 0, "tokenCount"))


def bedrock_headers(u: Any) -> Usage | None:
    """Bedrock's InvokeModel tells the counts of any model in headers."""
    tokens_in = get(u, "x-amzn-bedrock-input-token-count")
    if count(tokens_in) is None:
        return None
    return counts(input=tokens_in, output=get(u, "x-amzn-bedrock-output-token-count"))


#: In the order they are tried: a shape with a mark of its own before one that takes less.
SHAPES: tuple[Callable[[Any], Usage | None], ...] = (
    openai_chat,
    anthropic,
    openai_responses,
    bedrock,
    gemini,
    ollama,
    tgi,
    titan,
    bedrock_headers,
)


def usage_of(holder: Any) -> Usage | None:
    """The usage that an object or dict of some shape says; None if it says none."""
    if holder is None or isinstance(holder, str | bytes | int | float):
        return None
    for shape in SHAPES:
        found = shape(holder)
        if found is not None:
            return found
    return None


def has(source: Any, name: str) -> bool:
    """Whether the field exists, even as None: it marks the shape."""
    return name in source if isinstance(source, dict) else hasattr(source, name)


def first_count(*values: Any) -> int | None:
    """The first value that is a count."""
    return next((n for value in values if (n := count(value)) is not None), None)
