"""Record types of the topic ``metered``: what the judge made of an envelope, and its deltas.

The contract is docs/reference/formats.md, "Metered records". The meter writes these types and sinks
read them; ``read_header`` is all that a sink needs of a record in Python. Fields stand in the order
of the wire.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, Struct, UnsetType

METERED_VERSION = 1
NIL_SOURCE = "00000000-0000-0000-0000-000000000000"
#: The key of ``deltas`` records; their partition is always given.
DELTAS_KEY = b"deltas"


class MeteredHeader(Struct, kw_only=True, gc=False):
    """Line 0 of a ``type: envelope`` record: origin, verdict, and the envelope's header.

    ``events`` and ``refused`` count the lines of an accepted envelope: ``events + refused == n``.
    Both are 0 for a duplicate and for a refused envelope. ``bytes`` is the size of the original.
    """

    v: int = METERED_VERSION
    type: Literal["envelope"] = "envelope"
    log: str
    partition: int
    offset: int
    log_ts_us: int
    verdict: str
    reason: str = ""
    detail: str = ""
    source: str = NIL_SOURCE
    seq: int = 0
    n: int = 0
    sent_us: int = 0
    project: str = ""
    environment: str = ""
    service: str = ""
    sdk: str = ""
    accepted: int = 0
    dropped: dict[str, int] = {}
    last: bool = False
    events: int = 0
    refused: int = 0
    bytes: int = 0


class Refused(Struct, tag_field="kind", tag="refused", gc=False):
    """A dead letter: a refused line in its place, or the beginning of a refused envelope."""

    reason: str
    detail: str
    line: str


class Controls(Struct, kw_only=True, gc=False):
    """Totals of one checkpoint, to be compared with the raw rows of its origin range.

    ``envelopes`` counts every record of the range, duplicates and refused ones included; ``events``
    and ``refused`` the lines of accepted envelopes. ``calls``, ``operations``, ``failures`` and
    ``usage`` are sums over ``call_end`` of every operation but ``calls``, which counts the model
    operations, and ``operations``, which counts the rest. ``cost_pico`` sums calls and ``costs``.
    """

    envelopes: int = 0
    duplicates: int = 0
    refused_envelopes: int = 0
    events: int = 0
    refused: int = 0
    calls: int = 0
    operations: int = 0
    failures: int = 0
    costs: int = 0
    cost_pico: str = "0"
    unpriced: int = 0
    usage_unknown: int = 0
    usage: dict[str, int] = {}


class DeltasHeader(Struct, kw_only=True, gc=False):
    """Line 0 of a ``type: deltas`` record; ``first`` and ``last`` are origin offsets, included."""

    v: int = METERED_VERSION
    type: Literal["deltas"] = "deltas"
    log: str
    partition: int
    first: int
    last: int
    part: int
    parts: int
    log_ts_us: int
    controls: Controls | UnsetType = UNSET


class Delta(Struct, kw_only=True, omit_defaults=True, gc=False):
    """What one checkpoint adds to one minute of one combination of dimensions.

    Absent measures are 0. ``latency_min_us``, ``latency_max_us``, ``first_us`` and ``last_us`` are
    absent when nothing was measured: absent is no value, not 0.
    """

    minute: int
    project: str
    environment: str
    service: str
    provider: str
    model: str
    operation: str
    phase: str
    status: str
    calls: int = 0
    attempts: int = 0
    failures: int = 0
    usage: dict[str, int] = {}
    cost_pico: str = "0"
    unpriced: int = 0
    usage_unknown: int = 0
    latency_count: int = 0
    latency_sum_us: int = 0
    latency_min_us: int | UnsetType = UNSET
    latency_max_us: int | UnsetType = UNSET
    latency_hist: dict[int, int] = {}
    ttft_count: int = 0
    ttft_hist: dict[int, int] = {}
    first_us: int | UnsetType = UNSET
    last_us: int | UnsetType = UNSET


class _Type(Struct):
    v: int
    type: str


_type = msgspec.json.Decoder(_Type)
_envelope = msgspec.json.Decoder(MeteredHeader)
_deltas = msgspec.json.Decoder(DeltasHeader)


def read_header(value: bytes) -> MeteredHeader | DeltasHeader:
    """Line 0 of a metered record. ``msgspec.DecodeError`` if it is none of the two types."""
    end = value.find(b"\n")
    line = value if end < 0 else value[:end]
    kind = _type.decode(line).type
    if kind == "envelope":
        return _envelope.decode(line)
    if kind == "deltas":
        return _deltas.decode(line)
    raise msgspec.DecodeError(f"no such type of metered record: {kind[:60]!r}")
