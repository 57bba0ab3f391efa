"""What callmeter has no counterpart of comes from the engine: a changed import line is enough."""

from __future__ import annotations

from typing import Any

from callmeter.compat.synalinks.engine import find_engine, instrument


def engine_attribute(namespace: str, name: str, asked: str) -> Any:
    """``synalinks.<namespace>.<name>`` of the installed engine, whose modules are metered from now
    on. ``AttributeError`` if there is no engine, or no such name in it.
    """
    if not name.startswith("_"):
        engine = find_engine()
        holder = engine if engine is None or not namespace else getattr(engine, namespace, None)
        if engine is not None and hasattr(holder, name):
            instrument(engine)
            return getattr(holder, name)
    raise AttributeError(f"module {asked!r} has no attribute {name!r}")
