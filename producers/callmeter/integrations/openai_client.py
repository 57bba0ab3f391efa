"""OpenAI's client library: chat, responses, embeddings; plain and streamed, sync and async.

All of its requests pass through one method of its base client (``OpenAI.request``), whatever
helper, raw-response wrapper or Azure subclass began them, so that is where calls are metered.

Streams of chat completions say what they used only if asked (``stream_options.include_usage``). We
ask, and the extra chunk that brings it is kept from a caller who did not ask. A server that refuses
the option is asked again without it and never asked again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from callmeter.integrations.openai_streams import Chunks, meter_stream
from callmeter.sdk import api
from callmeter.sdk.call import NO_CALL, Call
from callmeter.sdk.containment import CONTAINMENT
from callmeter.sdk.nesting import enter_billable

#: Path of a request → our operation.
OPERATIONS = {
    "/chat/completions": "chat",
    "/responses": "chat",
    "/completions": "text_completion",
    "/embeddings": "embeddings",
}
#: Hosts that are spoken to with OpenAI's client and have prices of their own.
PROVIDERS = {
    "api.deepseek.com": "deepseek",
    "api.fireworks.ai": "fireworks",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.perplexity.ai": "perplexity",
    "api.together.xyz": "together",
    "api.x.ai": "x-ai",
    "generativelanguage.googleapis.com": "google",
    "openrouter.ai": "openrouter",
}
#: Request fields worth keeping as attributes.
_KEPT = (
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "max_output_tokens",
    "seed",
    "service_tier",
    "user",
)

#: Requests made for the call in hand: the client retries inside ``request``.
_ATTEMPTS: ContextVar[list[int] | None] = ContextVar("callmeter_openai_attempts", default=None)
#: Base URLs that refused ``stream_options``.
_no_stream_options: set[str] = set()


def install() -> Callable[[], None]:
    """Patch the base clients; returns what puts them back."""
    import openai

    undos = [
        patch(owner(openai.OpenAI, "request"), "request", metered_request),
        patch(owner(openai.AsyncOpenAI, "request"), "request", metered_async_request),
        # The library's own hook, called before every attempt.
        patch(owner(openai.OpenAI, "_prepare_request"), "_prepare_request", counted),
        patch(owner(openai.AsyncOpenAI, "_prepare_request"), "_prepare_request", counted),
    ]

    def undo() -> None:
        for one in reversed(undos):
            one()
        _no_stream_options.clear()

    return undo


def owner(client: type, name: str) -> type:
    """The class in a client's family that defines a method."""
    return next(cls for cls in client.__mro__ if name in cls.__dict__)


def patch(
    holder: type, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]
) -> Callable[[], None]:
    """Replace a method; returns what puts it back."""
    original = holder.__dict__[name]
    setattr(holder, name, wrap(original))
    return lambda: setattr(holder, name, original)


def counted(prepare: Callable[..., Any]) -> Callable[..., Any]:
    """The library's own hook before each attempt, which counts them."""

    @functools.wraps(prepare)
    def _prepare_request(self: Any, request: Any) -> Any:
        attempts = _ATTEMPTS.get()
        if attempts is not None:
            attempts[0] += 1
        return prepare(self, request)

    return _prepare_request


class Metered:
    """One request on its way: the call, and whether its stream was asked for usage by us."""

    reader: type[Chunks] = Chunks

    def __init__(self, client: Any, options: Any) -> None:
        self.attempts = [0]
        self.call: Call = NO_CALL
        self.options = options
        self.asked = False
        self._base_url = str(getattr(client, "base_url", ""))
        try:
            self.begin(client, options)
        except Exception as exc:  # noqa: BLE001  # the host's request goes on unmetered
            CONTAINMENT.caught("an instrument", exc)

    def begin(self, client: Any, options: Any) -> None:
        """Start the call, if this request is one."""
        body = options.json_data
        operation = OPERATIONS.get("/" + str(options.url).lstrip("/"))
        if operation is None or not isinstance(body, dict) or options.method.lower() != "post":
            return
        fields = {n: body[n] for n in _KEPT if isinstance(body.get(n), int | float | str)}
        call = api.generation(
            model=str(body.get("model", "")),
            provider=_provider(client, self._base_url),
            operation=operation,
            inputs=body.get("messages") or body.get("input") or body.get("prompt"),
            **fields,
        )
        if call is NO_CALL:
            return
        self.call = call.start()
        enter_billable(call)
        if body.get("stream") is True and operation != "embeddings" and options.url != "/responses":
            self._ask_for_usage(options, body)

    def _ask_for_usage(self, options: Any, body: dict[str, Any]) -> None:
        told = body.get("stream_options")
        told = told if isinstance(told, dict) else {}
        if told.get("include_usage") is None and self._base_url not in _no_stream_options:
            self.asked = True
            self.options = _with_body(
                options, {**body, "stream_options": {**told, "include_usage": True}}
            )

    def refused_to_tell(self, exc: Exception, original: Any) -> bool:
        """Whether the server choked on our question; then the request goes out as it was meant."""
        refused = (
            self.asked
            and getattr(exc, "status_code", None) in (400, 422)
            and "stream_options" in str(exc)
        )
        if refused:
            _no_stream_options.add(self._base_url)
            self.asked = False
            self.options = original
        return refused

    def answered(self, reply: Any) -> Any:
        """The request has succeeded; a stream goes on metering itself."""
        call = self.call
        if call is NO_CALL:
            return reply
        try:
            if self.attempts[0] > 1:
                call.set(attempts=self.attempts[0])
            if not meter_stream(reply, call, hide_usage=self.asked, reader=self.reader):
                call.record(reply, output=call.attribute("operation") != "embeddings")
                call.finish()
        except Exception as exc:  # noqa: BLE001  # the reply itself is fine
            CONTAINMENT.caught("an instrument", exc)
        return reply

    def failed(self, exc: BaseException) -> None:
        if self.call is not NO_CALL:
            if self.attempts[0] > 1:
                self.call.set(attempts=self.attempts[0])
            self.call.finish(exc)


def metered_request(
    request: Callable[..., Any], kind: type[Metered] | None = None
) -> Callable[..., Any]:
    """A client's ``request`` with each call metered; ``kind`` knows the provider."""

    @functools.wraps(request)
    def metered(self: Any, cast_to: Any, options: Any, **kwargs: Any) -> Any:
        one = (kind or Metered)(self, options)
        token = _ATTEMPTS.set(one.attempts)
        try:
            try:
                reply = request(self, cast_to, one.options, **kwargs)
            except Exception as exc:
                if not one.refused_to_tell(exc, options):
                    raise
                reply = request(self, cast_to, options, **kwargs)
        except BaseException as exc:
            one.failed(exc)
            raise
        finally:
            _ATTEMPTS.reset(token)
        return one.answered(reply)

    return metered


def metered_async_request(
    request: Callable[..., Any], kind: type[Metered] | None = None
) -> Callable[..., Any]:
    """The same for an async client."""

    @functools.wraps(request)
    async def metered(self: Any, cast_to: Any, options: Any, **kwargs: Any) -> Any:
        one = (kind or Metered)(self, options)
        token = _ATTEMPTS.set(one.attempts)
        try:
            try:
                reply = await request(self, cast_to, one.options, **kwargs)
            except Exception as exc:
                if not one.refused_to_tell(exc, options):
                    raise
                reply = await request(self, cast_to, options, **kwargs)
        except BaseException as exc:
            one.failed(exc)
            raise
        finally:
            _ATTEMPTS.reset(token)
        return one.answered(reply)

    return metered


def _with_body(options: Any, body: dict[str, Any]) -> Any:
    """A copy of the request's options with another body; the caller's stays as it is."""
    copied = options.model_copy() if hasattr(options, "model_copy") else options.copy()
    copied.json_data = body
    return copied


def _provider(client: Any, base_url: str) -> str:
    if type(client).__name__.startswith(("Azure", "AsyncAzure")):
        return "azure"
    host = urlsplit(base_url).hostname or ""
    return PROVIDERS.get(host, "azure" if host.endswith(".openai.azure.com") else "openai")
