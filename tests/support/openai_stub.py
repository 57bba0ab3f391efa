"""A server that answers like OpenAI's, for tests and for the README's second section.

Chat completions, text completions, responses and embeddings; plain and streamed. Usage is fixed, so
that whoever meters it knows what must come out. Run as a script it serves until it is killed:

    python tests/support/openai_stub.py --port 8123
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

PROMPT_TOKENS = 12
CACHED_TOKENS = 4
COMPLETION_TOKENS = 7
REASONING_TOKENS = 2
WORDS = ("The ", "answer ", "is ", "42.")
ANSWER = "".join(WORDS)

CHAT_USAGE = {
    "prompt_tokens": PROMPT_TOKENS,
    "completion_tokens": COMPLETION_TOKENS,
    "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
    "prompt_tokens_details": {"cached_tokens": CACHED_TOKENS, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": REASONING_TOKENS, "audio_tokens": 0},
}
RESPONSES_USAGE = {
    "input_tokens": PROMPT_TOKENS,
    "input_tokens_details": {"cached_tokens": CACHED_TOKENS},
    "output_tokens": COMPLETION_TOKENS,
    "output_tokens_details": {"reasoning_tokens": REASONING_TOKENS},
    "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
}


class OpenAIStub:
    """The server, as a context manager. ``requests`` holds the bodies it was sent, in order."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[dict[str, Any]] = []
        #: Answer 400 to anyone who sends ``stream_options``, as older servers do.
        self.refuse_stream_options = False
        #: Break the connection in the middle of the next streams.
        self.break_streams = 0
        #: Leave usage out of every reply.
        self.no_usage = False
        self._failures: deque[tuple[int, dict[str, str]]] = deque()
        self._server = _StubServer(("127.0.0.1", port), _Handler)
        self._server.stub = self
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(0.05,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def fail_next(self, status: int, times: int = 1, headers: dict[str, str] | None = None) -> None:
        """Answer the next requests with an error."""
        self._failures.extend([(status, headers or {})] * times)

    def failure(self) -> tuple[int, dict[str, str]] | None:
        return self._failures.popleft() if self._failures else None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def serve_forever(self) -> None:
        self._server.serve_forever()


class _StubServer(ThreadingHTTPServer):
    daemon_threads = True
    stub: OpenAIStub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _StubServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Tests are quiet."""

    def do_POST(self) -> None:
        stub = self.server.stub
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        stub.requests.append(body)
        failure = stub.failure()
        path = self.path.partition("?")[0]
        if failure is not None:
            self._error(failure[0], "the stub was told to fail", failure[1])
        elif stub.refuse_stream_options and "stream_options" in body:
            self._error(400, "Unrecognized request argument supplied: stream_options", {})
        elif path.endswith("/embeddings"):
            self._json(_embeddings(body))
        elif path.endswith("/responses"):
            self._answer(body, _response(body), _response_events(body))
        elif path.endswith("/chat/completions"):
            self._answer(body, _chat(body), _chat_chunks(body))
        else:
            self._error(404, f"no such path: {self.path}", {})

    def _answer(self, body: dict[str, Any], whole: dict[str, Any], events: Iterator[Any]) -> None:
        if body.get("stream"):
            self._stream(events)
            return
        if self.server.stub.no_usage:
            whole.pop("usage", None)
        self._json(whole)

    def _stream(self, events: Iterator[Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        broken = self.server.stub.break_streams > 0
        self.server.stub.break_streams -= broken
        for sent, event in enumerate(events):
            name = f"event: {event['type']}\n" if "type" in event else ""
            self.wfile.write(f"{name}data: {json.dumps(event)}\n\n".encode())
            self.wfile.flush()
            if broken and sent == 1:
                self.wfile.write(b'event: error\ndata: {"error": {"message": "broken"}}\n\n')
                break
        else:
            self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _json(self, reply: Any, status: int = 200, **headers: str) -> None:
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _error(self, status: int, message: str, headers: dict[str, str]) -> None:
        self._json({"error": {"message": message, "type": "stub_error"}}, status, **headers)


def _chat(body: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": ANSWER, "refusal": None}
    return {
        "id": "chatcmpl-stub",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": f"{body['model']}-2024-07-18",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        "usage": dict(CHAT_USAGE),
        "service_tier": "default",
    }


def _chat_chunks(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    asked = (body.get("stream_options") or {}).get("include_usage")

    def chunk(choices: list[Any], **more: Any) -> dict[str, Any]:
        return {
            "id": "chatcmpl-stub",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": f"{body['model']}-2024-07-18",
            "choices": choices,
            **({"usage": None} if asked else {}),
            **more,
        }

    def choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": None}

    yield chunk([choice({"role": "assistant", "content": ""})])
    for word in WORDS:
        yield chunk([choice({"content": word})])
    yield chunk([choice({}, "stop")])
    if asked:
        yield chunk([], usage=dict(CHAT_USAGE))


def _response(body: dict[str, Any], status: str = "completed") -> dict[str, Any]:
    done = status == "completed"
    text = {"type": "output_text", "text": ANSWER, "annotations": []}
    message = {
        "id": "msg_stub",
        "type": "message",
        "role": "assistant",
        "status": status,
        "content": [text],
    }
    return {
        "id": "resp_stub",
        "object": "response",
        "created_at": int(time.time()),
        "model": f"{body['model']}-2024-07-18",
        "status": status,
        "output": [message] if done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": dict(RESPONSES_USAGE) if done else None,
    }


def _response_events(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield {
        "type": "response.created",
        "sequence_number": 0,
        "response": _response(body, "in_progress"),
    }
    for number, word in enumerate(WORDS, 1):
        yield {
            "type": "response.output_text.delta",
            "sequence_number": number,
            "item_id": "msg_stub",
            "output_index": 0,
            "content_index": 0,
            "delta": word,
            "logprobs": [],
        }
    yield {"type": "response.completed", "sequence_number": 9, "response": _response(body)}


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
    return {
        "object": "list",
        "model": body["model"],
        "data": [
            {"object": "embedding", "index": i, "embedding": [0.25, -0.5]}
            for i, _ in enumerate(texts)
        ],
        "usage": {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="A server that answers like OpenAI's.")
    parser.add_argument("--port", type=int, default=0)
    stub = OpenAIStub(parser.parse_args().port)
    print(stub.base_url, flush=True)
    stub.serve_forever()


if __name__ == "__main__":
    main()
