"""``AuditLog``: who did what with which model. Entries are added, never changed or removed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol

from callmeter.errors import UsageError
from callmeter.sdk import api
from callmeter.sdk.call import Call


class Reader(Protocol):
    """Where entries are read back: ``callmeter_sinks.audit.AuditReader``."""

    def query(
        self,
        *,
        user: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> Sequence[Any]:
        """Entries, newest first."""
        ...


class AuditLog:
    """Adds entries through the default client; they outlive the process in the store.

    To read them, give a reader: the program that writes needs no access to the store.

    >>> AuditLog().record("llm.generate", user="alice", model="gpt-4o-mini")
    >>> AuditLog(AuditReader(open_store(url))).query(user="alice", limit=10)
    """

    def __init__(self, reader: Reader | None = None) -> None:
        self._reader = reader

    def record(
        self,
        action: str,
        *,
        user: str | None = None,
        model: str | None = None,
        call: Call | str | None = None,
        **detail: Any,
    ) -> None:
        """Add an entry; ``detail`` is anything that JSON can say. Keys to redact are redacted."""
        said = {"user": user, "model": model, "detail": detail}
        api.annotation(action, call=call, metadata={"audit": said})

    def query(
        self,
        *,
        user: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
    ) -> Sequence[Any]:
        """Stored entries, newest first: ``at``, ``action``, ``user``, ``model``, ``detail``.

        ``UsageError`` without a reader.
        """
        if self._reader is None:
            raise UsageError(
                "reading the audit log needs the store: "
                "AuditLog(callmeter_sinks.audit.AuditReader(open_store(url)))"
            )
        return self._reader.query(user=user, model=model, since=since, until=until, limit=limit)
