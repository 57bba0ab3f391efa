"""Switching the Monitor and the recorder on, for every module of the installed engine."""

from __future__ import annotations

import os
from collections.abc import Mapping

from callmeter.compat.synalinks.engine import instrument_installed
from callmeter.compat.synalinks.monitor import Monitor
from callmeter.compat.synalinks.poster import DEFAULT_MAX_QUEUE_BYTES
from callmeter.compat.synalinks.recorder import Recorder
from callmeter.compat.synalinks.switches import SWITCHES


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
    SWITCHES.monitor = Monitor(timeout, headers, max_queue_bytes=max_queue_bytes)
    instrument_installed()
    return SWITCHES.monitor


def disable_observability() -> None:
    """Take ``enable_observability`` back."""
    SWITCHES.monitor = None


def is_observability_enabled() -> bool:
    """Whether every module's calls are posted."""
    return SWITCHES.monitor is not None


def record_traces(base_dir: str | os.PathLike[str] | None = None) -> Recorder:
    """From now on every language model call is written to JSON lines files; see ``Recorder``."""
    SWITCHES.recorder = Recorder(base_dir)
    instrument_installed()
    return SWITCHES.recorder


def stop_recording() -> None:
    """Take ``record_traces`` back."""
    SWITCHES.recorder = None
