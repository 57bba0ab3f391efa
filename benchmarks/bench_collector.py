"""The collector against a bare aiohttp handler that reads the same bodies and answers ``{}``.

    python benchmarks/bench_collector.py [--json] [--seconds 3] [--rounds 3]

Server and client have a process each. Both servers take the same requests, in turns, over eight
connections; the log behind the collector forgets what it is given, so that its own work is what is
measured: keys, limits, unpacking, headers, and of spans the reading and the making of envelopes.
Ratio = the collector's requests a second / the bare handler's, median over rounds. The CPU time is
the server's alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

import zstandard
from aiohttp import ClientSession, web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from callmeter.collector.app import make_app, make_runner
from callmeter.collector.config import CollectorConfig
from callmeter.collector.keys import KeyRing
from callmeter.ids import uuid7
from callmeter.log.record import Appended, NewRecord
from callmeter.schema.envelope import Header, encode

CONNECTIONS = 8
KEY = "bench-key-1"
EVENTS = 200
SPANS = 512
PATHS = ("/v1/envelopes", "/v1/traces")


class Nowhere:
    """A log that takes everything."""

    log_id = uuid7()
    partitions = 4

    async def append(self, records: Sequence[NewRecord]) -> list[Appended]:
        return [Appended(0, 0)] * len(records)

    async def close(self) -> None:
        """Nothing to close."""


async def _bare(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=b"{}", content_type="application/json")


def serve(kind: str, pipe: Connection) -> None:
    """A server's process: tells its port, ends when told to."""

    async def run() -> None:
        if kind == "bare":
            app = web.Application(client_max_size=2**24)
            for path in PATHS:
                app.router.add_post(path, _bare)
            runner = web.AppRunner(app, access_log=None, auto_decompress=False)
        else:
            config = CollectorConfig(keys=KeyRing.parse([f"{KEY}:*"]))
            runner = make_runner(make_app(Nowhere(), config))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        pipe.send(runner.addresses[0][1])
        await asyncio.to_thread(pipe.recv)
        await runner.cleanup()

    asyncio.run(run())


class Case(NamedTuple):
    """A body that is sent again and again; ``units`` envelopes or spans are in it."""

    name: str
    path: str
    units: int
    body: bytes
    headers: dict[str, str]


def envelopes(count: int) -> bytes:
    line = json.dumps(
        {
            "kind": "call_end", "ts_us": 1, "call_id": uuid7(), "trace_id": "ab" * 16,
            "started_us": 1, "operation": "chat", "status": "ok", "provider": "openai",
            "model": "gpt-4o-mini", "latency_us": 700_000, "usage": {"input": 1155, "output": 211},
            "tags": {"team": "search"}, "attributes": {"region": "eu", "temperature": "0.5"},
        }
    ).encode()  # fmt: skip
    head = {"source": uuid7(), "n": EVENTS, "sent_us": 1, "project": "p", "service": "bench"}
    return b"".join(encode(Header(seq=seq, **head), [line] * EVENTS) for seq in range(count))


def spans(count: int) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    of_resource.resource.attributes.add(key="service.name").value.string_value = "bench"
    scope = of_resource.scope_spans.add()
    now_ns = time.time_ns()
    texts = {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini", "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "server.address": "api.openai.com", "gen_ai.response.id": "chatcmpl-123",
    }  # fmt: skip
    for number in range(count):
        span = scope.spans.add(
            trace_id=os.urandom(16), span_id=os.urandom(8), parent_span_id=os.urandom(8),
            name="chat gpt-4o-mini", start_time_unix_nano=now_ns - 10**9,
            end_time_unix_nano=now_ns,
        )  # fmt: skip
        for key, text in texts.items():
            span.attributes.add(key=key).value.string_value = text
        for key, value in (("gen_ai.usage.input_tokens", number), ("server.port", 443)):
            span.attributes.add(key=key).value.int_value = value
        span.attributes.add(key="gen_ai.usage.output_tokens").value.int_value = 211
    return request


def spans_as_json(request: ExportTraceServiceRequest) -> bytes:
    from google.protobuf.json_format import MessageToDict

    document = MessageToDict(request)
    for of_resource, raw in zip(document["resourceSpans"], request.resource_spans, strict=True):
        for of_scope, raw_scope in zip(of_resource["scopeSpans"], raw.scope_spans, strict=True):
            for span, raw_span in zip(of_scope["spans"], raw_scope.spans, strict=True):
                span["traceId"] = raw_span.trace_id.hex()
                span["spanId"] = raw_span.span_id.hex()
                span["parentSpanId"] = raw_span.parent_span_id.hex()
    return json.dumps(document).encode()


def cases() -> list[Case]:
    one, ten, request = envelopes(1), envelopes(10), spans(SPANS)
    zstd = {"Content-Encoding": "zstd"}
    protobuf = {"Content-Type": "application/x-protobuf"}
    plain = request.SerializeToString()
    as_json = {"Content-Type": "application/json"}
    return [
        Case("one envelope a request, plain", PATHS[0], 1, one, {}),
        Case("ten envelopes a request, plain", PATHS[0], 10, ten, {}),
        Case("ten envelopes a request, zstd", PATHS[0], 10, zstandard.compress(ten), zstd),
        Case(f"{SPANS} spans a request, protobuf", PATHS[1], SPANS, plain, protobuf),
        Case(f"{SPANS} spans a request, JSON", PATHS[1], SPANS, spans_as_json(request), as_json),
    ]


async def load(port: int, case: Case, seconds: float) -> float:
    """Requests a second over all connections."""
    url = f"http://127.0.0.1:{port}{case.path}"
    headers = {**case.headers, "Authorization": f"Bearer {KEY}"}
    done = 0
    until_s = time.perf_counter() + seconds

    async def send(session: ClientSession) -> None:
        nonlocal done
        while time.perf_counter() < until_s:
            async with session.post(url, data=case.body, headers=headers) as answer:
                await answer.read()
                assert answer.status == 200, answer.status
            done += 1

    async with ClientSession() as session:
        began_s = time.perf_counter()
        await asyncio.gather(*(send(session) for _ in range(CONNECTIONS)))
        return done / (time.perf_counter() - began_s)


def cpu_s(pid: int) -> float:
    """CPU time of a process so far."""
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Server:
    def __init__(self, kind: str) -> None:
        spawning = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawning.Pipe()
        self.process = spawning.Process(target=serve, args=(kind, theirs))
        self.process.start()
        self.port = self._pipe.recv()

    def measure(self, case: Case, seconds: float) -> tuple[float, float]:
        """Requests a second, and the server's CPU seconds for each."""
        before_s = cpu_s(self.process.pid or 0)
        began_s = time.perf_counter()
        rate = asyncio.run(load(self.port, case, seconds))
        done = rate * (time.perf_counter() - began_s)
        return rate, (cpu_s(self.process.pid or 0) - before_s) / done

    def stop(self) -> None:
        self._pipe.send(None)
        self.process.join()


def run(seconds: float, rounds: int, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    servers = {kind: Server(kind) for kind in ("bare", "collector")}
    figures: dict[str, dict[str, float]] = {}
    try:
        for case in cases():
            for server in servers.values():
                server.measure(case, 0.3)
            found: dict[str, list[tuple[float, float]]] = {kind: [] for kind in servers}
            for _ in range(rounds):
                for kind, server in servers.items():
                    found[kind].append(server.measure(case, seconds))
            rate, cost = (statistics.median(each) for each in zip(*found["collector"], strict=True))
            ratios = [
                ours[0] / bare[0]
                for ours, bare in zip(found["collector"], found["bare"], strict=True)
            ]
            figures[case.name] = {
                "requests_per_s": round(rate, 1),
                "units_per_s": round(rate * case.units),
                "cpu_us_per_unit": round(cost / case.units * 1e6, 2),
                "ratio_to_bare": round(statistics.median(ratios), 3),
            }
            one = figures[case.name]
            say(
                f"{case.name:<34} {one['units_per_s']:>9,.0f}/s  "
                f"{one['cpu_us_per_unit']:>8.2f} µs CPU each  {one['ratio_to_bare']:>6.1%} of bare"
            )
    finally:
        for server in servers.values():
            server.stop()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    quiet = options.json
    figures = run(options.seconds, options.rounds, lambda line: None if quiet else print(line))
    if options.json:
        machine = (
            f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
        )
        print(
            json.dumps({"name": "collector", "machine": machine, "figures": figures, "targets": []})
        )


if __name__ == "__main__":
    main()
