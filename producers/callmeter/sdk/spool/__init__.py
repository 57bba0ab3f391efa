"""The crash-durable spool: envelopes on disk until a backend has acknowledged them.

``disk.DiskSpool`` is what the outbox uses. Under it: ``frames`` (one envelope's bytes on disk),
``segment`` (an append-only file of frames), ``shelf`` (one source's directory and its lock),
``syncer`` (the disk's own thread).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from callmeter.sdk.spool.disk import DiskSpool
    from callmeter.settings import Settings

#: Where a durable client keeps its envelopes when it is not told: in the data directory.
DEFAULT_DIR = ".callmeter/spool"


def open_spool(settings: Settings, source: str, now_us: Callable[[], int]) -> DiskSpool | None:
    """The spool that the settings ask for, or None. Nothing is written before there is need."""
    if settings.spool_dir is None and not settings.durable:
        return None
    from pathlib import Path

    from callmeter.sdk.spool.disk import DiskSpool

    return DiskSpool(
        Path(settings.spool_dir or DEFAULT_DIR).expanduser().absolute(),
        source,
        max_bytes=settings.spool_max_bytes,
        sync_interval_s=settings.sync_interval_s,
        now_us=now_us,
        drop=settings.drop,
    )
