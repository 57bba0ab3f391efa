"""``synalinks.hooks``: the Monitor, the Recorder, and the base of both."""

from __future__ import annotations

from callmeter.compat.synalinks.hook import Hook
from callmeter.compat.synalinks.monitor import Monitor
from callmeter.compat.synalinks.recorder import Recorder

__all__ = ["Hook", "Monitor", "Recorder"]


def __getattr__(name: str) -> object:
    """Hooks that callmeter has no counterpart of come from the installed engine."""
    from callmeter.compat.synalinks.forwarding import engine_attribute

    return engine_attribute("hooks", name, __name__)
