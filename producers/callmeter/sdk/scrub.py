"""What must not or need not leave the process: redacted keys, and text beyond the limit."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

REDACTED = "[REDACTED]"
_JOINERS = frozenset("\u200d\ufe0e\ufe0f")


def redact(value: Any, keys: Collection[str]) -> Any:
    """Replace the values of ``keys`` (given in lower case) at any depth of dicts and lists."""
    if isinstance(value, Mapping):
        return {
            k: REDACTED if str(k).lower() in keys else redact(v, keys) for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(v, keys) for v in value]
    return value


def cut_text(text: str, max_chars: int) -> str:
    """At most ``max_chars`` characters, never ending within a combined one (é, 👩‍💻)."""
    if len(text) <= max_chars:
        return text
    end = max_chars
    while end > 0 and _continues(text, end):
        end -= 1
    return text[:end]


def cut_texts(value: Any, max_chars: int) -> tuple[Any, bool]:
    """Cut every text of a JSON value; says whether any was cut."""
    if isinstance(value, str):
        short = cut_text(value, max_chars)
        return short, len(short) != len(value)
    if isinstance(value, dict):
        cut = False
        out: dict[str, Any] = {}
        for k, v in value.items():
            out[k], was = cut_texts(v, max_chars)
            cut = cut or was
        return out, cut
    if isinstance(value, list):
        pairs = [cut_texts(v, max_chars) for v in value]
        return [v for v, _ in pairs], any(was for _, was in pairs)
    return value, False


def valid_unicode(value: Any) -> Any:
    """The same JSON value with lone surrogates replaced and integers beyond 64 bits as text."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {valid_unicode(str(k)): valid_unicode(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [valid_unicode(v) for v in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value)
    return value


def _continues(text: str, at: int) -> bool:
    """Whether the character at ``at`` belongs to the one before it."""
    here = text[at]
    return (
        unicodedata.combining(here) != 0
        or here in _JOINERS
        or text[at - 1] == "\u200d"
        or "\U0001f3fb" <= here <= "\U0001f3ff"
    )
