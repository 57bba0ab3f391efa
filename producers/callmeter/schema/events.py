"""Record types of every event kind, as they travel (design 4). Unknown fields are ignored.

Times are integer microseconds UTC, durations integer microseconds, money a string of integer
pico-USD. Absent means unknown; it never means 0.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

INT64_MAX = 2**63 - 1
#: Largest count of one usage unit in one call; sums of 10**7 such calls fit an unsigned 64-bit sum.
MAX_UNITS = 2**40
#: Largest duration, 203 days: sums of 2**18 of them, more than a checkpoint holds, fit 63 bits.
MAX_DURATION_US = 2**44
#: Units in one call's usage; with their names' length it bounds a delta's line.
MAX_USAGE_UNITS = 64

#: Operations whose calls are model calls: they are ``calls`` in reports and may carry cost.
#: OpenTelemetry GenAI ``gen_ai.operation.name`` values.
MODEL_OPERATIONS = frozenset({"chat", "text_completion", "embeddings", "generate_content"})

Micros = Annotated[int, Meta(ge=0, le=4_102_444_800_000_000)]  # until the year 2100
Duration = Annotated[int, Meta(ge=0, le=MAX_DURATION_US)]
Count = Annotated[int, Meta(ge=0, le=MAX_UNITS)]
Dim = Annotated[str, Meta(max_length=256)]
Name = Annotated[str, Meta(min_length=1, max_length=256)]

# Decoding checks lengths; the judge checks the patterns, over a whole envelope at once (a pattern
# here would cost more than the rest of the decoding).
_UUID = "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
Uuid = Annotated[str, Meta(min_length=36, max_length=36, extra_json_schema={"pattern": _UUID})]
TraceId = Annotated[
    str, Meta(min_length=32, max_length=32, extra_json_schema={"pattern": "^[0-9a-f]{32}$"})
]
SpanId = Annotated[
    str, Meta(min_length=16, max_length=16, extra_json_schema={"pattern": "^[0-9a-f]{16}$"})
]
Pico = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=26,
        extra_json_schema={"pattern": "^-?(0|[1-9][0-9]{0,24})$"},
    ),
]
Unit = Annotated[str, Meta(min_length=1, max_length=64)]
Usage = Annotated[dict[Unit, Count], Meta(max_length=MAX_USAGE_UNITS)]


class CallBegin(Struct, tag_field="kind", tag="call_begin", omit_defaults=True, gc=False):
    """A call has started. ``estimate_pico`` is what the guard thinks it may cost."""

    ts_us: Micros
    call_id: Uuid
    trace_id: TraceId
    started_us: Micros
    operation: Name
    parent_span_id: SpanId | UnsetType = UNSET
    name: Dim = ""
    provider: Dim = ""
    model: Dim = ""
    phase: Dim = ""
    program: Dim = ""
    node: Dim = ""
    user: Dim = ""
    session: Dim = ""
    tags: dict[str, str] = {}
    attributes: dict[str, str] = {}
    estimate_pico: Pico | UnsetType = UNSET
    inputs: Raw | UnsetType = UNSET
    cut: list[str] = []


class CallEnd(Struct, tag_field="kind", tag="call_end", omit_defaults=True, gc=False):
    """A call has ended. Self-contained: repeats what ``call_begin`` said.

    ``usage`` absent means unknown; an empty map means known to be none. ``cost_pico`` set by the
    producer is an explicit cost and is kept as reported; else the meter fills it in.
    """

    ts_us: Micros
    call_id: Uuid
    trace_id: TraceId
    started_us: Micros
    operation: Name
    status: Name
    parent_span_id: SpanId | UnsetType = UNSET
    name: Dim = ""
    provider: Dim = ""
    model: Dim = ""
    response_model: Dim = ""
    phase: Dim = ""
    program: Dim = ""
    node: Dim = ""
    user: Dim = ""
    session: Dim = ""
    tags: dict[str, str] = {}
    attributes: dict[str, str] = {}
    service_tier: Dim = ""
    error_type: Dim = ""
    error_message: str = ""
    finish_reason: Dim = ""
    http_status: Annotated[int, Meta(ge=0, le=999)] | UnsetType = UNSET
    attempts: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    latency_us: Duration | UnsetType = UNSET
    ttft_us: Duration | UnsetType = UNSET
    usage: Usage | UnsetType = UNSET
    cost_pico: Pico | UnsetType = UNSET
    cost_source: Dim = ""
    price_version: Dim = ""
    inputs: Raw | UnsetType = UNSET
    outputs: Raw | UnsetType = UNSET
    cut: list[str] = []


class Cost(Struct, tag_field="kind", tag="cost", omit_defaults=True, gc=False):
    """Money apart from its call: a bill, a correction. May be negative."""

    ts_us: Micros
    started_us: Micros
    cost_pico: Pico
    source: Name
    call_id: Uuid | UnsetType = UNSET
    operation: Dim = ""
    provider: Dim = ""
    model: Dim = ""
    phase: Dim = ""
    program: Dim = ""
    user: Dim = ""
    session: Dim = ""
    status: Dim = ""
    service: Dim = ""  # of the call it corrects, where that is not the header's
    environment: Dim = ""
    tags: dict[str, str] = {}
    price_version: Dim = ""
    note: str = ""


class Metric(Struct, tag_field="kind", tag="metric", omit_defaults=True, gc=False):
    """One finite number of a series; series identity is (experiment, name, labels)."""

    ts_us: Micros
    name: Name
    value: float
    step: Annotated[int, Meta(ge=-INT64_MAX, le=INT64_MAX)] | None = None
    labels: dict[str, str] = {}
    experiment: Dim = ""
    event_id: Dim = ""


class Annotation(Struct, tag_field="kind", tag="annotation", omit_defaults=True, gc=False):
    """Text on a call, an experiment or the project, with JSON metadata."""

    ts_us: Micros
    text: str
    call_id: Uuid | UnsetType = UNSET
    experiment: Dim = ""
    metadata: Raw | UnsetType = UNSET
    event_id: Dim = ""


class Experiment(Struct, tag_field="kind", tag="experiment", omit_defaults=True, gc=False):
    """Metadata or status of an experiment; identity is (project, slug)."""

    ts_us: Micros
    slug: Name
    status: Dim = ""  # "", "running", "done", "error"
    error_name: str = ""
    error_detail: str = ""
    description: str = ""
    meta: Raw | UnsetType = UNSET
    event_id: Dim = ""


class Heartbeat(Struct, tag_field="kind", tag="heartbeat", omit_defaults=True, gc=False):
    """The source lives: number of open calls, and the ids of those open longer than 30 s."""

    ts_us: Micros
    open: Count
    open_long: list[Uuid] = []


class InputError(Struct, tag_field="kind", tag="input_error", omit_defaults=True, gc=False):
    """A line of a replayed file that could not be read; the meter makes it a dead letter."""

    ts_us: Micros
    file: str
    line_number: Annotated[int, Meta(ge=1)]
    detail: str
    line: str = ""


Event = CallBegin | CallEnd | Cost | Metric | Annotation | Experiment | Heartbeat | InputError

KINDS: dict[str, type[Struct]] = {
    "call_begin": CallBegin,
    "call_end": CallEnd,
    "cost": Cost,
    "metric": Metric,
    "annotation": Annotation,
    "experiment": Experiment,
    "heartbeat": Heartbeat,
    "input_error": InputError,
}
