"""One call of a module: its record in callmeter, what hooks are told, and what the totals gain.

The record, the totals and the recorder are all filled from the same values, once, when the call
ends. Models are billable calls; the outermost module is an operation ``program``, any other a
``node``: counted apart, never carrying cost.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from callmeter.compat.synalinks import switches
from callmeter.compat.synalinks.current import NO_ANSWER, RUN, ModuleCall
from callmeter.compat.synalinks.modules import OPERATIONS, Role, model_and_provider, name_of
from callmeter.compat.synalinks.monitor import Monitor
from callmeter.compat.synalinks.payload import payload_of
from callmeter.compat.synalinks.reading import Reading, forget_cost
from callmeter.compat.synalinks.recorder import Recorder
from callmeter.compat.synalinks.scope import DEFAULT_LABEL, SURROUNDING, current_phase, now_ns
from callmeter.compat.synalinks.stream import MeteredStream
from callmeter.compat.synalinks.totals import totals_of
from callmeter.ids import uuid7
from callmeter.money import format_usd
from callmeter.sdk import api
from callmeter.sdk.call import NO_CALL, Call
from callmeter.sdk.containment import CONTAINMENT
from callmeter.sdk.context import FRAME, LabelBlock, restore


class Run(ModuleCall):
    """A module call as a context manager; ``answer`` ends it, an exception fails it.

    >>> with Run(module, args, kwargs) as run:
    ...     result = await module.call(*args, **kwargs)
    >>> result = run.answer(result)
    """

    def __init__(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__(module, (args, kwargs))
        self.phase = ""
        self.first_ns: int | None = None
        self.last_ns: int | None = None
        self._blocks = ExitStack()
        self._started_ns = 0
        self._monitor: Monitor | None = None
        self._recorder: Recorder | None = None

    def __enter__(self) -> Self:
        blocks = self._blocks
        phase = current_phase() or switches.engine_phase()
        entry_program = self.parent is None and self.role is Role.MODULE
        blocks.enter_context(
            LabelBlock(phase=phase, program=name_of(self.module) if entry_program else None)
        )
        self.phase = phase
        try:
            self.call = self._open()
        except Exception as exc:  # noqa: BLE001  # the host's module runs on unmetered
            CONTAINMENT.caught("a module call", exc)
        self.call_id = self.call.id or uuid7()
        token = FRAME.set(self.call.frame())
        blocks.callback(restore, token)
        running = RUN.set(self)
        blocks.callback(RUN.reset, running)
        self._started_ns = now_ns()
        self.began_s = time.time()
        if self.role is not Role.MODULE:
            totals_of(self.module).begin()
            forget_cost(self.module)
        if self.parent is not None and getattr(self.parent.module, "fallback", None) is self.module:
            self.parent.fell_back = True
        self._monitor = switches.monitor_for(self.module)
        self._recorder = switches.recorder_for(self)
        if self._monitor is not None:
            self._monitor.begin(self.module, self.call_id, self.given[0])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if exc is not None:
            self.error = exc
            self._settle(None, exc)
        self._blocks.close()

    def answer(self, result: Any) -> Any:
        """The module has returned ``result``: what the caller gets, metered if it is a stream."""
        if self.model_call and is_stream(result):
            self.streamed = True
            self._tell_hooks(result, None)
            return MeteredStream(result, self)
        self._settle(result, None)
        return result

    def token(self) -> None:
        """A token of the stream has come."""
        self.last_ns = now_ns()
        if self.first_ns is None:
            self.first_ns = self.last_ns
            self.call.first_token()

    def stream_ended(self, exc: BaseException | None = None) -> None:
        """The stream is over; with an exception it broke, or was abandoned (``GeneratorExit``)."""
        self.error = exc or self.error
        abandoned = isinstance(exc, GeneratorExit)
        self._finish(None, exc, counted=not abandoned)

    # -- beginning -------------------------------------------------------------------------------

    def _open(self) -> Call:
        client = api.default_client()
        if client is None or client.intake is None:
            return NO_CALL
        name = name_of(self.module)
        if self.model_call:
            model, provider = model_and_provider(self.module)
            call = client.generation(
                name, model=model, provider=provider, operation=OPERATIONS[self.role]
            )
        else:
            outermost = self.parent is None and self.role is Role.MODULE
            call = api.operation_call(name, "program" if outermost else "node")
        call.set(**self._attributes())
        if call is not NO_CALL and call.intake.record_inputs:
            call.inputs(payload_of(self.given))
        if self.model_call:
            _bill_only(call)
        return call.start()

    def _attributes(self) -> dict[str, Any]:
        around = SURROUNDING.get()
        attributes: dict[str, Any] = {
            "module": type(self.module).__name__,
            "is_symbolic": self.symbolic,
            "user": around.user,
            "session": around.session,
        }
        if self.role is Role.MODULE and self.parent is not None:
            attributes["node"] = name_of(self.module)
        description = getattr(self.module, "description", None)
        if description:
            attributes["module_description"] = str(description)
        if self.parent is None:
            attributes["phase_label"] = self.phase or DEFAULT_LABEL
        elif self.parent.call_id:
            attributes["parent_call_id"] = self.parent.call_id
        return attributes

    # -- ending ----------------------------------------------------------------------------------

    def _settle(self, result: Any, exc: BaseException | None) -> None:
        self._finish(result, exc, counted=True)
        self._tell_hooks(result, exc)

    def _finish(self, result: Any, exc: BaseException | None, *, counted: bool) -> None:
        try:
            elapsed_ns = self._end_call(result, exc)
            self.elapsed_s = elapsed_ns / 1e9
            if self.role is not Role.MODULE:
                self._put_cost_back()
            if not counted:
                return
            if self.model_call:
                self._count_model(elapsed_ns, failed=exc is not None or self._has_failed(result))
            if self.parent is None and not self.symbolic:
                totals_of(self.module).add(
                    self.phase, {"invocations": 1, "invocation_elapsed_ns": elapsed_ns}
                )
        except Exception as trouble:  # noqa: BLE001  # the host's result is safe whatever happens
            CONTAINMENT.caught("a module call", trouble)

    def _has_failed(self, result: Any) -> bool:
        """The model itself gave no answer, even if its fallback did."""
        return self.error is not None or self.fell_back or (result is None and not self.streamed)

    def _end_call(self, result: Any, exc: BaseException | None) -> int:
        call = self.call
        if self.model_call:
            self._fill_model(call, result)
        else:
            if self.inner_pico is not None:
                call.set(cost_usd=format_usd(self.inner_pico))
            self._output(result)
        call.finish(exc)
        return (now_ns() - self._started_ns) if call is NO_CALL else call.end_ns - call.start_ns

    def _fill_model(self, call: Call, result: Any) -> None:
        failed = self._has_failed(result)
        if not failed:
            self.read()
        reading = self.reading
        if self.cache_hit:
            call.set(cache_hit=True)
            call.cost("0", "cache")
            if call is not NO_CALL:
                call.units = {}
        elif reading is not None and not failed:
            if reading.usage is not None:
                call.usage(**reading.usage)
                call.set(total_tokens=reading.total_tokens)
            if reading.vectors is not None and self.role is Role.EMBEDDING_MODEL:
                call.set(vectors=reading.vectors)
            if reading.finish_reason:
                call.set(finish_reason=reading.finish_reason)
            if reading.cost_pico is not None:
                call.cost(format_usd(reading.cost_pico), "litellm")
                self._charge(reading.cost_pico)
        if failed:
            if self.fell_back:
                call.set(fallback=True)
            if self.error is not None:
                call.error(self.error)
            else:
                call.failed("NoAnswer", NO_ANSWER)
        else:
            self._output(result)

    def _output(self, result: Any) -> None:
        call = self.call
        if call is not NO_CALL and call.intake.record_outputs and not self.streamed:
            call.output(payload_of(result))

    def _charge(self, pico: int) -> None:
        """What the modules around this call have spent, shown on their own records."""
        run = self.parent
        while run is not None:
            run.inner_pico = (run.inner_pico or 0) + pico
            run = run.parent

    def _put_cost_back(self) -> None:
        """The engine's own figure, once no other call of the model could mistake it for its own."""
        last = totals_of(self.module).end()
        if last and self.reading is not None and self.reading.told_cost is not None:
            self.module.last_call_cost = self.reading.told_cost

    def _count_model(self, elapsed_ns: int, *, failed: bool) -> None:
        reading = self.reading or Reading()
        usage = reading.usage or {}
        if failed:
            amounts = {"failed_calls": 1, "fallback_activations": int(self.fell_back)}
        elif self.cache_hit:
            amounts = {"cache_hits": 1}
        else:
            amounts = {
                "calls": 1,
                "elapsed_ns": elapsed_ns,
                "prompt_tokens": usage.get("input", 0),
                "completion_tokens": usage.get("output", 0),
                "tokens": reading.total_tokens,
                "cached_tokens": usage.get("cache_read", 0),
                "cache_creation_tokens": usage.get("cache_write", 0),
                "reasoning_tokens": usage.get("reasoning", 0),
                "vectors": reading.vectors or 0,
                "cost_pico": reading.cost_pico or 0,
            }
            if self.streamed and self.first_ns is not None and self.last_ns is not None:
                amounts["streaming_calls"] = 1
                amounts["streaming_ttft_ns"] = self.first_ns - self._started_ns
                amounts["streaming_ttlt_ns"] = self.last_ns - self._started_ns
        totals_of(self.module).add(self.phase, amounts)

    def _tell_hooks(self, result: Any, failure: BaseException | None) -> None:
        if self._monitor is not None:
            self._monitor.end(self.module, self.call_id, result, failure)
        if self._recorder is not None:
            self._recorder.write(self, result, failure)


def _bill_only(call: Call) -> None:
    """A user's own ``generation`` around this very model only wraps it: one call is billed."""
    if RUN.get() is not None:
        return
    span = FRAME.get().span
    for around in list(call.intake.open):
        if around.span == span:
            same = all(
                around.fields.get(name, default) == call.fields[name]
                for name, default in (("model", ""), ("operation", "chat"))
            )
            if same:
                around.wraps_billable()
            return


def is_stream(result: Any) -> bool:
    """Whether a model's answer is still to come, token by token."""
    return not hasattr(result, "get_json") and (
        hasattr(result, "__anext__") or hasattr(result, "__aiter__") or hasattr(result, "__next__")
    )
