"""Calls by the real LiteLLM against a local stub: writes what was metered, as JSON by scenario.

    litellm_program.py FILE

LiteLLM pins an older client of OpenAI's than the tests use, so this runs in an environment of its
own (``support.locked_environment``) and needs nothing there but LiteLLM and the SDK.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger

import callmeter
from callmeter.testing import capture
from support.openai_stub import OpenAIStub

MESSAGES = [{"role": "user", "content": "What is the answer?"}]
PATIENCE_S = 60.0

Scenario = Callable[[OpenAIStub], int]
SCENARIOS: dict[str, Scenario] = {}
#: Scenarios in which OpenAI's client is instrumented too.
OVER_OPENAI: set[str] = set()


class Told(CustomLogger):
    """Counts the ends that LiteLLM tells of, in threads of its own. Registered after callmeter's
    callback, so what it was told callmeter was told before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[Any] = []

    def log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self.ends.append(kwargs.get("response_cost"))

    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self.ends.append(kwargs.get("response_cost"))

    def log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self.ends.append(None)

    async def async_log_failure_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        self.ends.append(None)

    def wait(self, count: int) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while len(self.ends) < count:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"LiteLLM told of {len(self.ends)} ends of {count}")
            time.sleep(0.01)


def scenario(function: Scenario) -> Scenario:
    """A scenario makes its calls and answers how many ends LiteLLM will tell of."""
    SCENARIOS[function.__name__] = function
    return function


def over_openai(function: Scenario) -> Scenario:
    OVER_OPENAI.add(function.__name__)
    return scenario(function)


def asked(stub: OpenAIStub, **more: Any) -> dict[str, Any]:
    plain = {"model": "openai/gpt-4o-mini", "messages": MESSAGES, "max_retries": 0}
    return {**plain, "api_base": stub.base_url, "api_key": "k", **more}


STREAMED: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


@scenario
def completion(stub: OpenAIStub) -> int:
    litellm.completion(**asked(stub, user="u1"))
    return 1


@scenario
def stream(stub: OpenAIStub) -> int:
    list(litellm.completion(**asked(stub, **STREAMED)))
    return 1


@scenario
def stream_without_usage(stub: OpenAIStub) -> int:
    list(litellm.completion(**asked(stub, stream=True)))
    return 1


@scenario
def reply_without_usage(stub: OpenAIStub) -> int:
    stub.no_usage = True
    litellm.completion(**asked(stub))
    return 1


@scenario
def embedding(stub: OpenAIStub) -> int:
    model = "openai/text-embedding-3-small"
    litellm.embedding(model=model, input=["x"], api_base=stub.base_url, api_key="k")
    return 1


@scenario
def failure(stub: OpenAIStub) -> int:
    stub.fail_next(400)
    try:
        litellm.completion(**asked(stub))
    except litellm.BadRequestError:
        return 1
    raise AssertionError("the stub was told to fail")


@scenario
def acompletion(stub: OpenAIStub) -> int:
    async def calls() -> None:
        await litellm.acompletion(**asked(stub))
        async for _ in await litellm.acompletion(**asked(stub, **STREAMED)):
            pass
        stub.fail_next(400)
        try:
            await litellm.acompletion(**asked(stub))
        except litellm.BadRequestError:
            # LiteLLM tells of ends in tasks of this loop: it must live until then.
            await asyncio.to_thread(TOLD.wait, 3)
            return
        raise AssertionError("the stub was told to fail")

    asyncio.run(calls())
    return 3


@over_openai
def completion_over_openai(stub: OpenAIStub) -> int:
    litellm.completion(**asked(stub))
    return 1


@over_openai
def stream_over_openai(stub: OpenAIStub) -> int:
    list(litellm.completion(**asked(stub, **STREAMED)))
    return 1


@over_openai
def acompletion_over_openai(stub: OpenAIStub) -> int:
    async def call() -> None:
        await litellm.acompletion(**asked(stub))
        await asyncio.to_thread(TOLD.wait, 1)

    asyncio.run(call())
    return 1


@scenario
def instrumented_twice(stub: OpenAIStub) -> int:
    with callmeter.instrument("litellm"):
        litellm.completion(**asked(stub))
    litellm.completion(**asked(stub))  # the inner one undid nothing: it had installed nothing
    return 2


@scenario
def undone(stub: OpenAIStub) -> int:
    litellm.completion(**asked(stub))
    TOLD.wait(1)
    UNDO[-1]()
    litellm.completion(**asked(stub))
    held = [value for value in vars(litellm).values() if isinstance(value, list)]
    left = [one for some in held for one in some if type(one).__module__.startswith("callmeter")]
    assert not left, left
    return 2


TOLD = Told()
UNDO: list[Callable[[], None]] = []


def run(name: str) -> dict[str, Any]:
    """One scenario with a client, a stub and instruments of its own."""
    TOLD.ends.clear()
    with OpenAIStub() as stub, capture(record_inputs=True, record_outputs=True) as metered:
        UNDO.append(callmeter.instrument("litellm"))
        if name in OVER_OPENAI:
            UNDO.append(callmeter.instrument("openai"))
        litellm.callbacks.append(TOLD)
        try:
            TOLD.wait(SCENARIOS[name](stub))
            return {
                "calls": metered.calls,
                "costs": list(TOLD.ends),
                "requests": len(stub.requests),
            }
        finally:
            for undo in UNDO:
                undo()
            UNDO.clear()
            forget(TOLD)


def forget(callback: object) -> None:
    """LiteLLM copies what is registered into a list for each kind of event."""
    for held in [value for value in vars(litellm).values() if isinstance(value, list)]:
        while callback in held:
            held.remove(callback)


def main() -> None:
    found = {name: run(name) for name in SCENARIOS}
    Path(sys.argv[1]).write_text(json.dumps(found))  # LiteLLM prints now and then


if __name__ == "__main__":
    main()
