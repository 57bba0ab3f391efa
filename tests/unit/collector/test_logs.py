"""Request ids and log lines: what happened, never what was sent."""

from __future__ import annotations

import io
import logging

import orjson
import pytest

from callmeter.collector.logs import JsonFormatter, TextFormatter
from callmeter.collector.memory import MemoryAppender
from support.collecting import KEYS, envelope


@pytest.fixture
def lines():
    """The collector's log as JSON lines."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("callmeter.collector")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lambda: [orjson.loads(line) for line in stream.getvalue().splitlines()]
    logger.setLevel(before)
    logger.removeHandler(handler)


async def test_a_line_for_each_request(start, lines) -> None:
    c = await start(keys=KEYS)
    await c.envelopes(envelope(), "shop-key-1", X_Request_Id="trace-me.1")
    assert c.headers["X-Request-Id"] == "trace-me.1"
    await c.envelopes(b"hunter2", "shop-key-1")
    await c.envelopes(envelope(), "hunter2-key")
    await c.get("/hunter2?hunter2=hunter2")
    taken, bad, refused, unknown = lines()
    assert {"request_id": "trace-me.1", "method": "POST", "route": "/v1/envelopes"}.items() <= (
        taken.items()
    )
    assert (taken["status"], taken["level"], taken["remote"]) == (200, "info", "127.0.0.1")
    assert len(taken["key"]) == 8
    assert (bad["status"], bad["reason"]) == (400, "bad_header")
    assert (refused["status"], refused["reason"], "key" in refused) == (401, "unauthorized", False)
    assert (unknown["route"], unknown["status"]) == ("unknown", 404)
    assert "hunter2" not in str(lines())
    assert "shop-key-1" not in str(lines())


@pytest.mark.parametrize("given", ["", "a b", "<script>", "x" * 129, "-first", "ä"])
async def test_only_a_harmless_id_is_taken(start, given: str) -> None:
    c = await start()
    await c.envelopes(envelope(), X_Request_Id=given)
    assert c.headers["X-Request-Id"] != given
    assert len(c.headers["X-Request-Id"]) == 16


async def test_a_bug_is_told_without_what_it_says(start, lines) -> None:
    class Broken(MemoryAppender):
        async def append(self, records):
            raise ValueError(f"cannot do {records[0].value!r}")

    c = await start(Broken())
    status, answer = await c.envelopes(envelope().replace(b"annotation", b"hunter2xxx"))
    assert (status, answer["reason"]) == (500, "internal")
    told = next(line for line in lines() if line["level"] == "error")
    assert told["exception"] == "ValueError"
    assert any("ingest.py" in frame for frame in told["at"])
    assert told["request_id"] == c.headers["X-Request-Id"]
    assert "hunter2" not in str(lines())


@pytest.mark.parametrize("name", ["callmeter.collector", "callmeter.embedded"])
def test_text_lines_are_as_reserved_where_they_must_be(name: str) -> None:
    try:
        raise ValueError("hunter" + "2")
    except ValueError as exc:
        told = (ValueError, exc, exc.__traceback__)
        record = logging.LogRecord(name, 40, "f", 1, "failed", None, told)
    text = TextFormatter().format(record)
    assert "ValueError" in text
    assert "test_logs.py" in text
    assert ("hunter2" in text) == (name == "callmeter.embedded")
