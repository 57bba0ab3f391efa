"""What is switched on for every module: the Monitor, the recorder; and the engine's own phase."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from callmeter.compat.synalinks.current import told_by_sdk
from callmeter.compat.synalinks.modules import Role
from callmeter.compat.synalinks.monitor import Monitor
from callmeter.compat.synalinks.poster import DEFAULT_MAX_QUEUE_BYTES
from callmeter.compat.synalinks.recorder import Recorder

if TYPE_CHECKING:
    from callmeter.compat.synalinks.running import Run

#: Where Synalinks keeps the phase that its trainer has set.
_ENGINE_SCOPE = "synalinks.src.backend.common.op_scope"


class _Switches:
    """None: off."""

    def __init__(self) -> None:
        self.monitor: Monitor | None = None
        self.recorder: Recorder | None = None


_switches = _Switches()


def enable_observability(
    *,
    timeout: float = 5,
    headers: Mapping[str, str] | None = None,
    max_queue_bytes: int = DEFAULT_MAX_QUEUE_BYTES,
) -> Monitor:
    """From now on every module's calls are posted to ``<base URL>/trace``; see ``Monitor``.

    No code of the program changes, and modules made before count too. Where ``callmeter.init``
    already sends to the collector at that URL, the SDK's records say it all and nothing is posted
    besides.

    >>> from callmeter.compat import synalinks
    >>> synalinks.enable_observability()  # doctest: +SKIP
    """
    from callmeter.compat.synalinks.engine import instrument_installed

    _switches.monitor = Monitor(timeout, headers, max_queue_bytes=max_queue_bytes)
    instrument_installed()
    return _switches.monitor


def disable_observability() -> None:
    """Take ``enable_observability`` back."""
    _switches.monitor = None


def is_observability_enabled() -> bool:
    """Whether every module's calls are posted."""
    return _switches.monitor is not None


def record_traces(base_dir: str | os.PathLike[str] | None = None) -> Recorder:
    """From now on every language model call is written to JSON lines files; see ``Recorder``."""
    from callmeter.compat.synalinks.engine import instrument_installed

    _switches.recorder = Recorder(base_dir)
    instrument_installed()
    return _switches.recorder


def stop_recording() -> None:
    """Take ``record_traces`` back."""
    _switches.recorder = None


def monitor_for(module: Any) -> Monitor | None:
    """The Monitor that a call of this module is told to, if it has none of its own."""
    monitor = _switches.monitor
    if monitor is None or told_by_sdk(monitor.endpoint) or _has(module, Monitor):
        return None
    return monitor


def recorder_for(run: Run) -> Recorder | None:
    """The recorder of a model's call, if the model has none of its own."""
    recorder = _switches.recorder
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
