"""Token counts out of answers, for models that one writes oneself.

``TokenUsage`` has the methods of SyGra's custom models: they read an answer and keep the counts
where ``track_model_request`` looks for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callmeter.sdk.usage import read_reply, usage_of

#: A text in an answer's place that says that the server has failed.
ERROR_PREFIX = "###SERVER_ERROR###"


#: Beside the counts, where a provider says more than input and output: all units, for the price.
UNITS = "units"


def token_counts(answer: Any) -> dict[str, int] | None:
    """prompt_tokens, completion_tokens and total_tokens of an answer; None if it says none.

    Objects and dicts of OpenAI-compatible servers, TGI with details, Ollama, Anthropic and all
    others that callmeter reads.
    """
    usage = _usage(answer)
    return None if usage is None else _counts(usage)


def counts_and_units(answer: Any) -> dict[str, Any] | None:
    """The same, with all units under ``units`` if there are more (cached, reasoning, …)."""
    usage = _usage(answer)
    return None if usage is None else _with_units(usage)


def _usage(answer: Any) -> dict[str, int] | None:
    if answer is None or isinstance(answer, str | bytes | int | float):
        return None
    return read_reply(answer).usage


def _counts(usage: Mapping[str, int]) -> dict[str, int]:
    prompt, completion = usage.get("input", 0), usage.get("output", 0)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _with_units(usage: dict[str, int]) -> dict[str, Any]:
    counts: dict[str, Any] = _counts(usage)
    return {**counts, UNITS: usage} if usage.keys() - {"input", "output"} else counts


class TokenUsage:
    """Mix-in for a model whose requests are tracked."""

    _last_request_usage: dict[str, Any] | None = None

    def _extract_token_usage(self, response: Any) -> None:
        """Keep the counts of an answer that carries ``usage``, or another provider's like of it."""
        self._last_request_usage = counts_and_units(response)

    def _extract_tgi_token_usage(self, response_data: Mapping[str, Any]) -> None:
        """Keep the counts of TGI's ``details``: generated tokens, and the length of ``prefill``."""
        details = usage_of(response_data.get("details"))
        self._last_request_usage = None if details is None else _with_units(details)

    def _tgi_request(self, inputs: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """The body of a request to TGI, which counts tokens only if asked for details."""
        return {"inputs": inputs, "parameters": {**(parameters or {}), "details": True}}


def says_error(answer: Any, depth: int = 4) -> bool:
    """Whether the error marker stands in an answer: in a text, or a few levels within it."""
    if isinstance(answer, str):
        return ERROR_PREFIX in answer
    if answer is None or depth == 0 or isinstance(answer, int | float | bytes):
        return False
    if isinstance(answer, Mapping):
        return any(says_error(value, depth - 1) for value in answer.values())
    if isinstance(answer, list | tuple):
        return any(says_error(value, depth - 1) for value in answer)
    return any(
        says_error(getattr(answer, name, None), depth - 1) for name in ("content", "llm_response")
    )
