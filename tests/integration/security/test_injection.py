"""Hostile text in every parameter and header of a whole pipeline: no error of ours, no effect."""

from __future__ import annotations

from http.client import HTTPConnection
from urllib.parse import quote, urlsplit

import orjson
import pytest

from callmeter.collector.experiments_fields import experiment_id
from support.embedded import Pipeline

HOSTILE = (
    "' OR 1=1 --",
    "'; DROP TABLE calls; --",
    "\\'; DROP TABLE calls; --",
    "{p:String}",
    "x') UNION ALL SELECT name, now() FROM system.tables --",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "../../../../etc/passwd",
    "a\r\nSet-Cookie: hunter2=1",
    "a\x00b",
    "%s%n{0.__class__}",
    "${jndi:ldap://127.0.0.1/a}",
    "\u202e\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
    "A" * 3000,
)
EXPERIMENT = experiment_id("p", "s")
PARAMETERS = (
    "/v1/folders?path={}",
    "/v1/folders?path=/a&project={}",
    f"/v1/experiments/{EXPERIMENT}/series?name={{}}",
    f"/v1/experiments/{EXPERIMENT}/series?name=a&metadata={{}}",
    f"/v1/experiments/{EXPERIMENT}/series?name=a&order_by={{}}",
    f"/v1/experiments/{EXPERIMENT}/series?name=a&direction={{}}",
    f"/v1/experiments/{EXPERIMENT}/series?name=a&limit={{}}",
    "/v1/experiments/{}",
    "/v1/experiments/{}/series?name=a",
    "/v1/catalog?project={}",
    "/v1/catalog?experiment={}",
    "/v1/budgets/status?budget={}",
    "/v1/budgets/status?entity={}",
    "/{}",
)
HEADERS = (
    "X-Request-Id", "Authorization", "Content-Type", "Content-Encoding", "Idempotency-Key",
    "Accept", "User-Agent", "Cookie", "X-Forwarded-For", "Range", "If-None-Match", "Expect-CT",
)  # fmt: skip


class Caller:
    def __init__(self, pipeline: Pipeline) -> None:
        self._parts = urlsplit(pipeline.url)

    def __call__(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        connection = HTTPConnection(self._parts.hostname or "", self._parts.port, timeout=60)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()


@pytest.fixture
def call(embedded: Pipeline) -> Caller:
    return Caller(embedded)


def harmless(status: int, headers: dict[str, str]) -> None:
    """No failure of ours, nothing that a browser would run, no header of the caller's making."""
    assert status < 500, status
    assert "Set-Cookie" not in headers
    assert headers["X-Content-Type-Options"] == "nosniff"


def tables(pipeline: Pipeline) -> int:
    return len(pipeline.store.query("SELECT name FROM system.tables WHERE name = 'calls'").rows)


def test_parameters(embedded: Pipeline, call: Caller) -> None:
    for template in PARAMETERS:
        for text in HOSTILE:
            status, headers, said = call("GET", template.format(quote(text, safe="")))
            assert status < 500, (template, text, said)
            harmless(status, headers)
            if headers["Content-Type"].startswith("application/json") and said:
                orjson.loads(said)  # whole and well-formed, whatever it repeats
            assert b"Traceback" not in said
            assert b"DB::Exception" not in said
    assert tables(embedded) == 1


def test_headers(embedded: Pipeline, call: Caller) -> None:
    for name in HEADERS:
        for text in HOSTILE:
            if not (text.isprintable() and text.isascii()):
                continue  # what no client can send; bytes as they are: test_floods
            for method, path in (("GET", "/readyz"), ("POST", "/v1/envelopes"), ("POST", "/trace")):
                status, headers, said = call(method, path, b"{}", **{name: text})
                harmless(status, headers)
                # Only a harmless id is given back.
                assert headers["X-Request-Id"] != text
                assert text.encode() not in said or len(text) < 3
    assert call("GET", "/readyz", X_Request_Id="my-id.1")[1]["X-Request-Id"] == "my-id.1"
    assert tables(embedded) == 1


def test_bodies(embedded: Pipeline, call: Caller, project: str) -> None:
    """What an experiment, a folder and a trace may say is stored as it is, and never run."""
    for text in HOSTILE:
        body = {
            "slug": text[:200],
            "description": text,
            "project": project,
            "metadata": {"k": text},
        }
        harmless(*call("POST", "/v1/experiments", orjson.dumps(body))[:2])
        body = {"path": f"/{text[:200]}", "project": project}
        harmless(*call("POST", "/v1/folders", orjson.dumps(body))[:2])
        span = {"event": "call_begin", "call_id": text[:200], "timestamp": 1.0, "module_name": text}
        harmless(*call("POST", "/trace", orjson.dumps(span))[:2])
        attribute = {"key": text, "value": {"stringValue": text}}
        document = {
            "resourceSpans": [
                {"scopeSpans": [{"spans": [{"traceId": text, "attributes": [attribute]}]}]}
            ]
        }
        kind = {"Content_Type": "application/json"}
        harmless(*call("POST", "/v1/traces", orjson.dumps(document), **kind)[:2])
        harmless(*call("POST", "/v1/traces", text.encode("utf-8", "replace"), **kind)[:2])
    assert tables(embedded) == 1
    slug = HOSTILE[1]
    embedded.wait(
        lambda: slug in {row.slug for row in embedded.queries.experiments(project=project)}
    )
