"""What all wrappers of a model share: they stack in any order, and the model is asked once.

The outermost wrapper makes one ``Invocation``, asks every wrapper below it (may this call be made?
what is to be kept?), asks the model, and tells them all the outcome, the innermost first.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from callmeter.compat.synapsekit.invocation import Invocation
from callmeter.sdk.budget.guard import BudgetGuard as SharedGuard
from callmeter.sdk.containment import CONTAINMENT
from callmeter.sdk.context import FRAME, restore

#: Other methods by which SynapseKit's programs ask a model; what they cost counts just as well.
ANSWERING = frozenset({"generate_with_messages", "call_with_tools"})
STREAMING = frozenset({"stream_with_messages"})


class LLMWrapper:
    """Wraps a model with ``generate(prompt, **kwargs)`` and ``stream(prompt, **kwargs)``, and with
    ``generate_with_messages``, ``stream_with_messages`` and ``call_with_tools`` if it has them.

    Results, chunks and exceptions pass through unchanged; every other name is the model's own.
    """

    def __init__(self, llm: Any) -> None:
        self._llm = llm

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_llm":  # copying asks before __init__ has run
            raise AttributeError(name)
        if name in ANSWERING or name in STREAMING:
            getattr(self._llm, name)  # AttributeError if the model has no such method
            return functools.partial(self._ask if name in ANSWERING else self._read, name)
        return getattr(self._llm, name)

    async def generate(self, prompt: Any, **kwargs: Any) -> Any:
        """The model's answer."""
        return await self._ask("generate", prompt, **kwargs)

    async def stream(self, prompt: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        """The model's chunks, as they come; it is recorded when the stream ends."""
        async with aclosing(self._read("stream", prompt, **kwargs)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        chain, one = self._begin("generate", args, kwargs)
        token = FRAME.set(one.span.frame)
        try:
            answer = await getattr(one.llm, method)(*args, **kwargs)
        except BaseException as exc:
            one.failed(exc)
            raise
        finally:
            restore(token)
        _tell(chain, one, answer)
        return answer

    async def _read(self, method: str, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
        chain, one = self._begin("stream", args, kwargs)
        chunks: list[Any] = []
        keep = one.recording is not None
        try:
            stream = getattr(one.llm, method)(*args, **kwargs)
            async with aclosing(_inside(one, stream)) as inner:
                async for chunk in inner:
                    one.span.call.first_token()
                    if keep:
                        chunks.append(chunk)
                    yield chunk
        except BaseException as exc:
            one.failed(exc)
            raise
        _tell(chain, one, chunks)

    def _begin(
        self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[list[LLMWrapper], Invocation]:
        chain = _chain(self)
        prompt = args[0] if args else kwargs.get("messages", "")
        below = chain[-1]._llm
        one = Invocation(method, below, prompt, kwargs)
        if isinstance(below, SharedGuard):  # it meters what it asks, or what it asks does
            one.billed_below = True
            one.seen_below = isinstance(below.llm, LLMWrapper)
        for wrapper in chain:
            wrapper.before(one)
        one.begin()
        return chain, one

    def before(self, one: Invocation) -> None:
        """The model is about to be asked. What this raises is raised instead of asking."""

    def after(self, one: Invocation, answer: Any) -> None:
        """The model has answered; what this raises is contained."""


def _chain(outermost: LLMWrapper) -> list[LLMWrapper]:
    """A wrapper and those below it, up to the first with a ``generate`` of its own."""
    chain = [outermost]
    while True:
        below = chain[-1]._llm
        if not isinstance(below, LLMWrapper) or type(below).generate is not LLMWrapper.generate:
            return chain
        chain.append(below)


def _tell(chain: list[LLMWrapper], one: Invocation, answer: Any) -> None:
    try:
        one.answered(answer)
        for wrapper in reversed(chain):
            wrapper.after(one, answer)
    except Exception as exc:  # noqa: BLE001  # the answer itself is fine
        CONTAINMENT.caught("a wrapper of a model", exc)
    finally:
        one.span.end()


async def _inside(one: Invocation, chunks: Any) -> AsyncGenerator[Any, None]:
    """The model's chunks; what it calls to make one is below its span, what their reader calls is
    not.
    """
    steps = aiter(chunks)
    try:
        while True:
            token = FRAME.set(one.span.frame)
            try:
                chunk = await anext(steps)
            except StopAsyncIteration:
                return
            finally:
                restore(token)
            yield chunk
    finally:
        close = getattr(steps, "aclose", None)
        if close is not None:
            await close()
