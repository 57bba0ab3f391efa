"""A server that answers like Anthropic's: messages, plain and streamed, with fixed usage."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

WORDS = ("The ", "answer ", "is ", "42.")
ANSWER = "".join(WORDS)
INPUT, CACHE_READ, CACHE_WRITE, OUTPUT = 12, 100, 30, 7
WENT_IN = {
    "input_tokens": INPUT,
    "cache_read_input_tokens": CACHE_READ,
    "cache_creation_input_tokens": CACHE_WRITE,
}


class AnthropicStub:
    """The server, as a context manager. ``requests`` holds the bodies it was sent, in order."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.failures: deque[int] = deque()
        self.break_streams = 0
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                """Tests are quiet."""

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stub.requests.append(body)
                if stub.failures:
                    error = {"type": "overloaded_error", "message": "the stub was told to fail"}
                    self._json({"type": "error", "error": error}, stub.failures.popleft())
                elif self.path.partition("?")[0].endswith("/count_tokens"):
                    self._json({"input_tokens": INPUT})
                elif body.get("stream"):
                    self._stream(body)
                else:
                    self._json(_message(body))

            def _json(self, reply: Any, status: int = 200) -> None:
                data = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _stream(self, body: dict[str, Any]) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                for number, event in enumerate(_events(body)):
                    if stub.break_streams and number == 3:
                        stub.break_streams -= 1
                        error = {"type": "overloaded_error", "message": "broken"}
                        event = {"type": "error", "error": error}  # noqa: PLW2901
                    text = f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
                    self.wfile.write(text.encode())
                    if event["type"] == "error":
                        break
                self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _message(body: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg_stub",
        "type": "message",
        "role": "assistant",
        "model": f"{body['model']}-20250929",
        "content": [{"type": "text", "text": ANSWER}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {**WENT_IN, "output_tokens": OUTPUT},
    }


def _events(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    begun = {**_message(body), "content": [], "stop_reason": None}
    yield {"type": "message_start", "message": {**begun, "usage": {**WENT_IN, "output_tokens": 1}}}
    block = {"type": "text", "text": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    for word in WORDS:
        delta = {"type": "text_delta", "text": word}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    ended = {"stop_reason": "end_turn", "stop_sequence": None}
    yield {"type": "message_delta", "delta": ended, "usage": {"output_tokens": OUTPUT}}
    yield {"type": "message_stop"}
