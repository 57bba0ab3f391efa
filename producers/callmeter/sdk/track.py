"""``track``: meters a function of the host's program as a call of its own.

Functions, coroutines, generators and async generators keep their kind, name, docstring and
signature. A generator's call lasts from its first item asked for to its end; its first item is the
first token, and abandoning it ends the call as ``cancelled``.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, ParamSpec, TypeVar, overload

from callmeter.sdk import api
from callmeter.sdk.call import NO_CALL, Call
from callmeter.sdk.context import FRAME, restore
from callmeter.settings import is_true

P = ParamSpec("P")
R = TypeVar("R")
#: Opens a call for one invocation, given its arguments.
Opener = Callable[[tuple[Any, ...], dict[str, Any]], Call]


@overload
def track(fn: Callable[P, R]) -> Callable[P, R]: ...


@overload
def track(
    fn: None = None,
    *,
    name: str | None = None,
    operation: str = "program",
    record_inputs: bool | None = None,
    record_outputs: bool | None = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]: ...


def track(
    fn: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    operation: str = "program",
    record_inputs: bool | None = None,
    record_outputs: bool | None = None,
) -> Any:
    """Meter every invocation of a function; calls inside it are its children.

    ``operation`` is ``program``, ``node``, ``execute_tool`` or whatever the function does.
    Arguments and result are recorded if the setting says so; ``record_inputs`` and
    ``record_outputs`` decide it for this function alone.

    >>> @callmeter.track
    ... def answer(question): ...
    >>> @callmeter.track(name="search", operation="execute_tool")
    ... async def search(query): ...
    """
    if fn is None:
        return functools.partial(
            track,
            name=name,
            operation=operation,
            record_inputs=record_inputs,
            record_outputs=record_outputs,
        )
    if is_true(os.environ.get("CALLMETER_DISABLED")):
        return fn
    label = name or str(getattr(fn, "__qualname__", type(fn).__name__))

    def opened(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        call = api.operation_call(label, operation)
        if call is not NO_CALL and _wanted(record_inputs, call.intake.record_inputs):
            call.inputs(_arguments(fn, args, kwargs), keep=True)
        return call

    if inspect.isasyncgenfunction(fn):
        return _async_generator(fn, opened, record_outputs)
    if inspect.iscoroutinefunction(fn):
        return _coroutine(fn, opened, record_outputs)
    if inspect.isgeneratorfunction(fn):
        return _generator(fn, opened, record_outputs)
    return _function(fn, opened, record_outputs)


def _function(fn: Any, opened: Opener, keep: bool | None) -> Callable[..., Any]:
    @functools.wraps(fn)
    def tracked(*args: Any, **kwargs: Any) -> Any:
        with opened(args, kwargs) as call:
            result = fn(*args, **kwargs)
            if keep is not False:
                call.output(result, keep=keep)
            return result

    return tracked


def _coroutine(fn: Any, opened: Opener, keep: bool | None) -> Callable[..., Any]:
    @functools.wraps(fn)
    async def tracked(*args: Any, **kwargs: Any) -> Any:
        with opened(args, kwargs) as call:
            result = await fn(*args, **kwargs)
            if keep is not False:
                call.output(result, keep=keep)
            return result

    return tracked


class _Stream:
    """What both kinds of generators share: the call is the parent only while their code runs."""

    def __init__(self, call: Call, keep: bool | None) -> None:
        self.call = call.start()
        self._items: list[Any] = []
        self._keep = call is not NO_CALL and _wanted(keep, call.intake.record_outputs)

    def item(self, value: Any) -> None:
        self.call.first_token()
        if self._keep:
            self._items.append(value)

    def end(self, exc: BaseException | None = None) -> None:
        if self._keep:
            self.call.output(self._items, keep=True)
        self.call.finish(exc)


def _generator(fn: Any, opened: Opener, keep: bool | None) -> Callable[..., Any]:
    @functools.wraps(fn)
    def tracked(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        stream = _Stream(opened(args, kwargs), keep)
        inner = fn(*args, **kwargs)
        step, given = inner.send, None
        try:
            while True:
                token = FRAME.set(stream.call.frame())
                try:
                    value = step(given)
                finally:
                    restore(token)
                stream.item(value)
                try:
                    given = yield value
                    step = inner.send
                except GeneratorExit:
                    inner.close()
                    raise
                except BaseException as exc:  # noqa: BLE001  # thrown in: it is the inner one's
                    given, step = exc, inner.throw
        except StopIteration as stop:
            stream.end()
            return stop.value
        except BaseException as exc:
            stream.end(exc)
            raise

    return tracked


def _async_generator(fn: Any, opened: Opener, keep: bool | None) -> Callable[..., Any]:
    @functools.wraps(fn)
    async def tracked(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        stream = _Stream(opened(args, kwargs), keep)
        inner = fn(*args, **kwargs)
        step, given = inner.asend, None
        try:
            while True:
                token = FRAME.set(stream.call.frame())
                try:
                    value = await step(given)
                finally:
                    restore(token)
                stream.item(value)
                try:
                    given = yield value
                    step = inner.asend
                except GeneratorExit:
                    await inner.aclose()
                    raise
                except BaseException as exc:  # noqa: BLE001  # thrown in: it is the inner one's
                    given, step = exc, inner.athrow
        except StopAsyncIteration:
            stream.end()
        except BaseException as exc:
            stream.end(exc)
            raise

    return tracked


def _wanted(own: bool | None, setting: bool) -> bool:
    return setting if own is None else own


def _arguments(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Arguments by name; ``self`` is left out."""
    try:
        bound = inspect.signature(fn).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return {"args": list(args), "kwargs": kwargs}
    return {name: value for name, value in bound.items() if name not in ("self", "cls")}
