"""Replies of OpenAI's and Anthropic's clients that are not complete when they are handed over.

A ``Stream`` stays the very object that the library made: only the iterator inside it is ours. A
call ends when its stream does: at the last chunk, at an error, or when the stream is closed or
dropped (``cancelled``).
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from typing import Any

from callmeter.sdk.call import Call
from callmeter.sdk.containment import CONTAINMENT
from callmeter.sdk.usage.fields import get


def meter_stream(
    reply: Any, call: Call, *, hide_usage: bool, reader: type[Chunks] | None = None
) -> bool:
    """Take over a reply that goes on after the request; False if it is complete already."""
    if hasattr(reply, "_iterator") and hasattr(reply, "response"):
        _meter_chunks(reply, (reader or Chunks)(call, hide_usage=hide_usage))
        return True
    if hasattr(reply, "http_response") and hasattr(reply, "parse"):
        return _meter_raw(reply, call, hide_usage=hide_usage, reader=reader)
    return False


class Chunks:
    """Reads chunks of chat completions and events of responses as they pass by."""

    def __init__(self, call: Call, *, hide_usage: bool) -> None:
        self.call = call
        self._hide_usage = hide_usage
        self.texts: list[str] = []
        self.keep = call.intake.record_outputs
        self._noted = False
        self._over = False

    def hidden(self, chunk: Any) -> bool:
        """Take notice of a chunk; True if the caller did not ask for it."""
        try:
            return self._read(chunk)
        except Exception as exc:  # noqa: BLE001  # any server may send anything
            CONTAINMENT.caught("an instrument", exc)
            return False

    def end(self, exc: BaseException | None = None) -> None:
        """The stream is over; only the first end counts."""
        if self._over:
            return
        self._over = True
        if self.keep:
            self.call.output("".join(self.texts))
        self.call.finish(exc)

    def _read(self, chunk: Any) -> bool:
        kind = get(chunk, "type")
        if isinstance(kind, str) and kind.startswith("response."):
            self._read_event(kind, chunk)
            return False
        ended = get(chunk, "choices", 0, "finish_reason") is not None
        if ended or not self._noted or get(chunk, "usage") is not None:
            self._noted = True
            self._note(chunk)
        choices = get(chunk, "choices")
        if not choices:
            return self._hide_usage and choices == [] and get(chunk, "usage") is not None
        delta = get(chunk, "choices", 0, "delta")
        words = get(delta, "content") or get(chunk, "choices", 0, "text")
        if words or any(get(delta, name) for name in _FIRST_TOKENS):
            self.call.first_token()
        if self.keep and isinstance(words, str):
            self.texts.append(words)
        return False

    def _read_event(self, kind: str, event: Any) -> None:
        if kind.endswith(".delta"):
            self.call.first_token()
            if self.keep and kind == "response.output_text.delta":
                self.texts.append(str(get(event, "delta")))
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            self._note(get(event, "response"))
            error = get(event, "response", "error")
            if error is not None:
                self.call.failed(
                    str(get(error, "code") or "response.failed"), str(get(error, "message") or "")
                )

    def _note(self, reply: Any) -> None:
        """Usage, model and finish reason, but not the output, which is collected above."""
        self.call.record(reply, output=False)


_FIRST_TOKENS = ("tool_calls", "function_call", "refusal", "reasoning_content", "reasoning")
_CANCELLED = GeneratorExit("the stream was not read to its end")


class _Iterator:
    """Passes chunks on, sync or async, whichever the inner iterator is."""

    def __init__(self, inner: Any, chunks: Chunks) -> None:
        self._inner = inner
        self._chunks = chunks

    def __iter__(self) -> _Iterator:
        return self

    def __next__(self) -> Any:
        try:
            chunk = next(self._inner)
            while self._chunks.hidden(chunk):
                chunk = next(self._inner)
        except StopIteration:
            self._chunks.end()
            raise
        except BaseException as exc:
            self._chunks.end(exc)
            raise
        return chunk

    def __aiter__(self) -> _Iterator:
        return self

    async def __anext__(self) -> Any:
        try:
            chunk = await anext(self._inner)
            while self._chunks.hidden(chunk):
                chunk = await anext(self._inner)
        except StopAsyncIteration:
            self._chunks.end()
            raise
        except BaseException as exc:
            self._chunks.end(exc)
            raise
        return chunk

    def __del__(self) -> None:
        self._chunks.end(_CANCELLED)


def _meter_chunks(stream: Any, chunks: Chunks) -> None:
    stream._iterator = _Iterator(stream._iterator, chunks)  # the seam there is
    _end_with(stream, chunks.end)


def _meter_raw(reply: Any, call: Call, *, hide_usage: bool, reader: type[Chunks] | None) -> bool:
    """``with_raw_response`` and ``with_streaming_response``: the body is parsed when asked for."""
    response = reply.http_response
    if response.is_closed:
        call.record(response.json())
        call.finish()
        return True
    over = [False]

    def parsed(value: Any) -> Any:
        if not over[0]:
            over[0] = True
            if not meter_stream(value, call, hide_usage=hide_usage, reader=reader):
                call.record(value)
                call.finish()
        return value

    def end(exc: BaseException | None = None) -> None:
        if not over[0]:
            over[0] = True
            call.finish(exc)

    this, parse = weakref.ref(reply), type(reply).parse
    if inspect.iscoroutinefunction(parse):

        async def parse_async(*args: Any, **kwargs: Any) -> Any:
            return parsed(await parse(this(), *args, **kwargs))

        reply.parse = parse_async
    else:
        reply.parse = lambda *args, **kwargs: parsed(parse(this(), *args, **kwargs))
    weakref.finalize(reply, end, _CANCELLED).atexit = False
    if hasattr(reply, "close"):
        _end_with(reply, end)
    return True


def _end_with(owner: Any, end: Callable[[BaseException | None], None]) -> None:
    """Closing ``owner`` ends the call too. A weak reference: dropping it must end the call at once,
    not when the garbage collector comes by.
    """
    this, close = weakref.ref(owner), type(owner).close
    if inspect.iscoroutinefunction(close):

        async def close_async() -> None:
            await close(this())
            end(_CANCELLED)

        owner.close = close_async
        return

    def close_sync() -> None:
        close(this())
        end(_CANCELLED)

    owner.close = close_sync
