"""Delivery through callmeter's client: numbered envelopes, the same bytes until they are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from callmeter.compat.syvain.delivery import Written
from callmeter.compat.syvain.items import Item, Kind
from callmeter.sdk.client import Client
from callmeter.settings import Settings
from callmeter.transports.protocol import Delivery, Outcome, Report, Sealed


class Writer(Protocol):
    """Makes requests, one at a time: in no more than ``timeout_s``, if it is given one."""

    def write(self, envelope: Sealed, timeout_s: float | None) -> Written: ...

    def close(self) -> None: ...


class _Doorway:
    """The transport of a client that is flushed by hand: it writes while it is asked to.

    An envelope that could not be written is not taken, so it stays first in the client's outbox
    and its retries are counted here, where the retry budget is.
    """

    name = "syvain"

    def __init__(
        self, write: Callable[[Sealed], Written], close_connection: Callable[[], None]
    ) -> None:
        self._write = write
        self._close_connection = close_connection
        self._report: Report | None = None
        self.said: list[Written] = []
        self.giving_up = False
        #: At the end of the process the client's own backoff paces what is left to try.
        self.closing = False

    def open(self, report: Report) -> None:
        self._report = report

    def send(self, envelope: Sealed) -> bool:
        if self.giving_up:
            written = Written(Outcome.REFUSED, "given up after its retries")
        else:
            written = self._write(envelope)
        self.said.append(written)
        if self._report is None or (written.outcome is Outcome.RETRY and not self.closing):
            return False
        self._report(Delivery(envelope, written.outcome, error=written.error or None))
        return True

    def poll(self, timeout_s: float) -> None:
        """Everything is reported while it is sent."""

    def close(self, timeout_s: float) -> None:
        self._close_connection()


class _LastWords(Client):
    """A client that is handed what still waits before it closes: at exit, on SIGTERM."""

    def __init__(
        self,
        settings: Settings,
        doorway: _Doorway,
        before_close: Callable[[float], AbstractContextManager[bool]],
    ) -> None:
        self._before_close = before_close
        super().__init__(settings, transport=doorway, threaded=False)

    def close(self, timeout_s: float | None = None) -> None:
        if self.intake is None:
            return
        seconds = self.settings.shutdown_timeout_s if timeout_s is None else timeout_s
        with self._before_close(seconds) as alone:
            if alone:
                super().close(timeout_s)


class ClientBackend:
    """One experiment's own client: one source, one envelope a batch, numbered once.

    ``waiting`` hands out what was not sent yet, when the process ends; None while it is not safe.
    """

    local = False

    def __init__(
        self,
        slug: str,
        settings: Settings,
        writer: Writer,
        waiting: Callable[[], AbstractContextManager[Sequence[Item] | None]],
    ) -> None:
        self._slug = slug
        self._settings = settings
        self._writer = writer
        self._waiting = waiting
        self._open()

    def _open(self) -> None:
        self._closing_s: float | None = None
        self._handed: Sequence[Item] | None = None
        self._doorway = _Doorway(
            lambda envelope: self._writer.write(envelope, self._closing_s), self._writer.close
        )
        self._client = _LastWords(self._settings, self._doorway, self._last_words)

    def send(self, batch: Sequence[Item]) -> Written:
        if batch is not self._handed:
            self._hand_over(batch)
            self._handed = batch
        self._doorway.said = []
        self._client.flush(0.0)
        said = self._doorway.said
        written = said[-1] if said else Written(Outcome.RETRY, "the client is closed")
        if written.outcome is not Outcome.RETRY:
            self._handed = None
        return written

    def give_up(self) -> None:
        self._doorway.giving_up = True
        self._client.flush(0.0)
        self._doorway.giving_up = False
        self._handed = None

    def close(self, timeout_s: float) -> None:
        self._client.close(timeout_s)

    def renew(self) -> None:
        self._open()

    @contextmanager
    def _last_words(self, timeout_s: float) -> Iterator[bool]:
        with self._waiting() as rest:
            if rest is not None:
                self._closing_s = max(0.05, timeout_s)
                self._doorway.closing = True
                self._hand_over(rest)
            yield rest is not None

    def _hand_over(self, batch: Sequence[Item]) -> None:
        for item in batch:
            body, seconds = item.body, item.at_us / 1e6
            if item.kind is Kind.METRIC:
                self._client.metric(
                    body["name"],
                    body["value"],
                    step=body["step"],
                    ts=seconds,
                    labels=body["metadata"] or None,
                    experiment=self._slug,
                    event_id=item.event_id,
                )
            elif item.kind is Kind.ANNOTATION:
                self._client.annotation(
                    body["annotation"],
                    experiment=self._slug,
                    metadata=body["metadata"] or None,
                    ts=seconds,
                    event_id=item.event_id,
                )
            else:
                error = body.get("error", {})
                self._client.emit_event(
                    {
                        "kind": "experiment",
                        "slug": self._slug,
                        "ts_us": item.at_us,
                        "status": body["status"],
                        "error_name": error.get("name", ""),
                        "error_detail": error.get("detail", ""),
                        "event_id": item.event_id,
                    }
                )
