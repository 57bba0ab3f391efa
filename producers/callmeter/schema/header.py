"""The envelope's header as a record type: for its JSON Schema, and for the judge's fast path.

It accepts what ``envelope.decode_header`` accepts, which has the better words for what is wrong.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from callmeter.schema.envelope import FORMAT_VERSION, MAX_DROP_REASONS, MAX_EVENTS
from callmeter.schema.events import INT64_MAX, Uuid

_Int63 = Annotated[int, Meta(ge=0, le=INT64_MAX)]
_Text = Annotated[str, Meta(max_length=256)]
_Reason = Annotated[str, Meta(max_length=64)]


class EnvelopeHeader(Struct, gc=False):
    """Line 0 of an envelope. ``accepted`` and ``dropped`` are cumulative over the source's life."""

    v: Annotated[int, Meta(ge=FORMAT_VERSION, le=FORMAT_VERSION)]
    source: Uuid
    seq: _Int63
    n: Annotated[int, Meta(ge=0, le=MAX_EVENTS)]
    sent_us: _Int63
    project: Annotated[str, Meta(min_length=1, max_length=256)]
    environment: _Text = ""
    service: _Text = ""
    sdk: _Text = ""
    accepted: _Int63 = 0
    dropped: Annotated[dict[_Reason, _Int63], Meta(max_length=MAX_DROP_REASONS)] = {}
    last: bool = False
