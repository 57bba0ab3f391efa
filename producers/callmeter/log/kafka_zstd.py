"""zstd at level 1 for what this program sends to Kafka; aiokafka has level 3 and no setting for it.

On envelopes level 1 takes 60 % of the time and makes them smaller besides: they repeat themselves
from line to line, and level 1 finds that (docs/decisions/0021-fewer-cycles-an-event.md).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from aiokafka.record.default_records import DefaultRecordBatchBuilder

LEVEL = 1
_NAME = "zstd_encode"

_here = threading.local()
_lock = threading.Lock()


def fast_zstd() -> None:
    """Batches that are built on this thread are compressed at ``LEVEL`` from now on.

    The one function that aiokafka compresses with is wrapped, for the whole process; the wrapper
    does nothing on threads that did not ask for it, so a host's own producers keep their level.
    An aiokafka that has no such function compresses as it likes.
    """
    _here.wanted = True
    module = sys.modules[DefaultRecordBatchBuilder.__module__]
    with _lock:
        original = getattr(module, _NAME, None)
        if original is not None and not isinstance(original, _Zstd):
            setattr(module, _NAME, _Zstd(original))


class _Zstd:
    """``aiokafka.codec.zstd_encode`` with this thread's level where none is given."""

    def __init__(self, original: Callable[[object, int | None], bytes]) -> None:
        self._original = original

    def __call__(self, payload: object, level: int | None = None) -> bytes:
        if level is None and getattr(_here, "wanted", False):
            level = LEVEL
        return self._original(payload, level)
