"""How a guard stands around models and functions of every kind: sync, async, and streams."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar, cast

from callmeter.sdk.budget.admission import Admission
from callmeter.sdk.budget.asked import Asked

if TYPE_CHECKING:
    from callmeter.sdk.budget.guard import BudgetGuard

F = TypeVar("F", bound=Callable[..., Any])


def generate(
    guard: BudgetGuard, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """One answer of a model."""
    if inspect.iscoroutinefunction(target):
        return _answered(guard, target, args, kwargs)
    asked = Asked(guard, args, kwargs)
    with asked.admission:
        reply = target(*args, **kwargs)
        if not inspect.isawaitable(reply):
            asked.answered(reply)
            return reply
    return _awaited(asked, reply)


async def _answered(
    guard: BudgetGuard, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    asked = Asked(guard, args, kwargs)
    with asked.admission:
        reply = await target(*args, **kwargs)
        asked.answered(reply)
        return reply


async def _awaited(asked: Asked, reply: Any) -> Any:
    with asked.admission.inside():
        answer = await reply
        asked.answered(answer)
        return answer


def stream(
    guard: BudgetGuard, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """The chunks of a model."""
    if inspect.isgeneratorfunction(target):
        return _chunks(guard, target, args, kwargs)
    if inspect.isasyncgenfunction(target) or inspect.iscoroutinefunction(target):
        return _async_chunks(guard, target, args, kwargs)
    # Any other callable may return either kind: it is admitted and asked now.
    asked = Asked(guard, args, kwargs)
    admission = asked.admission.begin()
    try:
        with admission.inside():
            chunks = target(*args, **kwargs)
    except BaseException:
        admission.end()
        raise
    return _later(asked, chunks) if hasattr(chunks, "__aiter__") else _rest(asked, chunks)


def _chunks(
    guard: BudgetGuard, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Generator[Any, Any, Any]:
    asked = Asked(guard, args, kwargs)
    asked.admission.begin()
    return (yield from _rest(asked, target(*args, **kwargs)))


def _rest(asked: Asked, chunks: Any) -> Generator[Any, Any, Any]:
    inner = iter(chunks)
    try:
        while True:
            with asked.admission.inside():
                try:
                    chunk = next(inner)
                except StopIteration as stop:
                    return stop.value
            asked.chunk(chunk)
            yield chunk
    finally:
        # An abandoned stream has cost what it says, too.
        with asked.admission.inside():
            if (close := getattr(inner, "close", None)) is not None:
                close()
            asked.ended()
        asked.admission.end()


async def _async_chunks(
    guard: BudgetGuard, target: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AsyncGenerator[Any, None]:
    asked = Asked(guard, args, kwargs)
    asked.admission.begin()
    chunks = target(*args, **kwargs)
    if inspect.isawaitable(chunks):
        try:
            with asked.admission.inside():
                chunks = await chunks
        except BaseException:
            asked.admission.end()
            raise
    inner = _later(asked, chunks)
    try:
        async for chunk in inner:
            yield chunk
    finally:
        await inner.aclose()


async def _later(asked: Asked, chunks: Any) -> AsyncGenerator[Any, None]:
    inner = aiter(chunks)
    try:
        while True:
            with asked.admission.inside():
                try:
                    chunk = await anext(inner)
                except StopAsyncIteration:
                    return
            asked.chunk(chunk)
            yield chunk
    finally:
        with asked.admission.inside():
            if (close := getattr(inner, "aclose", None)) is not None:
                await close()
            asked.ended()
        asked.admission.end()


def function(guard: BudgetGuard, fn: F) -> F:
    """The function, asked for before each run. What it is stays what it is."""

    def admission(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Admission:
        return Asked(guard, args, kwargs, function=True).admission

    wrapped: Any
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):

        def of_stream(*args: Any, **kwargs: Any) -> Any:
            asked = Asked(guard, args, kwargs, function=True)
            if inspect.isasyncgenfunction(fn):
                return _begun_later(asked, fn, args, kwargs)
            return _begun(asked, fn, args, kwargs)

        wrapped = of_stream
    elif inspect.iscoroutinefunction(fn):

        async def of_coroutine(*args: Any, **kwargs: Any) -> Any:
            with admission(args, kwargs):
                return await fn(*args, **kwargs)

        wrapped = of_coroutine
    else:

        def of_function(*args: Any, **kwargs: Any) -> Any:
            with admission(args, kwargs):
                return fn(*args, **kwargs)

        wrapped = of_function
    done: Any = functools.wraps(fn)(wrapped)
    return cast("F", done)


def _begun(
    asked: Asked, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Generator[Any, Any, Any]:
    asked.admission.begin()
    return (yield from _rest(asked, fn(*args, **kwargs)))


async def _begun_later(
    asked: Asked, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> AsyncGenerator[Any, None]:
    asked.admission.begin()
    inner = _later(asked, fn(*args, **kwargs))
    try:
        async for item in inner:
            yield item
    finally:
        await inner.aclose()
