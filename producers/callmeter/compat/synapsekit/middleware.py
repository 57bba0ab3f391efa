"""``TracingMiddleware``: a span for every call of a model or of a retrieval pipeline."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

from callmeter.compat.synapsekit.invocation import Invocation, Recording
from callmeter.compat.synapsekit.switches import SWITCHES
from callmeter.compat.synapsekit.tracespan import TraceSpan
from callmeter.compat.synapsekit.wrapping import LLMWrapper
from callmeter.sdk import api

#: What a pipeline's run is to callmeter.
PROGRAM = "program"


class TracingMiddleware(LLMWrapper):
    """Makes a span of every ``generate`` and ``stream`` of a model and every ``aquery`` of a
    pipeline. Other methods pass through; results and exceptions are unchanged.

    What was given and answered is an attribute of the span (``input``, ``output``), cut to so many
    characters, and is stored with the call; ``record_inputs=False`` and ``record_outputs=False``
    keep it out of everything. The store cuts again at the setting ``max_text_chars``.
    """

    def __init__(  # noqa: PLR0917  # as the document has it
        self,
        component: Any,
        tracer_name: str = "synapsekit",
        record_inputs: bool = True,
        record_outputs: bool = True,
        max_input_length: int = 500,
        max_output_length: int = 500,
    ) -> None:
        super().__init__(component)
        self.tracer_name = tracer_name
        self.record_inputs = record_inputs
        self.record_outputs = record_outputs
        self.max_input_length = max_input_length
        self.max_output_length = max_output_length

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        return self._traced(name, found) if name == "aquery" and callable(found) else found

    def before(self, one: Invocation) -> None:
        """The outermost middleware says what is recorded; there is one span, however many."""
        if one.recording is None:
            one.recording = self._recording()

    def _recording(self) -> Recording:
        return Recording(
            self.tracer_name,
            self.max_input_length if self.record_inputs and SWITCHES.inputs else None,
            self.max_output_length if self.record_outputs and SWITCHES.outputs else None,
        )

    def _traced(
        self, name: str, method: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(method)
        async def traced(*args: Any, **kwargs: Any) -> Any:
            recording = self._recording()
            label = f"rag.{name}"
            with TraceSpan(label, api.operation_call(label, PROGRAM)) as span:
                recording.begin(span, args[0] if args else kwargs)
                answer = await method(*args, **kwargs)
                recording.end(span, answer)
                return answer

        return traced
