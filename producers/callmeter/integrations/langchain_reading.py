"""What LangChain and LangGraph say of a run, in callmeter's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from callmeter.sdk.usage.fields import get, text

#: LangChain's ``ls_provider`` where price books say otherwise.
PROVIDERS = {
    "amazon_bedrock": "aws",
    "azure_openai": "azure",
    "google_genai": "google",
    "google_vertexai": "google",
    "mistralai": "mistral",
    "xai": "x-ai",
}
_MODEL_KEYS = ("model", "model_name", "model_id", "deployment_name")


def model_of(metadata: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """The model's name: LangChain's own tracing parameter, else what the request says."""
    named = (metadata.get("ls_model_name"), *(asked.get(key) for key in _MODEL_KEYS))
    return next((name for name in map(text, named) if name), "unknown")


def provider_of(metadata: Mapping[str, Any]) -> str | None:
    """The provider as price books name it."""
    provider = text(metadata.get("ls_provider"))
    return PROVIDERS.get(provider, provider) if provider else None


def who(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """User and session, where the run's metadata tell them."""
    user = text(metadata.get("user_id"))
    session = text(metadata.get("session_id")) or text(metadata.get("thread_id"))
    return {name: value for name, value in (("user", user), ("session", session)) if value}


def run_name(serialized: Mapping[str, Any] | None) -> str:
    """What a run is called that was given no name."""
    said = serialized or {}
    path = said.get("id")
    return text(said.get("name")) or (str(path[-1]) if isinstance(path, list) and path else "chain")


def steers(error: BaseException) -> bool:
    """LangGraph's interrupts and commands travel as exceptions."""
    return any(cls.__name__ == "GraphBubbleUp" for cls in type(error).__mro__)


def reply_of(result: Any) -> dict[str, Any]:
    """An ``LLMResult`` as plain dicts: its pydantic objects take 2 µs to say that they lack a
    field, and a reply is asked for dozens.
    """
    answers = [answer for several in get(result, "generations") or () for answer in several]
    messages = [get(answer, "message") for answer in answers]
    usages = [get(message, "usage_metadata") for message in messages]
    told = get(messages[0], "response_metadata") if messages else None
    return {
        "usage_metadata": usages[0] if len(usages) == 1 else None,
        "llm_output": get(result, "llm_output"),
        "generations": [{"message": {"usage_metadata": usage}} for usage in usages if usage],
        "response_metadata": told if isinstance(told, Mapping) else {},
        "output": [get(answer, "text") for answer in answers],
    }


def from_cache(reply: Mapping[str, Any]) -> bool:
    """LangChain marks an answer out of its cache with a total cost of 0 in its usage."""
    usages = [answer["message"]["usage_metadata"] for answer in reply["generations"]]
    return bool(usages) and all(usage.get("total_cost") == 0 for usage in usages)
