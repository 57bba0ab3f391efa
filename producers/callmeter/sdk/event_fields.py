"""The fields of a call's event that are not attributes, and the limits of what they hold."""

from __future__ import annotations

import math
from typing import Any

from callmeter.schema.envelope import MAX_BYTES

#: The longest line: an envelope's limit less the longest header.
MAX_LINE_BYTES = MAX_BYTES - 16 * 1024
MAX_DIM_CHARS = 256
MAX_UNITS = 2**40
MAX_DURATION_US = 2**44
MAX_USAGE_UNITS = 64

NUMBER_FIELDS = {"http_status": (0, 999), "attempts": (1, 1_000_000)}
BEGIN, END, NUMBER = "begin", "end", "number"
#: Attributes that are fields of their own: in both events, in ``call_end`` only, and numbers there.
HOMES = {
    **dict.fromkeys(
        (
            "name",
            "provider",
            "model",
            "operation",
            "phase",
            "program",
            "node",
            "user",
            "session",
        ),
        BEGIN,
    ),
    **dict.fromkeys(
        ("response_model", "service_tier", "finish_reason", "error_type", "status"), END
    ),
    **dict.fromkeys(NUMBER_FIELDS, NUMBER),
}


def usage_of(units: Any) -> dict[str, int]:
    """Usage as the wire has it; what is no count at all is left out, never made 0."""
    if type(units) is tuple:
        first, second, more = units
        usage = {"input": first, "output": second}
        if more:
            usage.update(more)
    else:
        usage = units
    for value in usage.values():
        if type(value) is not int or not 0 <= value <= MAX_UNITS:
            return {
                str(k)[:64]: int(v)
                for k, v in list(usage.items())[:MAX_USAGE_UNITS]
                if isinstance(v, int | float) and math.isfinite(v) and 0 <= v <= MAX_UNITS
            }
    return usage
