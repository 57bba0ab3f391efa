"""``track_model_request``: the decorator of a model's own request method."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

from callmeter.compat.sygra import state, wire
from callmeter.compat.sygra.collector import get_metadata_collector
from callmeter.compat.sygra.recording import (
    NODE,
    RequestNote,
    elapsed_us,
    identify,
    model_of,
    task_of,
)
from callmeter.compat.sygra.records import OK, RAISED
from callmeter.compat.sygra.slot import Box
from callmeter.compat.sygra.state import Model, RunState
from callmeter.compat.sygra.tokens import UNITS, counts_and_units
from callmeter.sdk import api
from callmeter.sdk.call import NO_CALL, Call
from callmeter.sdk.containment import CONTAINMENT
from callmeter.sdk.context import FRAME

_collector = get_metadata_collector()

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
            if not _collector.is_enabled():
                return await func(*args, **kwargs)
            tracked = _Tracked(args, kwargs)
            try:
                result = await func(*args, **kwargs)
            except BaseException as exc:
                tracked.end(RAISED, None, exc)
                raise
            tracked.answered(result)
            return result

        return tracked_async  # type: ignore[return-value]  # the coroutine function's own type

    @functools.wraps(func)
    def tracked(*args: Any, **kwargs: Any) -> Any:
        if not _collector.is_enabled():
            return func(*args, **kwargs)
        tracked = _Tracked(args, kwargs)
        try:
            result = func(*args, **kwargs)
        except BaseException as exc:
            tracked.end(RAISED, None, exc)
            raise
        tracked.answered(result)
        return result

    return tracked


class LiveRequest:
    """A request that is under way, for whoever knows when it begins and ends."""

    __slots__ = ("_began_us", "_call", "_config", "_model", "_node", "_retry", "_run", "_start_ns",
                 "label")  # fmt: skip

    def __init__(
        self,
        run: RunState,
        label: str,
        config: Mapping[str, Any],
        *,
        retry: bool = False,
    ) -> None:
        """Begin: the request is sent now, and is the parent of what happens in it."""
        self.label = label
        self._config = config
        self._run = run
        self._retry = retry
        model = self._model = run.models.get(label) or model_of(label, config)
        node = self._node = NODE.get()
        self._call = _opened(run, model, None if node is None else node.name)
        self._began_us = time.time_ns() // 1000
        self._start_ns = time.perf_counter_ns()
        self._call.__enter__()

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
        run, call, node = self._run, self._call, self._node
        if label is not None and label != self.label:
            self.label = label
            self._model = run.models.get(label) or self._model._replace(name=label)
            call.set(model=label)
        usage: Mapping[str, int] | None = None
        prompt = completion = total = 0
        if counts is not None:
            prompt = _count(counts.get("prompt_tokens"))
            completion = _count(counts.get("completion_tokens"))
            total = _count(counts.get("total_tokens")) or prompt + completion
            usage = counts.get(UNITS) or {"input": prompt, "output": completion}
        if call is not NO_CALL:
            if usage is not None:
                call.usage(**usage)
            call.set(
                **wire.request_attributes(
                    self.label,
                    code,
                    identify(run, self.label, self._model, self._config),
                    None if node is None else node.span,
                    retry=self._retry,
                    total=None if total == prompt + completion else total,
                )
            )
            if exc is None and code != OK:
                call.failed(f"http_{code}")
            call.finish(exc)
        else:
            identify(run, self.label, self._model, self._config)
        run.note(
            RequestNote(
                self.label,
                elapsed_us(call, self._start_ns),
                code,
                self._retry,
                (prompt, completion, total),
                usage,
                self._model,
                self._began_us,
                node,
            )
        )


def _opened(run: RunState, model: Model, node: str | None) -> Call:
    """The meter's side of a request; not begun yet."""
    client = api.default_client()
    if client is None or client.intake is None:
        return NO_CALL
    task = task_of(run)
    if FRAME.get().labels.tags.get(wire.RUN_TAG) == run.id:  # inside of ``run``: the common case
        return api.generation(
            node, model=model.name, provider=model.provider, program=task, node=node
        )
    tags = {wire.RUN_TAG: run.id}
    return client.generation(
        node, model=model.name, provider=model.provider, tags=tags, program=task, node=node
    )


class _Tracked:
    """One call of a decorated method. Its own troubles never reach the caller."""

    __slots__ = ("_asked", "_box", "_request")

    def __init__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._request: LiveRequest | None = None
        self._box: Box | None = None
        try:
            owner = args[0] if args else None
            rest = args[1:] if not kwargs else (*args[1:], *(kwargs[k] for k in sorted(kwargs)))
            self._asked: _Asked = (owner, rest)
            run = state.current()
            label = name_of(owner)
            config = {} if label in run.models else config_of(owner)
            if owner is not None:
                self._box = Box(owner)
            self._request = LiveRequest(run, label, config, retry=_same(_FAILED.get(), self._asked))
        except Exception as exc:  # noqa: BLE001  # the host's request goes on all the same
            CONTAINMENT.caught("track_model_request", exc)

    def answered(self, result: Any) -> None:
        """The method has returned."""
        code, answer = OK, result
        if type(result) is tuple and len(result) == 2 and type(result[1]) is not bool:
            answer, told = result
            if isinstance(told, int):
                code = int(told)
            else:
                answer = result
        self.end(code, answer, None)

    def end(self, code: int, answer: Any, exc: BaseException | None) -> None:
        """The method is over: it has returned an answer, or raised."""
        try:
            said = None if self._box is None else self._box.close()
            counts: Mapping[str, Any] | None = None
            if exc is None:
                counts = said if isinstance(said, dict) else counts_and_units(answer)
            if self._request is not None:
                self._request.end(code, counts, exc)
            if code != OK:
                _FAILED.set(self._asked)
            elif _FAILED.get() is not None:
                _FAILED.set(None)
        except Exception as trouble:  # noqa: BLE001  # the host's request is over and done
            CONTAINMENT.caught("track_model_request", trouble)


def name_of(owner: Any) -> str:
    """What a model calls itself, by ``name()`` or ``name``; ``unknown`` if it does not."""
    try:
        name = getattr(owner, "name", None)
        label = name() if callable(name) else name
    except Exception as exc:  # noqa: BLE001  # a model's own method may do anything
        CONTAINMENT.caught("a model's name", exc)
        label = None
    return str(label) if label else "unknown"


def config_of(owner: Any) -> dict[str, Any]:
    """A model's configuration, whatever its shape; its type is added."""
    config = getattr(owner, "model_config", None) or getattr(owner, "_config", None)
    merged = dict(config) if isinstance(config, Mapping) else {}
    kind = getattr(owner, "model_type", None)
    kind = kind() if callable(kind) else kind
    if kind:
        merged["type"] = str(kind)
    return merged


def _count(value: Any) -> int:
    if type(value) is int:
        return max(0, value)
    return int(value) if isinstance(value, float) and value > 0 else 0


def _same(failed: _Asked | None, asked: _Asked) -> bool:
    """Whether two requests ask the same of the same model; by identity, never by their ``==``."""
    if failed is None or failed[0] is not asked[0] or len(failed[1]) != len(asked[1]):
        return False
    return all(
        a is b or (type(a) is type(b) and isinstance(a, str | int | float) and a == b)
        for a, b in zip(failed[1], asked[1], strict=True)
    )
