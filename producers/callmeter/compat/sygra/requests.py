"""``track_model_request``: the decorator of a model's own request method."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from callmeter.compat.sygra import state, wire
from callmeter.compat.sygra.collector import get_metadata_collector
from callmeter.compat.sygra.recording import (
    NODE,
    elapsed_us,
    identify,
    model_of,
    take_request,
    task_of,
)
from callmeter.compat.sygra.records import NO_TOKENS, OK, RAISED, Request, Tokens
from callmeter.compat.sygra.slot import Box
from callmeter.compat.sygra.tokens import UNITS, counts_and_units
from callmeter.sdk import api
from callmeter.sdk.call import NO_CALL, Call
from callmeter.sdk.containment import CONTAINMENT

P = ParamSpec("P")
R = TypeVar("R")

#: A model and the arguments it was asked with.
_Asked = tuple[Any, tuple[Any, ...]]
#: The request before, in this task, if it failed.
_FAILED: ContextVar[_Asked | None] = ContextVar("callmeter_sygra_failed", default=None)


def track_model_request(func: Callable[P, R]) -> Callable[P, R]:
    """Record every call of a method, sync or async, that sends one request to a model.

    The method returns ``(answer, status code)``, or an answer alone (then the code is 200). The
    model is its object: ``name()`` or ``name``, ``model_config`` or ``_config``, ``model_type``.
    Tokens are what the method left in ``self._last_request_usage``, else what the answer says. One
    that raises counts as code 999, and the exception goes on. A request is a retry if the one
    before it in the same task had the same model and arguments, and failed.

    >>> class Model:
    ...     @track_model_request
    ...     async def generate(self, prompt, params): ...
    """
    if inspect.iscoroutinefunction(func):

        @functools.wraps(func)
        async def tracked_async(*args: Any, **kwargs: Any) -> Any:
            if not get_metadata_collector().is_enabled():
                return await func(*args, **kwargs)
            with _Tracked(args, kwargs) as request:
                result = await func(*args, **kwargs)
                request.answered(result)
                return result

        return tracked_async  # type: ignore[return-value]  # the coroutine function's own type

    @functools.wraps(func)
    def tracked(*args: Any, **kwargs: Any) -> Any:
        if not get_metadata_collector().is_enabled():
            return func(*args, **kwargs)
        with _Tracked(args, kwargs) as request:
            result = func(*args, **kwargs)
            request.answered(result)
            return result

    return tracked


class LiveRequest:
    """A request that is under way. Its own troubles never reach the caller."""

    def __init__(self, label: str, config: Mapping[str, Any], *, retry: bool = False) -> None:
        self.label = label
        self._config = config
        self._run = state.current()
        self._model = model_of(label, config)
        self._retry = retry
        self._node = NODE.get()
        self._began_us = time.time_ns() // 1000
        self._call: Call = self._opened()
        self._start_ns = time.perf_counter_ns()

    def _opened(self) -> Call:
        """The meter's side of the request; not begun yet."""
        client = api.default_client()
        if client is None or client.intake is None:
            return NO_CALL
        node = None if self._node is None else self._node.name
        return client.generation(
            node,
            model=self._model.name,
            provider=self._model.provider,
            tags={wire.RUN_TAG: self._run.id},
            program=task_of(self._run),
            node=node,
        )

    def begin(self) -> Self:
        """The request is sent now, and is the parent of what happens in it."""
        self._start_ns = time.perf_counter_ns()
        self._call.__enter__()
        return self

    def end(
        self,
        code: int,
        counts: Mapping[str, Any] | None,
        exc: BaseException | None = None,
        label: str | None = None,
    ) -> None:
        """The request is over. ``counts`` are the answer's prompt, completion and total tokens,
        None if unknown; ``label`` is the model's name where only the answer told it.
        """
        if label is not None and label != self.label:
            self.label = label
            self._model = self._model._replace(name=label)
            self._call.set(model=label)
        usage, tokens = _read(counts)
        call, node = self._call, self._node
        request = Request(self.label, 0, code, self._retry, tokens)
        fresh = identify(self._run, self.label, self._config)
        call.set(**wire.request_attributes(request, fresh, None if node is None else node.span))
        if usage is not None:
            call.usage(**usage)
        if exc is None and request.failed:
            call.failed(f"http_{code}")
        call.finish(exc)
        took_us = elapsed_us(call, self._start_ns)
        take_request(
            self._run,
            Request(self.label, took_us, code, self._retry, tokens),
            self._model,
            usage=usage,
            began_us=self._began_us,
            node=node,
        )


def _read(counts: Mapping[str, Any] | None) -> tuple[Mapping[str, int] | None, Tokens]:
    """Usage as the meter takes it (None is unknown), and tokens as the document shows them."""
    if counts is None:
        return None, NO_TOKENS
    prompt, completion = _count(counts, "prompt_tokens"), _count(counts, "completion_tokens")
    total = _count(counts, "total_tokens") or prompt + completion
    units = counts.get(UNITS) or {"input": prompt, "output": completion}
    return units, Tokens(prompt, completion, total)


class _Tracked:
    """One call of a decorated method."""

    __slots__ = ("_answer", "_asked", "_box", "_code", "_owner", "_request")

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._owner = args[0] if args else None
        self._asked = (self._owner, (*args[1:], *(kwargs[name] for name in sorted(kwargs))))
        self._code = RAISED
        self._answer: Any = None
        self._box: Box | None = None
        self._request: LiveRequest | None = None

    def __enter__(self) -> Self:
        try:
            label, config = described(self._owner)
            self._request = LiveRequest(label, config, retry=_same(_FAILED.get(), self._asked))
            if self._owner is not None:
                self._box = Box(self._owner)
            self._request.begin()
        except Exception as exc:  # noqa: BLE001  # the host's request goes on all the same
            CONTAINMENT.caught("track_model_request", exc)
        return self

    def answered(self, result: Any) -> None:
        """The method has returned."""
        self._code, self._answer = OK, result
        if isinstance(result, tuple) and len(result) == 2:
            code = result[1]
            if isinstance(code, int) and not isinstance(code, bool):
                self._code, self._answer = int(code), result[0]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        try:
            said = None if self._box is None else self._box.close()
            counts: Mapping[str, Any] | None = None
            if exc is None:
                counts = said if isinstance(said, Mapping) else counts_and_units(self._answer)
            code = self._code if exc is None else RAISED
            if self._request is not None:
                self._request.end(code, counts, exc)
            _FAILED.set(None if code == OK else self._asked)
        except Exception as trouble:  # noqa: BLE001  # the host's request is over and done
            CONTAINMENT.caught("track_model_request", trouble)


def described(owner: Any) -> tuple[str, dict[str, Any]]:
    """Name and configuration of a model, whatever shape they have; its type is added."""
    label: Any = None
    kind: Any = None
    try:
        name, kind = getattr(owner, "name", None), getattr(owner, "model_type", None)
        label = name() if callable(name) else name
        kind = kind() if callable(kind) else kind
    except Exception as exc:  # noqa: BLE001  # a model's own methods may do anything
        CONTAINMENT.caught("a model's name", exc)
    config = getattr(owner, "model_config", None) or getattr(owner, "_config", None)
    merged = dict(config) if isinstance(config, Mapping) else {}
    if kind:
        merged["type"] = str(kind)
    return (str(label) if label else "unknown"), merged


def _count(counts: Mapping[str, Any], name: str) -> int:
    value = counts.get(name)
    return int(value) if isinstance(value, int | float) and value > 0 else 0


def _same(failed: _Asked | None, asked: _Asked) -> bool:
    """Whether two requests ask the same of the same model; by identity, never by their ``==``."""
    if failed is None or failed[0] is not asked[0] or len(failed[1]) != len(asked[1]):
        return False
    return all(
        a is b or (type(a) is type(b) and isinstance(a, str | int | float) and a == b)
        for a, b in zip(failed[1], asked[1], strict=True)
    )
