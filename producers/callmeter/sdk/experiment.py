"""A handle on one experiment: metrics, notes and status under one slug."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from callmeter.sdk.errors_told import MAX_ERROR_CHARS

if TYPE_CHECKING:
    from callmeter.sdk.client import Client


class Experiment:
    """Identity is (project, slug): a second process or rank that opens the same slug joins it.

    As a context manager it says ``running`` at the start and ``done`` or ``error`` at the end.
    """

    def __init__(self, client: Client, slug: str) -> None:
        self._client = client
        self.slug = slug

    def metric(
        self,
        name: str,
        value: float,
        *,
        step: int | None = None,
        ts: float | None = None,
        labels: Mapping[str, Any] | None = None,
    ) -> None:
        """One number of a series; ``ts`` in seconds since the epoch."""
        self._client.metric(name, value, step=step, ts=ts, labels=labels, experiment=self.slug)

    def annotation(
        self, text: str, *, metadata: Mapping[str, Any] | None = None, ts: float | None = None
    ) -> None:
        """Text on this experiment."""
        self._client.annotation(text, experiment=self.slug, metadata=metadata, ts=ts)

    def status(self, status: str, error: BaseException | None = None) -> None:
        """``running``, ``done`` or ``error``, with the exception that ended it."""
        more: dict[str, Any] = {"status": status}
        if error is not None:
            more["error_name"] = type(error).__name__
            more["error_detail"] = str(error)[: 8 * MAX_ERROR_CHARS]
        self._client.emit_event({"kind": "experiment", "slug": self.slug, **more})

    def __enter__(self) -> Self:
        self.status("running")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.status("done" if exc is None else "error", exc)
