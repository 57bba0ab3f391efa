"""What is switched on for every module: the Monitor, the recorder; and the engine's own phase."""

from __future__ import annotations

import sys
from typing import Any

from callmeter.compat.synalinks.current import ModuleCall, told_by_sdk
from callmeter.compat.synalinks.modules import Role
from callmeter.compat.synalinks.monitor import Monitor
from callmeter.compat.synalinks.recorder import Recorder

#: Where Synalinks keeps the phase that its trainer has set.
_ENGINE_SCOPE = "synalinks.src.backend.common.op_scope"


class _Switches:
    """None: off."""

    def __init__(self) -> None:
        self.monitor: Monitor | None = None
        self.recorder: Recorder | None = None


SWITCHES = _Switches()


def monitor_for(module: Any) -> Monitor | None:
    """The Monitor that a call of this module is told to, if it has none of its own."""
    monitor = SWITCHES.monitor
    if monitor is None or told_by_sdk(monitor.endpoint) or _has(module, Monitor):
        return None
    return monitor


def recorder_for(run: ModuleCall) -> Recorder | None:
    """The recorder of a model's call, if the model has none of its own."""
    recorder = SWITCHES.recorder
    if recorder is None or run.role is not Role.LANGUAGE_MODEL or run.symbolic:
        return None
    return None if _has(run.module, Recorder) else recorder


def engine_phase() -> str:
    """The phase that the engine's own trainer has set; empty if none, or no such engine."""
    scope = getattr(sys.modules.get(_ENGINE_SCOPE), "current_op_scope", None)
    return (scope() or "") if callable(scope) else ""


def _has(module: Any, kind: type) -> bool:
    """Whether the module was given such a hook; its hooks are a list or hold one."""
    hooks = getattr(module, "_hooks", None) or getattr(module, "hooks", None) or ()
    listed = getattr(hooks, "hooks", hooks)
    return isinstance(listed, list | tuple) and any(isinstance(hook, kind) for hook in listed)
