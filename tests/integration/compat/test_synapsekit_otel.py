"""OTelExporter against a receiver that speaks OTLP, over gRPC and over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import trustme

from callmeter.compat.synapsekit import DistributedTracer, OTelExporter, TracingMiddleware
from callmeter.errors import ConfigError
from callmeter.testing import Capture, capture
from support.otlp_receiver import (
    Certificate,
    Received,
    attributes_of,
    grpc_receiver,
    http_receiver,
)
from support.synapsekit_standins import StubLLM

Receiver = Callable[..., AbstractContextManager[Received]]
BOTH = pytest.mark.parametrize(
    ("receiver", "path"), [(grpc_receiver, ""), (http_receiver, "/v1/traces")], ids=["grpc", "http"]
)


@pytest.fixture
def metered() -> Iterator[Capture]:
    with capture() as captured:
        yield captured


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Certificate:
    """One for localhost, and OpenTelemetry told to trust who has signed it."""
    authority = trustme.CA()
    server = authority.issue_cert("localhost")
    file = tmp_path / "authority.pem"
    file.write_bytes(authority.cert_pem.bytes())
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(file))
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # would come before it, over HTTP
        monkeypatch.delenv(name, raising=False)
    chain = b"".join(pem.bytes() for pem in server.cert_chain_pems)
    return Certificate(chain, server.private_key_pem.bytes(), file)


def one_span(name: str) -> None:
    with DistributedTracer("svc").start_span(name):
        pass


@pytest.mark.acceptance(199)
@BOTH
def test_spans_arrive_after_install_and_none_before(
    metered: Capture, receiver: Receiver, path: str
) -> None:
    with receiver() as received:
        exporter = OTelExporter(
            f"http://{received.endpoint}{path}", service_name="shop", insecure=True
        )
        one_span("before")
        assert exporter.flush()
        assert received.requests == []
        exporter.install().install()
        asyncio.run(TracingMiddleware(StubLLM(("x", 1000, 500)), "my-tracer").generate("q"))
        with DistributedTracer("svc").start_span("outer") as outer:
            outer.add_event("retrieved", {"documents": 3})
            with pytest.raises(ValueError), DistributedTracer("svc").start_span("inner") as inner:
                raise ValueError("no luck")
        assert exporter.flush()
        exporter.uninstall()
        one_span("after")
    assert received.services == {"shop"}
    spans = {span.name: span for span in received.spans}
    assert sorted(spans) == ["inner", "llm.generate", "outer"]
    assert spans["inner"].trace_id.hex() == outer.trace_id
    assert spans["inner"].span_id.hex() == inner.span_id
    assert spans["inner"].parent_span_id.hex() == outer.span_id
    assert (spans["inner"].status.code, spans["inner"].status.message) == (2, "no luck")
    assert spans["outer"].status.code == 1
    (event,) = spans["outer"].events
    assert (event.name, attributes_of(event)) == ("retrieved", {"documents": 3})
    said = attributes_of(spans["llm.generate"])
    assert said["gen_ai.request.model"] == "gpt-4o-mini"
    assert said["gen_ai.usage.input_tokens"] == 1000
    assert said["input"] == "q"
    scopes = {
        scope.scope.name
        for request in received.requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
    }
    assert "my-tracer" in scopes
    stored = {call["name"]: call for call in metered.calls}
    for name, span in spans.items():
        assert stored[name]["trace_id"] == span.trace_id.hex()
        assert span.start_time_unix_nano == stored[name]["started_us"] * 1000


@pytest.mark.acceptance(200)
@BOTH
def test_headers_arrive(metered: Capture, receiver: Receiver, path: str) -> None:
    with receiver() as received:
        exporter = OTelExporter(
            f"{received.endpoint}{path}",
            headers={"X-Api-Key": "secret", "tenant": "acme"},
            insecure=True,
        ).install()
        one_span("work")
        assert exporter.flush()
        exporter.uninstall()
    (headers,) = received.headers
    assert headers["x-api-key"] == "secret"
    assert headers["tenant"] == "acme"


@pytest.mark.acceptance(200)
@BOTH
def test_without_insecure_the_connection_is_tls(
    metered: Capture, receiver: Receiver, path: str, certificate: Certificate
) -> None:
    """Whatever the URL's scheme says; a receiver of plaintext gets nothing."""
    with receiver(certificate) as received:
        exporter = OTelExporter(f"http://{received.endpoint}{path}").install()
        one_span("over tls")
        assert exporter.flush()
        exporter.uninstall()
    assert [span.name for span in received.spans] == ["over tls"]


@pytest.mark.acceptance(200)
@BOTH
def test_insecure_is_plaintext_and_a_plaintext_receiver_needs_it(
    metered: Capture, receiver: Receiver, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    with receiver() as received:
        insecure = OTelExporter(f"http://{received.endpoint}{path}", insecure=True).install()
        one_span("plain")
        assert insecure.flush()
        insecure.uninstall()
        assert [span.name for span in received.spans] == ["plain"]
        secure = OTelExporter(f"http://{received.endpoint}{path}").install()
        one_span("never in plaintext")
        assert not secure.flush()
        secure.uninstall()
        assert [span.name for span in received.spans] == ["plain"]


@pytest.mark.acceptance(199)
@pytest.mark.parametrize(
    ("given", "insecure", "spoken_to"),
    [
        ("http://localhost:4317", True, "http://localhost:4317"),
        ("http://localhost:4318", True, "http://localhost:4318/v1/traces"),
        ("localhost:4318", False, "https://localhost:4318/v1/traces"),
        ("https://otlp.example.com", True, "https://otlp.example.com"),
        ("https://otlp.example.com/v1/traces", False, "https://otlp.example.com/v1/traces"),
    ],
)
def test_the_port_or_a_path_says_which_protocol(given: str, insecure: bool, spoken_to: str) -> None:
    assert OTelExporter(given, insecure=insecure).endpoint == spoken_to


@pytest.mark.parametrize("endpoint", ["", "http://", "ftp://host:1", "http://host:port"])
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="not an OTLP endpoint"):
        OTelExporter(endpoint)
