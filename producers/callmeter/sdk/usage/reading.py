"""A whole reply: usage, model, finish reason, service tier, cost and output."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from callmeter.money import float_to_pico
from callmeter.sdk.usage.fields import first, get, text
from callmeter.sdk.usage.shapes import usage_of

#: Where usage lies, from the innermost place outwards. () is the reply itself.
_USAGE_PATHS: tuple[tuple[str | int, ...], ...] = (
    ("usage",),
    ("usage_metadata",),
    ("usageMetadata",),
    ("details",),
    ("response_metadata", "token_usage"),
    ("response_metadata", "usage"),
    ("llm_output", "token_usage"),
    ("llm_output", "usage"),
    ("message", "usage"),
    ("response", "usage"),
    ("ResponseMetadata", "HTTPHeaders"),
    (),
)
_FINISH_PATHS: tuple[tuple[str | int, ...], ...] = (
    ("choices", 0, "finish_reason"),
    ("stop_reason",),
    ("stopReason",),
    ("incomplete_details", "reason"),
    ("candidates", 0, "finish_reason"),
    ("candidates", 0, "finishReason"),
    ("done_reason",),
    ("details", "finish_reason"),
    ("response_metadata", "finish_reason"),
    ("response_metadata", "stop_reason"),
    ("results", 0, "completionReason"),
)
_MODEL_PATHS: tuple[tuple[str | int, ...], ...] = (
    ("model",),
    ("model_version",),
    ("modelVersion",),
    ("response_metadata", "model_name"),
    ("response_metadata", "model"),
    ("llm_output", "model_name"),
)
_OUTPUT_PATHS: tuple[tuple[str | int, ...], ...] = (
    ("choices",),
    ("output_text",),
    ("output",),
    ("content",),
    ("candidates",),
    ("message", "content"),
    ("generated_text",),
    ("response",),
    ("generations",),
)


@dataclass(slots=True)
class Reading:
    """What a reply says. ``usage`` None is unknown; ``output`` None means the reply as it is."""

    usage: dict[str, int] | None = None
    fields: dict[str, str] = field(default_factory=dict)
    output: Any = None
    cost_pico: int | None = None


def read_reply(reply: Any) -> Reading:
    """Read a provider's reply, object or dict, whatever its shape."""
    if isinstance(reply, list | tuple) and len(reply) == 1:
        reply = reply[0]  # TGI answers a list of one
    found = Reading(usage=_usage(reply))
    for name, paths in (("finish_reason", _FINISH_PATHS), ("response_model", _MODEL_PATHS)):
        value = next((t for path in paths if (t := text(get(reply, *path)))), None)
        if value is not None:
            found.fields[name] = value
    if "finish_reason" not in found.fields and get(reply, "object") == "response":
        status = text(get(reply, "status"))
        found.fields.update({"finish_reason": status} if status else {})
    tier = text(first(reply, "service_tier")) or text(get(reply, "usage", "service_tier"))
    if tier is not None:
        found.fields["service_tier"] = tier
    found.output = next((v for path in _OUTPUT_PATHS if (v := get(reply, *path)) is not None), None)
    # LiteLLM computes a cost and keeps it beside the reply, as a float.
    told = get(reply, "_hidden_params", "response_cost")
    if isinstance(told, float | int) and not isinstance(told, bool) and told >= 0:
        found.cost_pico = float_to_pico(told)
    if get(reply, "_hidden_params") is not None and found.usage and not any(found.usage.values()):
        # To a reply without usage LiteLLM adds one of zeros, and a cost of zero: nobody knows.
        found.usage = found.cost_pico = None
    return found


def _usage(reply: Any) -> dict[str, int] | None:
    for path in _USAGE_PATHS:
        found = usage_of(get(reply, *path))
        if found is not None:
            return found
    return _langchain_result(reply)


def _langchain_result(reply: Any) -> dict[str, int] | None:
    """LangChain's ``LLMResult``: the usage lies in each generation's message, and adds up."""
    total: dict[str, int] = {}
    for generations in get(reply, "generations") or ():
        for generation in generations if isinstance(generations, list | tuple) else (generations,):
            one = usage_of(get(generation, "message", "usage_metadata"))
            for unit, n in (one or {}).items():
                total[unit] = total.get(unit, 0) + n
    return total or None
