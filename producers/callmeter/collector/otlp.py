"""``POST /v1/traces``: OpenTelemetry's spans over HTTP, as protobuf or JSON.

https://opentelemetry.io/docs/specs/otlp/#otlphttp
"""

from __future__ import annotations

import asyncio
import importlib
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from aiohttp import web

from callmeter.collector.context import (
    CONTEXT,
    ApiError,
    Context,
    error_response,
    require_write,
)
from callmeter.collector.ingest import append
from callmeter.collector.keys import ANY, Grant
from callmeter.collector.metrics import BYTES, ENVELOPES, EVENTS, SPANS
from callmeter.collector.reading import body_in_hand
from callmeter.errors import MissingExtraError
from callmeter.log.record import NewRecord
from callmeter.schema.topics import EVENTS as EVENTS_TOPIC
from callmeter.spans.calls import PROJECT, SpanError, call_of, check, is_copy
from callmeter.spans.names import is_genai, text
from callmeter.spans.nesting import Nesting
from callmeter.spans.span import BadRequestError, Span

PATH = "/v1/traces"
PROTOBUF = "application/x-protobuf"
JSON = "application/json"
#: Other signals, so that a misdirected exporter is told and does not try for ever.
OTHER_SIGNALS = ("/v1/metrics", "/v1/logs", "/v1development/profiles")
#: The loop serves others after so many spans.
_BREATH = 200
_CODECS = {
    PROTOBUF: "callmeter.collector.otlp_protobuf",
    JSON: "callmeter.collector.otlp_json",
}
#: HTTP status to gRPC's code, for ``google.rpc.Status``.
_CODES: Mapping[int, int] = {
    400: 3,
    401: 16,
    403: 7,
    404: 5,
    408: 4,
    413: 8,
    415: 3,
    429: 8,
    503: 14,
}
_INTERNAL = 13

NESTING: web.AppKey[Nesting] = web.AppKey("callmeter_otlp_nesting", Nesting)


class Metered(NamedTuple):
    """What became of a request's spans."""

    records: list[NewRecord]
    kinds: Counter[str]
    problems: Counter[str]

    @property
    def rejected(self) -> int:
        return sum(self.problems.values())


def install(app: web.Application) -> None:
    """Add the routes."""
    app[NESTING] = Nesting()
    app.router.add_post(PATH, post_traces)
    for path in OTHER_SIGNALS:
        app.router.add_post(path, not_taken)


async def post_traces(request: web.Request) -> web.Response:
    """200 once the log has every span that is not rejected; see docs/guides/otlp.md."""
    codec = None
    try:
        codec = _codec(request)
        answered = await _take(request, codec)
    except ApiError as exc:
        return _status(request, codec, exc)
    return web.Response(body=answered, content_type=request.content_type)


async def not_taken(request: web.Request) -> web.Response:
    """404: spans alone are taken."""
    require_write(request)
    raise ApiError(
        404, "otlp_signal", f"callmeter takes OTLP traces alone, at {PATH}: send others elsewhere"
    )


async def _take(request: web.Request, codec: Any) -> bytes:
    context = request.app[CONTEXT]
    grant = require_write(request)
    context.admit(grant, 0, 0)
    limit = grant.limits.body_bytes or context.config.max_body_bytes
    mark = b"{" if codec.__name__.endswith("json") else b"\n"
    async with body_in_hand(request, context, limit, mark=mark) as body:
        try:
            spans = codec.read_spans(body) if body else []
        except BadRequestError as exc:
            raise ApiError(400, "bad_otlp", str(exc)) from None
        metered = await _meter(request, grant, spans)
        context.admit(grant, len(metered.records), len(body))
        if metered.records:
            await append(context, metered.records)
    _count(context, metered)
    problems = "; ".join(f"{count} × {what}" for what, count in metered.problems.most_common(5))
    answered: bytes = codec.answer(metered.rejected, problems)
    return answered


async def _meter(request: web.Request, grant: Grant, spans: Sequence[Span]) -> Metered:
    context = request.app[CONTEXT]
    now_us = context.clock.now_us()
    metered = Metered([], Counter(), Counter())
    for project, of_project in _by_project(spans, grant, context).items():
        if not grant.covers(project):
            metered.problems["this key does not cover the span's project"] += len(of_project)
            continue
        good = list(_good(of_project, context, now_us, metered))
        wrappers = request.app[NESTING].wrappers(project, good)
        for number, span in enumerate(good):
            call = call_of(
                span,
                project,
                wraps=(span.trace_id, span.span_id) in wrappers,
                environment=context.config.trace_environment,
            )
            metered.kinds[call.kind] += 1
            metered.records.append(NewRecord(EVENTS_TOPIC.name, call.source.encode(), call.data))
            if number % _BREATH == 0:
                await asyncio.sleep(0)
    if spans and not metered.records and len(metered.problems) == 1:
        what, count = next(iter(metered.problems.items()))
        if count == len(spans) and "project" in what:
            raise ApiError(403, "project", what)
    return metered


def _good(spans: Sequence[Span], context: Context, now_us: int, metered: Metered) -> Iterator[Span]:
    """The spans to store; those that cannot be are counted by what is wrong."""
    for span in spans:
        try:
            check(span, now_us)
        except SpanError as exc:
            metered.problems[str(exc)] += 1
            continue
        if context.config.otlp_spans == "genai" and not (
            is_genai(span.attributes) or is_copy(span)
        ):
            metered.kinds["left_out"] += 1
            continue
        yield span


def _by_project(
    spans: Sequence[Span], grant: Grant, context: Context
) -> Mapping[str, Sequence[Span]]:
    """By the resource's ``callmeter.project``, else the key's own project, else the default."""
    own = context.config.trace_project
    if len(grant.projects) == 1 and ANY not in grant.projects:
        own = next(iter(grant.projects))
    found: OrderedDict[str, list[Span]] = OrderedDict()
    for span in spans:
        found.setdefault(text(span.resource, (PROJECT,)) or own, []).append(span)
    return found


def _count(context: Context, metered: Metered) -> None:
    metrics = context.metrics
    metrics.add(ENVELOPES, len(metered.records))
    metrics.add(EVENTS, len(metered.records))
    metrics.add(BYTES, sum(len(record.value or b"") for record in metered.records))
    for kind, count in metered.kinds.items():
        metrics.add(SPANS, count, result=kind)
    if metered.rejected:
        metrics.add(SPANS, metered.rejected, result="rejected")


def _codec(request: web.Request) -> Any:
    name = _CODECS.get(request.content_type)
    if name is None:
        raise ApiError(415, "unknown_content_type", f"send {PROTOBUF} or {JSON}")
    try:
        return importlib.import_module(name)
    except MissingExtraError as exc:
        raise ApiError(501, "no_protobuf", str(exc)) from None


def _status(request: web.Request, codec: Any, exc: ApiError) -> web.Response:
    """A refusal as OTLP has it: the request's own encoding of ``google.rpc.Status``."""
    response = error_response(request.app[CONTEXT], exc)
    if codec is not None:
        response.body = codec.status(_CODES.get(exc.status, _INTERNAL), str(exc))
        response.content_type = request.content_type
    return response
