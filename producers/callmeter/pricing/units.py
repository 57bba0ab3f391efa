"""Units of usage: which is a part of which.

Every unit is a point in a small space of facets. ``cache_read`` is *tokens, input, cached*; since
its facets include those of ``input`` (*tokens, input*), it is a part of ``input``. Two units
overlap where their facets do not contradict; what lies in both is the unit with the facets of both:
``cache_read`` and ``audio_input`` meet in ``cache_audio_read``.

The facets are those of the genai-prices registry, so that both decompose a usage alike; the names
are callmeter's. A unit that is not listed (``image``, say) stands alone: it is part of nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

#: Counted once for every call, unless the usage says otherwise; needs no price of its own.
REQUEST = "request"
INPUT = "input"
OUTPUT = "output"

MODALITIES = ("text", "audio", "image", "video")
_TTLS = ("5m", "1h")


def _registry() -> dict[str, dict[str, str]]:
    tokens_in = {"family": "tokens", "direction": "input"}
    tokens_out = {"family": "tokens", "direction": "output"}
    units: dict[str, dict[str, str]] = {}

    def tokens(modality: str | None) -> None:
        # gpt says "audio_input" for the part of the input, but "cache_audio_read" for its cached
        # part
        side = f"{modality}_" if modality else ""
        more = {"modality": modality} if modality else {}
        units[f"{side}input"] = {**tokens_in, **more}
        units[f"{side}output"] = {**tokens_out, **more}
        units[f"cache_{side}read"] = {**tokens_in, **more, "type": "cache_read"}
        units[f"cache_{side}write"] = {**tokens_in, **more, "type": "cache_write"}
        for ttl in _TTLS:
            units[f"cache_{side}write_{ttl}"] = {
                **tokens_in,
                **more,
                "type": "cache_write",
                "ttl": ttl,
            }
        units[f"{side}tool_input"] = {**tokens_in, **more, "type": "tool"}
        units[f"{side}reasoning"] = {**tokens_out, **more, "type": "reasoning"}
        units[f"{side}citation"] = {**tokens_out, **more, "type": "citation"}

    for modality in (None, *MODALITIES):
        tokens(modality)
    units["characters"] = {"family": "characters", "direction": "input"}
    units["messages"] = {"family": "messages", "direction": "input", "modality": "text"}
    units["audio_seconds"] = {"family": "durations", "modality": "audio"}
    units["audio_input_seconds"] = {**units["audio_seconds"], "direction": "input"}
    units["audio_output_seconds"] = {**units["audio_seconds"], "direction": "output"}
    units["pixels"] = {"family": "pixels", "direction": "input"}
    units["pages"] = {"family": "pages", "direction": "input"}
    units["annotated_pages"] = {**units["pages"], "page": "annotated"}
    units["rerank_search"] = {"family": "rerank"}
    units["search"] = {"family": "tool_calls", "tool": "web_search"}
    units["social_search"] = {"family": "tool_calls", "tool": "social_search"}
    units["storage_search"] = {"family": "tool_calls", "tool": "storage_search"}
    units["code_execution"] = {"family": "tool_calls", "tool": "code_execution"}
    units[REQUEST] = {"family": "requests"}
    return units


#: Every unit callmeter knows, with its facets.
UNITS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {name: MappingProxyType(facets) for name, facets in _registry().items()}
)
_BY_FACETS = {frozenset(facets.items()): name for name, facets in UNITS.items()}


def contains(outer: str, inner: str) -> bool:
    """Whether ``inner`` is ``outer`` or a part of it.

    >>> contains("input", "cache_read"), contains("cache_read", "input"), contains("input", "image")
    (True, False, False)
    """
    if outer == inner:
        return True
    if outer not in UNITS or inner not in UNITS:
        return False
    return UNITS[outer].items() <= UNITS[inner].items()


def overlap(a: str, b: str) -> str | None:
    """The unit that counts what is in both; ``None`` if they cannot overlap or no unit is named so.

    >>> overlap("cache_read", "audio_input"), overlap("input", "output")
    ('cache_audio_read', None)
    """
    if a not in UNITS or b not in UNITS:
        return a if a == b else None
    first, second = UNITS[a], UNITS[b]
    if any(second.get(facet, value) != value for facet, value in first.items()):
        return None
    return _BY_FACETS.get(frozenset({**first, **second}.items()))


def direction(unit: str) -> str | None:
    """``"input"``, ``"output"``, or ``None`` for what is neither (a request, a search)."""
    return UNITS.get(unit, {}).get("direction")
