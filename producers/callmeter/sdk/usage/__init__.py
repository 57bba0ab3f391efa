"""Usage out of providers' replies: objects and dicts of every shape, one set of units.

``input`` counts all input tokens and ``cache_read``/``cache_write`` are parts of it; Anthropic and
Bedrock report cached tokens apart, so they are added here. A reply without usage is unknown (None),
never 0; ``{}`` is never invented either.
"""

from __future__ import annotations

from callmeter.sdk.usage.reading import Reading, read_reply
from callmeter.sdk.usage.shapes import usage_of

__all__ = ["Reading", "read_reply", "usage_of"]
