"""Where a batch goes: nowhere, into a file, or (``client_backend``) to a collector."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from callmeter.compat.syvain.items import Item
from callmeter.transports.protocol import Outcome


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch. ``retry_after_s`` is the server's wish."""

    outcome: Outcome
    error: str = ""
    retry_after_s: float | None = None


class Backend(Protocol):
    """Takes one experiment's batches, one at a time and from one thread at a time; may block.

    After RETRY the same batch object is sent again, or given up; REFUSED is final, and nothing of
    the batch was taken. ``close`` is told what is still waiting and has little time. ``renew`` is
    called in a forked child: what was in hand is the parent's. ``local`` backends never wait for
    anybody.
    """

    local: bool

    def send(self, batch: Sequence[Item]) -> Written: ...

    def give_up(self) -> None: ...

    def close(self, timeout_s: float) -> None: ...

    def renew(self) -> None: ...


class NoopBackend:
    """Takes everything and keeps nothing."""

    local = True

    def send(self, batch: Sequence[Item]) -> Written:
        return Written(Outcome.DELIVERED)

    def give_up(self) -> None:
        """Nothing is ever in hand."""

    def close(self, timeout_s: float) -> None:
        """Nothing is open."""

    def renew(self) -> None:
        """Nothing is shared."""


class JsonlBackend(NoopBackend):
    """Appends compact JSON objects, one a line, to the collector's file."""

    def __init__(self, path: Path, slug: str, lock: threading.Lock) -> None:
        self._path = path
        self._slug = slug
        self._lock = lock

    def opened(self, description: str, meta: Any) -> None:
        """The line of the experiment itself."""
        self._append(
            [
                {
                    "type": "experiment",
                    "slug": self._slug,
                    "description": description,
                    "meta": meta,
                }
            ]
        )

    def send(self, batch: Sequence[Item]) -> Written:
        try:
            self._append(
                [
                    {
                        "type": item.kind.value,
                        "slug": self._slug,
                        "client_event_id": item.event_id,
                        "timestamp_ms": item.at_us // 1000,
                        **item.body,
                    }
                    for item in batch
                ]
            )
        except OSError as exc:
            reason = f"cannot write {self._path}: {exc.strerror or exc}"
            return Written(Outcome.RETRY, reason)
        return Written(Outcome.DELIVERED)

    def _append(self, rows: Sequence[dict[str, Any]]) -> None:
        data = b"".join(orjson.dumps(row) + b"\n" for row in rows)
        with self._lock, self._path.open("ab") as file:
            file.write(data)
