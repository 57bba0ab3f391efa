"""Model calls around model calls: of spans that wrap one another, the innermost is billed.

The rule of the SDK's instruments, for spans: a model call that has a
call of the same operation on the same model within it was only its wrapper. Inner spans end first,
so they are known when the outer one comes, in the same batch or, at one collector, a later one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from callmeter.schema.events import MODEL_OPERATIONS
from callmeter.spans.calls import is_copy, model_of, operation_of
from callmeter.spans.span import Span

#: Spans about to end that are known to have a model call within.
MAX_REMEMBERED = 100_000
#: What a model asks for is a call of its own, not the same one again.
_BARRIERS = frozenset({"execute_tool", "invoke_agent", "create_agent"})

_Asked = tuple[str, str]


class Nesting:
    """Remembers, by span, the nearest model call within it. One event loop's."""

    def __init__(self, most: int = MAX_REMEMBERED) -> None:
        self._most = most
        self._within: OrderedDict[tuple[str, str, str], _Asked] = OrderedDict()

    def wrappers(self, project: str, spans: Sequence[Span]) -> set[tuple[str, str]]:
        """Of a project's spans, those (by trace and span id) that only wrap another's call."""
        found = set()
        # Where two end together, the one that began later lies within.
        for span in sorted(spans, key=lambda s: (s.end_ns, -s.start_ns)):
            if is_copy(span):
                continue
            operation = operation_of(span)
            within = self._within.get((project, span.trace_id, span.span_id))
            asked = within
            if operation in MODEL_OPERATIONS:
                asked = (operation, model_of(span))
                if within == asked:
                    found.add((span.trace_id, span.span_id))
            if asked is not None and span.parent_id and operation not in _BARRIERS:
                self._within[project, span.trace_id, span.parent_id] = asked
        while len(self._within) > self._most:
            self._within.popitem(last=False)
        return found
