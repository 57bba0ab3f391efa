"""A collector that can be well, refuse, hang up after it has stored, hang, or be away.

It stores into a SQLite log; what counts is read behind a real meter.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson

from callmeter.clock import ManualClock, SystemClock
from callmeter.log.record import NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter.schema.alerts import Alert, decode_alert
from callmeter.schema.envelope import decode_header, split_envelopes, split_lines
from callmeter_processors.limits import MeterLimits
from callmeter_processors.meter import meter_factory
from callmeter_processors.runtime.local import LocalRuntime

WELL, REFUSES, HANGS_UP, HANGS, AWAY = "well", "refuses", "hangs up", "hangs", "away"


class NoPrices:
    """Every call is unpriced."""

    version = ""

    def price(self, *args: object, **kwargs: object) -> None:
        return None

    def quote(self, *args: object, **kwargs: object) -> None:
        return None


class MoodyCollector:
    """``mood`` may be changed at any time; ``seen`` counts requests by the mood they met.
    Away it
       hangs up unread.
    """

    def __init__(self, path: Path, port: int = 0) -> None:
        self.log = SqliteLog(path)
        self.mood = WELL
        self.seen: Counter[str] = Counter()
        self._end = threading.Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                with suppress(OSError):  # the producer was killed: it reads no answer
                    collector._answer(self)

            def log_message(self, *args: object) -> None:
                """Nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                """A producer that is killed in the middle of a request is what tests do."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        mood = self.mood
        length = int(request.headers["Content-Length"])
        body = request.rfile.read(length)
        if len(body) < length:  # its producer was killed as it sent: no collector takes half a body
            request.close_connection = True
            return
        self.seen[mood] += 1
        if mood == AWAY:
            request.close_connection = True
            return
        if mood == HANGS:
            self._end.wait(60)
            request.close_connection = True
            return
        if mood == REFUSES:
            _reply(request, 503, {"error": "not now"})
            return
        results = self._store(body)
        if mood == HANGS_UP:
            request.close_connection = True
            return
        _reply(request, 200, {"results": results})

    def _store(self, body: bytes) -> list[Mapping[str, object]]:
        bodies = list(split_envelopes(body))
        headers = [decode_header(split_lines(each)[0]) for each in bodies]
        placed = self.log.append(
            [
                NewRecord("events", header.source.encode(), data)
                for header, data in zip(headers, bodies, strict=True)
            ]
        )
        return [
            {"source": h.source, "seq": h.seq, "partition": p.partition, "offset": p.offset}
            for h, p in zip(headers, placed, strict=True)
        ]

    def metered(self) -> Counter[str]:
        """How often each metric of that name counts behind the meter, by name."""
        LocalRuntime(self.log, meter_factory(NoPrices())).drain()
        return Counter(name for *_, names in self.envelopes() for name in names)

    def verdicts(self) -> Counter[str]:
        """Verdicts on envelopes; call ``metered`` before."""
        return Counter(verdict for _, _, verdict, _ in self.envelopes())

    def envelopes(self) -> Iterator[tuple[str, int, str, list[str]]]:
        """(source, seq, verdict, names of metrics that count); call ``metered`` before."""
        for partition in range(self.log.partitions):
            for record in self.log.read("metered", partition, 0, max_records=10**6):
                head, *lines = (orjson.loads(line) for line in split_lines(record.value or b""))
                if head["type"] == "envelope":
                    names = [e["name"] for e in lines if e["kind"] == "metric"]
                    yield head["source"], head["seq"], head["verdict"], names

    def alerts(self) -> list[Alert]:
        """What the meter tells of once everybody has been silent for longer than it waits."""
        clock = ManualClock(SystemClock().now_us())
        runtime = LocalRuntime(self.log, meter_factory(NoPrices()), clock=clock)
        runtime.drain()  # the wall's time that the log's own is continued from
        clock.advance(2 * MeterLimits().quiet_us / 1e6)
        runtime.drain()
        return [
            decode_alert(record.value or b"")
            for partition in range(self.log.partitions)
            for record in self.log.read("alerts", partition, 0, max_records=10**6)
        ]

    def close(self) -> None:
        self._end.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.log.close()


@contextmanager
def moody_collector(path: Path, port: int = 0) -> Iterator[MoodyCollector]:
    """One that is closed in the end."""
    collector = MoodyCollector(path, port)
    try:
        yield collector
    finally:
        collector.close()


def _reply(request: BaseHTTPRequestHandler, status: int, body: object) -> None:
    data = orjson.dumps(body)
    request.send_response(status)
    request.send_header("Content-Length", str(len(data)))
    request.end_headers()
    request.wfile.write(data)
