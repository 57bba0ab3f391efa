"""An OTLP receiver for tests: takes traces over gRPC and over HTTP, in plaintext or TLS.

Real enough that OpenTelemetry's own exporters cannot tell it from a collector.
"""

from __future__ import annotations

import gzip
import ssl
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2


@dataclass
class Received:
    """What has arrived: requests, and the headers (metadata) of each."""

    endpoint: str
    requests: list[trace_service_pb2.ExportTraceServiceRequest] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    _arrived: threading.Event = field(default_factory=threading.Event)

    def take(
        self, request: trace_service_pb2.ExportTraceServiceRequest, headers: dict[str, str]
    ) -> None:
        self.headers.append({name.lower(): value for name, value in headers.items()})
        self.requests.append(request)
        self._arrived.set()

    @property
    def spans(self) -> list[trace_pb2.Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def services(self) -> set[str]:
        return {
            attribute.value.string_value
            for request in self.requests
            for resource in request.resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
        }


def attributes_of(holder: Any) -> dict[str, Any]:
    """OTLP's attributes as a dict."""
    found: dict[str, Any] = {}
    for attribute in holder.attributes:
        kind = attribute.value.WhichOneof("value")
        found[attribute.key] = getattr(attribute.value, kind) if kind else None
    return found


@dataclass(frozen=True)
class Certificate:
    """A server's certificate for localhost, and the authority that vouches for it."""

    chain: bytes
    key: bytes
    authority: Path


@contextmanager
def grpc_receiver(certificate: Certificate | None = None) -> Iterator[Received]:
    """A receiver on a free port, over gRPC."""
    received = Received("")

    class Service(trace_service_pb2_grpc.TraceServiceServicer):
        def Export(self, request, context):  # noqa: N802  # the protocol's name
            received.take(request, dict(context.invocation_metadata()))
            return trace_service_pb2.ExportTraceServiceResponse()

    with ThreadPoolExecutor(max_workers=2) as pool:
        server = grpc.server(pool)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
        if certificate is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            pair = ((certificate.key, certificate.chain),)
            port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials(pair))
        received.endpoint = f"localhost:{port}"
        server.start()
        try:
            yield received
        finally:
            server.stop(grace=5).wait()


@contextmanager
def http_receiver(certificate: Certificate | None = None, port: int = 0) -> Iterator[Received]:
    """A receiver on a free port (or the one given), over HTTP with protobuf bodies."""
    received = Received("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            encoding = self.headers.get("Content-Encoding", "")
            if encoding == "gzip":
                body = gzip.decompress(body)
            elif encoding == "deflate":
                body = zlib.decompress(body)
            known = self.path == "/v1/traces"
            if known:
                request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
                received.take(request, dict(self.headers.items()))
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            """Quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that speaks plaintext to TLS, or the other way round."""

    server = Server(("127.0.0.1", port), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        chain = certificate.authority.parent / "server.pem"
        chain.write_bytes(certificate.key + certificate.chain)
        context.load_cert_chain(chain)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    received.endpoint = f"localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
