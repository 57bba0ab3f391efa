"""What a metric, an annotation and an experiment may hold; everything else is a ``ValueError``.

The figures are those of the original's service: they keep series few and lines short.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import orjson

JsonValue: TypeAlias = (
    "str | int | float | bool | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)
JsonObject: TypeAlias = "Mapping[str, JsonValue]"

MAX_NAME_BYTES = 256
MAX_METADATA_KEYS = 32
MAX_KEY_BYTES = 128
MAX_VALUE_BYTES = 512
MAX_METADATA_BYTES = 4096
MAX_ANNOTATION_CHARS = 16_000
MAX_ANNOTATION_METADATA_BYTES = 65_536
MAX_META_BYTES = 65_536
MAX_SLUG_CHARS = 200
MAX_DESCRIPTION_CHARS = 4_000
MAX_ERROR_CHARS = 8_000
#: Timestamps below it are seconds, from it on milliseconds.
MILLISECONDS_FROM = 10_000_000_000
_INT64 = 2**63


def checked_name(name: object) -> str:
    """A metric's name: printable ASCII, 1 to 256 bytes."""
    if not isinstance(name, str) or not name.isascii() or not name.isprintable():
        raise ValueError(f"a metric's name is printable ASCII, not {name!r:.80}")
    if not 1 <= len(name) <= MAX_NAME_BYTES:
        raise ValueError(f"a metric's name has 1 to {MAX_NAME_BYTES} bytes, not {len(name)}")
    return name


def checked_step(step: Any) -> int | None:
    """A whole number of 64 bits, or None for an event without a step."""
    if step is None:
        return None
    whole = int(step) if isinstance(step, float) and step.is_integer() else operator.index(step)
    if not -_INT64 < whole < _INT64:
        raise ValueError(f"step does not fit 64 bits: {step}")
    return whole


def checked_labels(metadata: Mapping[Any, Any] | None) -> tuple[dict[str, str], int]:
    """A copy of a metric's metadata, sorted by key (their order says nothing), and its bytes."""
    if not metadata:
        return {}, 0
    if len(metadata) > MAX_METADATA_KEYS:
        raise ValueError(f"metric metadata has {len(metadata)} keys, over {MAX_METADATA_KEYS}")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ValueError(f"metric metadata maps text to text: {key!r:.80} does not")  # noqa: TRY004  # documented
        if not 1 <= len(key.encode()) <= MAX_KEY_BYTES:
            raise ValueError(f"a metadata key has 1 to {MAX_KEY_BYTES} bytes: {key!r:.80}")
        if len(value.encode()) > MAX_VALUE_BYTES:
            raise ValueError(f"the metadata value of {key!r:.80} is over {MAX_VALUE_BYTES} bytes")
    labels = {str(key): str(metadata[key]) for key in sorted(metadata)}
    size = len(orjson.dumps(labels))
    if size > MAX_METADATA_BYTES:
        raise ValueError(f"metric metadata is {size} bytes of JSON, over {MAX_METADATA_BYTES}")
    return labels, size


def checked_annotation(text: object) -> int:
    """1 to 16,000 characters; returns their bytes as JSON."""
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_ANNOTATION_CHARS:
        raise ValueError(f"an annotation is text of 1 to {MAX_ANNOTATION_CHARS} characters")
    try:
        return len(orjson.dumps(text))
    except TypeError as exc:
        raise ValueError(f"an annotation is text: {exc}") from None


def checked_json(values: Mapping[str, Any] | None, what: str, limit: int) -> tuple[Any, int]:
    """A deep copy of a JSON object, in its order, and its bytes."""
    try:
        encoded = orjson.dumps(dict(values or {}), option=orjson.OPT_SERIALIZE_NUMPY)
    except (TypeError, orjson.JSONEncodeError) as exc:
        raise ValueError(f"{what} is not JSON: {exc}") from None
    if len(encoded) > limit:
        raise ValueError(f"{what} is {len(encoded)} bytes of JSON, over {limit}")
    return orjson.loads(encoded), len(encoded)


def checked_slug(slug: object) -> str:
    """An experiment's slug: 1 to 200 characters."""
    if not isinstance(slug, str) or not 1 <= len(slug) <= MAX_SLUG_CHARS:
        raise ValueError(f"a slug is text of 1 to {MAX_SLUG_CHARS} characters")
    return slug


def checked_description(description: object) -> str:
    """Up to 4,000 characters."""
    if not isinstance(description, str) or len(description) > MAX_DESCRIPTION_CHARS:
        raise ValueError(f"a description is text of up to {MAX_DESCRIPTION_CHARS} characters")
    return description


def timestamp_ms(timestamp: float) -> int:
    """Milliseconds since the epoch, from seconds (below 10,000,000,000) or milliseconds."""
    if not math.isfinite(timestamp) or timestamp < 0:
        raise ValueError(f"not a time in seconds or milliseconds: {timestamp!r}")
    return round(timestamp * 1000) if timestamp < MILLISECONDS_FROM else int(timestamp)
