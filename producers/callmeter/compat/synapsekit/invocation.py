"""One call of a model, as every wrapper around that model sees it."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Any

from callmeter.compat.synapsekit.prices import cost_of
from callmeter.compat.synapsekit.spans import SCOPE_NAME
from callmeter.compat.synapsekit.tracespan import TraceSpan
from callmeter.compat.synapsekit.usage import meter_of, model_of, provider_of, usage_in
from callmeter.money import from_pico
from callmeter.pricing import CostParts
from callmeter.sdk import api
from callmeter.sdk.call import NO_CALL
from callmeter.sdk.freezing import freeze
from callmeter.sdk.nesting import enter_billable
from callmeter.sdk.scrub import cut_text, cut_texts


class Recording:
    """What a ``TracingMiddleware`` wants of a call: who it is, and how much text is kept."""

    def __init__(self, tracer_name: str, max_input: int | None, max_output: int | None) -> None:
        self.tracer_name = tracer_name
        #: Characters; None keeps nothing.
        self.max_input = max_input
        self.max_output = max_output

    def begin(self, span: TraceSpan, given: Any) -> None:
        """Note the tracer and what was given."""
        span.note(SCOPE_NAME, self.tracer_name)
        if self.max_input is not None:
            text = shortened(given, self.max_input)
            span.note("input", text)
            span.call.inputs(text, keep=True)

    def end(self, span: TraceSpan, answer: Any) -> None:
        """Note the answer."""
        if self.max_output is not None:
            text = shortened(answer, self.max_output)
            span.note("output", text)
            span.call.output(text, keep=True)


class Invocation:
    """Made by the outermost wrapper before the model is asked; ``usage`` is None until then, and
    after it if the model did not say.
    """

    def __init__(self, method: str, llm: Any, prompt: Any, kwargs: dict[str, Any]) -> None:
        self.method = method
        self.llm = llm
        self.prompt = prompt
        self.kwargs = kwargs
        self.model = str(kwargs.get("model") or model_of(llm))
        self.provider = provider_of(llm)
        self.usage: dict[str, int] | None = None
        self.recording: Recording | None = None
        #: Attributes of the metered call that wrappers want to see on it.
        self.attributes: dict[str, Any] = {}
        #: Below is a guard of callmeter's own, so this call is not the billable one; and wrappers
        #: below that make the span of the model's call.
        self.billed_below = False
        self.seen_below = False
        self._meter = meter_of(llm)
        self.span: TraceSpan

    def begin(self) -> None:
        """The model is about to be asked: the call and its span start."""
        call = api.generation(
            f"llm.{self.method}", model=self.model, provider=self.provider, **self.attributes
        )
        self.span = TraceSpan(f"{'guard' if self.seen_below else 'llm'}.{self.method}", call)
        if call is not NO_CALL:
            enter_billable(call)
            if self.billed_below:
                call.wraps_billable()
        self.span.note("gen_ai.operation.name", "chat")
        self.span.note("gen_ai.request.model", self.model)
        self.span.note("gen_ai.provider.name", self.provider)
        if self.recording is not None:
            self.recording.begin(self.span, self.prompt)
        self._meter.enter()

    def answered(self, answer: Any) -> None:
        """The model has answered; a stream's answer is the list of its chunks."""
        counted = self._meter.leave()
        self.usage = usage_in(answer) or counted
        usage, span = self.usage, self.span
        if usage is not None:
            span.call.usage(**usage)
            span.note("gen_ai.usage.input_tokens", usage.get("input", 0))
            span.note("gen_ai.usage.output_tokens", usage.get("output", 0))
        if self.cost is not None:
            span.note("cost_usd", float(from_pico(self.cost_pico)))
        if self.recording is not None:
            self.recording.end(span, answer)

    def failed(self, exc: BaseException) -> None:
        """The model did not answer: whatever it counted is nobody's."""
        self._meter.leave()
        self.span.fail(exc)
        self.span.end()

    @cached_property
    def cost(self) -> CostParts | None:
        """Of an answered call, taken apart; None if the price or the usage is unknown."""
        at_us = int(self.started.timestamp() * 1e6)
        return cost_of(self.provider, self.model, at_us, self.usage)

    @property
    def cost_pico(self) -> int:
        """Pico-USD, 0 if unknown; the stored record says ``unpriced`` then."""
        parts = self.cost
        return 0 if parts is None else parts.input_pico + parts.output_pico + parts.other_pico

    @property
    def started(self) -> datetime:
        """When the model was asked."""
        return self.span.span.start_time


def shortened(value: Any, max_chars: int) -> Any:
    """Text of at most so many characters; of structured values every text within."""
    if isinstance(value, str):
        return cut_text(value, max_chars)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return cut_text("".join(value), max_chars)  # the chunks of a stream
    return cut_texts(freeze(value), max_chars)[0]
