"""One billable call where instruments nest: the innermost one.

An instrument that is about to call a model says so. The nearest open model call around it, in the
same trace, then was only a wrapper if it is the same operation on the same model (a user's own
``generation`` around an instrumented client, LangChain over OpenAI): it stays in the trace as
``invoke_model``, without usage and cost.
"""

from __future__ import annotations

from contextvars import ContextVar

from callmeter.sdk.call import Call
from callmeter.sdk.encode import MODEL_OPERATIONS

#: No trace is deeper than this; a bound, should parents ever run in a circle.
MAX_DEPTH = 64

#: A wrapper that cannot be a parent (it learns of its calls by callbacks) and calls a model next.
_EXPECTING: ContextVar[Call | None] = ContextVar("callmeter_expecting", default=None)


def expect(wrapper: Call) -> None:
    """The next instrumented call of this task or thread, if it is the same one, bills instead of
    ``wrapper``.
    """
    _EXPECTING.set(wrapper)


def enter_billable(call: Call) -> None:
    """``call`` has started and will be billed: whoever wraps it will not."""
    wrapper = _EXPECTING.get()
    if wrapper is not None:
        _EXPECTING.set(None)
        if wrapper in wrapper.intake.open and _same(wrapper, call):
            wrapper.wraps_billable()
            call.move_under(wrapper)
            return
    open_calls = {c.span: c for c in list(call.intake.open) if hasattr(c, "start_ns")}
    parent = call.parent
    for _ in range(MAX_DEPTH):
        around = open_calls.get(parent) if isinstance(parent, int) else None
        if around is None:
            return
        if around.fields.get("operation", "chat") in MODEL_OPERATIONS:
            if _same(around, call):
                around.wraps_billable()
            return
        parent = around.parent


def _same(outer: Call, inner: Call) -> bool:
    return all(
        outer.fields.get(name, default) == inner.fields.get(name, default)
        for name, default in (("model", ""), ("operation", "chat"))
    )
