"""What attributes of spans are called: OpenTelemetry's GenAI names of today and of before, and the
names of the two instrumentations that were there earlier (OpenLLMetry, OpenInference). Pure.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from callmeter.schema.events import MAX_UNITS
from callmeter.spans.span import Attributes, Value

#: Each from the newest name to the oldest; the first that is there counts.
OPERATION = ("gen_ai.operation.name",)
PROVIDER = ("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "llm.vendor")
MODEL = ("gen_ai.request.model", "llm.request.model", "llm.model_name", "embedding.model_name")
RESPONSE_MODEL = ("gen_ai.response.model", "llm.response.model")
FINISH = ("gen_ai.response.finish_reasons", "llm.response.finish_reason")
TIER = (
    "openai.response.service_tier",
    "gen_ai.openai.response.service_tier",
    "openai.request.service_tier",
    "gen_ai.openai.request.service_tier",
)
USER = ("user.id", "enduser.id", "traceloop.association.properties.user_id")
SESSION = (
    "session.id",
    "gen_ai.conversation.id",
    "traceloop.association.properties.session_id",
)
NODE = ("gen_ai.tool.name", "gen_ai.agent.name", "traceloop.entity.name")
PROGRAM = ("gen_ai.workflow.name", "traceloop.workflow.name")
HTTP_STATUS = ("http.response.status_code", "http.status_code")
FIRST_TOKEN_S = ("gen_ai.response.time_to_first_chunk", "gen_ai.server.time_to_first_token")
FIRST_TOKEN_EVENTS = frozenset({"First Token Stream Event", "gen_ai.first_token", "first_token"})

USAGE: Mapping[str, Sequence[str]] = {
    "input": (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.usage.prompt_tokens",
        "llm.token_count.prompt",
    ),
    "output": (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.usage.completion_tokens",
        "llm.token_count.completion",
    ),
    "cache_read": (
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "gen_ai.usage.details.cache_read_tokens",
        "llm.token_count.prompt_details.cache_read",
    ),
    "cache_write": (
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "gen_ai.usage.details.cache_write_tokens",
        "llm.token_count.prompt_details.cache_write",
    ),
    "reasoning": (
        "gen_ai.usage.reasoning.output_tokens",
        "gen_ai.usage.reasoning_tokens",
        "gen_ai.usage.details.reasoning_tokens",
        "llm.token_count.completion_details.reasoning",
    ),
    "audio_input": (
        "gen_ai.usage.details.input_audio_tokens",
        "llm.token_count.prompt_details.audio",
    ),
    "audio_output": (
        "gen_ai.usage.details.output_audio_tokens",
        "llm.token_count.completion_details.audio",
    ),
}

#: What instruments call an operation, where it is not the convention's word.
_OPERATIONS = {
    "completion": "text_completion",
    "embedding": "embeddings",
    "responses": "chat",
    "response": "chat",
}
#: ``openinference.span.kind`` and ``traceloop.span.kind``, in lower case.
_KINDS = {
    "llm": "chat",
    "embedding": "embeddings",
    "chain": "node",
    "task": "node",
    "workflow": "invoke_workflow",
    "agent": "invoke_agent",
    "tool": "execute_tool",
    "retriever": "retrieval",
    "reranker": "rerank",
}
_KIND_NAMES = ("openinference.span.kind", "traceloop.span.kind")
#: A span that speaks of no model, agent or tool.
PLAIN = "span"
_SPEAKS = ("gen_ai.", "llm.", "openinference.", "traceloop.", "embedding.")

#: Prompts, answers and arguments: never stored from spans, whatever they are called.
_CONTENT = (
    "gen_ai.prompt",
    "gen_ai.completion",
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "gen_ai.system_instructions",
    "gen_ai.tool.call.arguments",
    "gen_ai.tool.call.result",
    "gen_ai.tool.definitions",
    "gen_ai.retrieval.documents",
    "gen_ai.retrieval.query",
    "llm.prompts",
    "llm.completions",
    "llm.input_messages",
    "llm.output_messages",
    "llm.prompt_template",
    "llm.tools",
    "input.value",
    "output.value",
    "embedding.embeddings",
    "embedding.text",
    "retrieval.documents",
    "tool.parameters",
    "tool_call.function.arguments",
    "traceloop.entity.input",
    "traceloop.entity.output",
)
_USED = frozenset(
    name
    for names in (PROVIDER, MODEL, RESPONSE_MODEL, FINISH, TIER, USER, SESSION, HTTP_STATUS)
    for name in names
) | frozenset(name for names in USAGE.values() for name in names)


def first(attributes: Attributes, names: Sequence[str]) -> Value:
    """The value under the first of the names that is there."""
    for name in names:
        value = attributes.get(name)
        if value is not None:
            return value
    return None


def text(attributes: Attributes, names: Sequence[str], most: int = 256) -> str:
    """The same as text of at most so many characters; a list's first element; "" without one."""
    value = first(attributes, names)
    if isinstance(value, list):
        value = value[0] if value else None
    return value[:most] if isinstance(value, str) else ""


def count(attributes: Attributes, names: Sequence[str]) -> int | None:
    """The same as a count; None without one, and for what is none."""
    value = first(attributes, names)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_UNITS:
        return None
    return value


def usage(attributes: Attributes) -> dict[str, int] | None:
    """Units as callmeter counts them (docs/reference/formats.md); None if nothing is said.

    ``input`` counts cached tokens too, as today's convention does. Instruments of before that gave
    Anthropic's figures as they came left them out: where the parts are more than the whole, the
    whole is without them.
    """
    found = {
        unit: value
        for unit, names in USAGE.items()
        if (value := count(attributes, names)) is not None
    }
    if not found:
        return None
    cached = found.get("cache_read", 0) + found.get("cache_write", 0)
    if cached > found.get("input", 0):
        found["input"] = found.get("input", 0) + cached
    if found.get("reasoning", 0) > found.get("output", 0):
        found["output"] = found.get("output", 0) + found["reasoning"]
    return found


def operation(attributes: Attributes) -> str:
    """The convention's word for what the span did, or ``span``."""
    named = text(attributes, OPERATION)
    if named:
        return _OPERATIONS.get(named, named)
    asked = text(attributes, ("llm.request.type",)).lower()
    if asked and asked != "unknown":
        return _OPERATIONS.get(asked, asked)
    for name in _KIND_NAMES:
        kind = text(attributes, (name,)).lower()
        if kind:
            return _KINDS.get(kind, PLAIN)
    if first(attributes, MODEL) is not None and usage(attributes) is not None:
        return "chat"
    return PLAIN


def is_genai(attributes: Attributes) -> bool:
    """Whether a span speaks of a model, an agent or a tool."""
    return any(name.startswith(_SPEAKS) for name in attributes)


def is_content(name: str) -> bool:
    """Whether an attribute holds a prompt, an answer or arguments."""
    return name.startswith(_CONTENT)


def is_used(name: str) -> bool:
    """Whether an attribute has become a field of its own."""
    return name in _USED
