"""Takes alerts from the log into the outbox, and delivers from there: at least once, each target.

The order of a delivery: send → (dead letter, if it is given up) → mark as done. A kill in between
sends or writes once more; the receiver knows the alert by its id.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import msgspec
from msgspec import Raw

from callmeter.clock import Clock
from callmeter.log.record import LogRecord
from callmeter.schema.alerts import decode_alert
from callmeter_processors.notify.deadletters import DeadLetter, DeadLetterFile
from callmeter_processors.notify.outbox import Backlog, Delivery, Outbox, Taken
from callmeter_processors.notify.outcome import Again, Outcome, Refused, Sent
from callmeter_processors.notify.render import link_of
from callmeter_processors.notify.schedule import Retry
from callmeter_processors.notify.sending import Message, Sender
from callmeter_processors.notify.targets import Target, check_names

logger = logging.getLogger(__name__)
_LOOK_S = 1.0


@dataclass
class NotifyStats:
    """Plain counts since the start; read from any thread.

    ``taken``: alerts not known before; ``known``: seen again; ``old``: from before the first start;
    ``unreadable``: records that are no alert; ``removed``: records, at most, that retention took
    before they were read.
    """

    taken: int = 0
    known: int = 0
    old: int = 0
    unreadable: int = 0
    removed: int = 0
    delivered: int = 0
    retried: int = 0
    dead: int = 0


class Notifier:
    """Delivers to ``targets``, each on a thread of its own so that none waits for another.

    ``begin_us``: alerts that the log had before that are known and not sent. ``start``, then
    ``take`` what is read; ``stop`` lets a running attempt end. ``failed`` is what ended a thread,
    ``read_us`` when something was last taken, or there was nothing.
    """

    def __init__(
        self,
        outbox: Outbox,
        targets: Sequence[Target],
        sender: Sender,
        dead_letters: DeadLetterFile,
        clock: Clock,
        *,
        retry: Retry | None = None,
        link: str = "",
        begin_us: int = 0,
        rng: random.Random | None = None,
    ) -> None:
        check_names(targets)
        self.stats = NotifyStats()
        self.failed: BaseException | None = None
        self.read_us = 0
        self._outbox = outbox
        self._targets = tuple(targets)
        self._sender = sender
        self._dead_letters = dead_letters
        self._clock = clock
        self._retry = retry or Retry()
        self._link = link
        self._begin_us = begin_us
        self._rng = rng or random.Random()
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._wake = {target.name: threading.Event() for target in targets}
        #: Until when a target asked to be left alone.
        self._quiet_us: dict[str, int] = {}
        self._threads = [
            threading.Thread(target=self._run, args=(target,), name=f"notify-{target.name}")
            for target in targets
        ]

    def take(
        self,
        log_id: str,
        records: Iterable[LogRecord],
        positions: Mapping[int, int] = MappingProxyType({}),
        /,
    ) -> None:
        """Take records of the topic ``alerts``; on return they are in the outbox.

        ``positions`` says where to go on where that is not behind the last record.
        """
        found: list[Taken] = []
        positions = dict(positions)
        for record in records:
            positions[record.partition] = max(record.offset + 1, positions.get(record.partition, 0))
            taken = self._chosen(record)
            if taken is not None:
                found.append(taken)
        if not positions:
            self.read_us = self._clock.now_us()
            return
        new = self._outbox.take(log_id, found, positions, self._clock.now_us())
        self.stats.taken += new
        self.stats.known += len(found) - new
        self.read_us = self._clock.now_us()
        for wake in self._wake.values():
            wake.set()

    def _chosen(self, record: LogRecord) -> Taken | None:
        value = record.value or b""
        try:
            alert = decode_alert(value)
        except msgspec.DecodeError as exc:
            self.stats.unreadable += 1
            where = f"record {record.offset} of partition {record.partition}"
            logger.warning("%s is no alert: %s", where, exc)
            return None
        if record.timestamp_us < self._begin_us:
            self.stats.old += 1
            return Taken(alert.id, value, ())
        return Taken(alert.id, value, [t.name for t in self._targets if t.choice.takes(alert)])

    def deliver_due(self, target: Target) -> float | None:
        """Try what is due for a target, once each; seconds until there is more, None if nothing."""
        while not self._stopping.is_set():
            waiting = self._outbox.due(target.name)
            if not waiting:
                return None
            (delivery,) = waiting
            due_us = max(delivery.due_us, self._quiet_us.get(target.name, 0))
            now_us = self._clock.now_us()
            if due_us > now_us:
                return (due_us - now_us) / 1e6
            self._settle(target, delivery, self._send(target, delivery))
        return None

    def _send(self, target: Target, delivery: Delivery) -> Outcome:
        alert = decode_alert(delivery.body)
        return self._sender.send(target, Message(alert, delivery.body, link_of(alert, self._link)))

    def _settle(self, target: Target, delivery: Delivery, outcome: Outcome) -> None:
        if isinstance(outcome, Sent):
            self._outbox.done(delivery)
            self._count(delivered=1)
            return
        tries = delivery.tries + 1
        if isinstance(outcome, Again) and not self._retry.is_over(tries):
            asked_s = outcome.retry_after_s
            now_us = self._clock.now_us()
            delay_s = self._retry.delay_s(tries, self._rng, asked_s)
            self._outbox.later(delivery, now_us + round(delay_s * 1e6))
            if asked_s:
                self._quiet_us[target.name] = now_us + round(asked_s * 1e6)
            self._count(retried=1)
            logger.info("%s: %s; again in %.1f s", target.name, outcome.reason, delay_s)
            return
        self._dead_letters.write(
            DeadLetter(
                at_us=self._clock.now_us(),
                target=target.name,
                kind=target.kind,  # type: ignore[arg-type]  # one of the three by construction
                reason=outcome.reason
                if isinstance(outcome, Refused)
                else f"gave up: {outcome.reason}",
                tries=tries,
                alert=Raw(delivery.body),
            )
        )
        self._outbox.done(delivery)
        self._count(dead=1)
        logger.error(
            "%s did not take an alert (%s): see %s",
            target.name, outcome.reason, self._dead_letters.path,
        )  # fmt: skip

    def _count(self, *, delivered: int = 0, retried: int = 0, dead: int = 0) -> None:
        with self._lock:
            self.stats.delivered += delivered
            self.stats.retried += retried
            self.stats.dead += dead

    # -- running ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Deliver from now on; what waited since the last run first."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the attempts that are under way; what waits goes on at the next start."""
        self._stopping.set()
        for wake in self._wake.values():
            wake.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    @property
    def waiting(self) -> int:
        """Deliveries that wait for these targets."""
        counts = self._outbox.waiting()
        return sum(counts.get(target.name, 0) for target in self._targets)

    @property
    def backlog(self) -> dict[str, Backlog]:
        """What waits for each of these targets; nothing waits since now."""
        waits = self._outbox.backlog()
        nothing = Backlog(0, self._clock.now_us())
        return {target.name: waits.get(target.name, nothing) for target in self._targets}

    @property
    def left_behind(self) -> dict[str, int]:
        """Deliveries that wait for targets which are not configured any more."""
        counts = self._outbox.waiting()
        return {name: n for name, n in counts.items() if name not in self._wake}

    def _run(self, target: Target) -> None:
        wake = self._wake[target.name]
        try:
            while not self._stopping.is_set():
                wake.clear()
                wait_s = self.deliver_due(target)
                wake.wait(_LOOK_S if wait_s is None else min(wait_s, _LOOK_S))
        except BaseException as exc:  # noqa: BLE001  # raised by whoever watches ``failed``
            self.failed = exc
