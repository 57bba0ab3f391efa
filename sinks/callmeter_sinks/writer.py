"""Exactly once into ClickHouse: the order of writes, one partition at a time.

    take over    claim a higher generation → read the newest intent → read exactly its range again
                 → insert it again under the same token
    each range   intent → is the claim still the highest? → INSERT under the token → next
    at rest      a mark behind the newest intent: it is carried out

The token is ``sink:log:topic:partition:first:last``. Why each step is where it is:

- *Intent before insert.* A range cannot be undone once its first row is in, and a cut inside an
  insert cannot be seen from outside. So what will be inserted is written down first; whoever comes
  next inserts exactly that again, and the engine drops what it already has: every target of every
  view has a deduplication window for (token, block, table partition).
- *Claim checked between intent and insert.* If the check passes, no newer claim was visible; so a
  newer claim, when it comes, is followed by a look at the intents that finds ours. Whoever stalls
  after the check and inserts late inserts under a token the newer one has inserted too. Were the
  check before the intent, a stalled writer could insert a range nobody knows of.
- *Same bytes.* The same records, in the same order, in one block: the limits of a range are in the
  intent, never in a setting. A refused record goes to ``sink_quarantine`` before the retry, so
  every rebuild leaves the same record out, and range and token stay.

docs/decisions/0009-sink-commit-order.md has what is and is not covered.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from functools import partial

from callmeter.clock import Clock
from callmeter.log.record import LogRecord
from callmeter_sinks.backoff import Patience
from callmeter_sinks.clickhouse.store import PermanentStoreError, Store
from callmeter_sinks.faults import (
    FencedError,
    OriginBreakError,
    RangeChangedError,
    RangeLostError,
)
from callmeter_sinks.intents import Books, Claim, Intent
from callmeter_sinks.origins import OriginSequence
from callmeter_sinks.probe import find_refused
from callmeter_sinks.ranges import Piece, Range, RangeBuffer, RangeLimits
from callmeter_sinks.rebuild import READ_BYTES, READ_RECORDS, read_again
from callmeter_sinks.retract import retract
from callmeter_sinks.rows import ForeignRecordError, Metered
from callmeter_sinks.source import MeteredSource
from callmeter_sinks.stats import WriterStats
from callmeter_sinks.streams import STREAMS

_log = logging.getLogger("callmeter.sink")


class PartitionWriter:
    """Moves one partition of ``metered`` into the store. Used from the sink's thread.

    ``position`` is the next offset to read. After an exception the writer is thrown away; a new one
    takes over from the books.
    """

    def __init__(
        self,
        partition: int,
        source: MeteredSource,
        store: Store,
        books: Books,
        *,
        limits: RangeLimits,
        patience: Patience,
        clock: Clock,
        stop: threading.Event,
        accept_loss: bool = False,
    ) -> None:
        self.partition = partition
        self.position = 0
        self.stats = WriterStats()
        self._source = source
        self._stream = STREAMS[source.topic]
        self._store = store
        self._books = books
        self._limits = limits
        self._patience = patience
        self._clock = clock
        self._stop = stop
        self._accept_loss = accept_loss
        self._claim = Claim(0, str(uuid.uuid4()))
        self._log_id = source.log_id
        self._origins = OriginSequence(partition)
        self._written_next: int | None = None  # the origin behind the last intent
        self._settled: tuple[int, float] | None = None  # the last offset that is in, and since when
        self._left_out: set[int] = set()
        self._buffer = RangeBuffer(limits)
        self._ahead: deque[LogRecord] = deque()  # read, and waiting for the next range
        self._next_log_id: str | None = None  # the log of the record at position, if another

    # The order of writes

    def take_over(self) -> None:
        """Claim the partition and bring the last range of whoever had it to its end.

        Blocks while the store is away. ``RangeLostError``, ``RangeChangedError``, ``FencedError``,
        ``StoppedError``, ``PermanentStoreError``.
        """
        ask = self._patience.until_answered
        newest = ask(lambda: self._books.newest_claim(self.partition))
        self._claim = Claim((newest.generation if newest else 0) + 1, self._claim.owner)
        ask(lambda: self._books.write_claim(self.partition, self._claim))
        self.position = self._source.first_offset(self.partition)
        self._enter_history(self._source.log_id)

    def _enter_history(self, log_id: str) -> None:
        """Go on in the history of ``log_id``: after its newest intent, inserted again, or fresh."""
        ask = self._patience.until_answered
        self._log_id = log_id
        self._ahead.clear()
        self._left_out = ask(lambda: self._books.quarantined(self.partition, log_id))
        intent = ask(lambda: self._books.newest_intent(self.partition, log_id))
        self._origins = OriginSequence(self.partition)
        self._written_next = None
        self._settled = None
        if intent is None:
            return
        rng = None
        if intent.records:
            rng = self._rebuild(intent)
            if rng is not None:
                self._insert(rng)
                self.stats.rebuilds += 1
            self._settled = intent.last, self._clock.monotonic_s()
        if intent.origin_next >= 0:
            began = intent.origin_next if _ends_checkpoint(rng) else None
            self._origins = OriginSequence(self.partition, intent.origin_next, began)
            self._written_next = intent.origin_next
        self.position = max(self.position, intent.last + 1)

    def write(self, now_s: float, *, everything: bool = False) -> None:
        """Insert the next range of what is buffered: intent, check, insert."""
        pieces = self._buffer.take(now_s, everything=everything or self._next_log_id is not None)
        if pieces:
            rng = self._range(pieces)
            self._patience.until_answered(
                lambda: self._books.write_intent(self.partition, self._claim, rng)
            )
            self._insert(rng)
            self._settled = rng.last, now_s
        if self._next_log_id is not None and not self._buffer:
            log_id, self._next_log_id = self._next_log_id, None
            _log.warning("partition %d: the log's id is now %s", self.partition, log_id)
            self._enter_history(log_id)

    def rest(self, now_s: float, after_s: float = 0.0) -> None:
        """Note that all intents are carried out, unless that was noted or is too fresh.

        Whoever takes over then has nothing to read again, and what the log's retention removes
        meanwhile is missed by nobody.
        """
        if self._settled is None or now_s - self._settled[1] < after_s:
            return
        at = self._log_id, self._settled[0], self._written_next
        note = partial(self._books.write_rest, self.partition, self._claim, *at)
        self._patience.until_answered(note)
        self._settled = None

    def _insert(self, rng: Range) -> None:
        """INSERT a range whose intent stands; the same call until the store has it."""
        token = ":".join(
            (self._books.sink, rng.log_id, self._books.topic, str(self.partition),
             str(rng.first), str(rng.last))
        )  # fmt: skip
        while True:
            records = rng.records(without=self._left_out)
            block = self._stream.block(self._books.topic, self.partition, records)

            def insert(block: bytes = block) -> None:
                self._check_claim()
                if block:
                    into, columns = self._stream.landing, self._stream.columns
                    self._store.insert_block(into, columns, block, token=token)

            try:
                self._patience.until_answered(insert)
            except PermanentStoreError as refusal:
                self._set_aside(records, refusal)
                continue
            self._retract(rng)
            self._count(rng, records, len(block))
            return

    def _check_claim(self) -> None:
        newest = self._books.newest_claim(self.partition)
        if newest != self._claim:
            raise FencedError(self.partition, newest.generation if newest else 0)

    def _set_aside(self, records: list[Metered], refusal: PermanentStoreError) -> None:
        """Put the refused records into quarantine; raise the refusal if no record is to blame."""
        refused = self._patience.until_answered(
            lambda: find_refused(self._store, self._stream, self.partition, records)
        )
        if not refused or len(refused) == len(records):
            raise refusal  # the store refuses everything, or nothing but the whole: not the records
        for record, error in refused:
            self._quarantine(record.offset, record.value, record.first, error)

    def _retract(self, rng: Range) -> None:
        """Nothing of a quarantined record stays, even if an earlier writer died before this."""
        for record in rng.records():
            if record.offset in self._left_out:
                again = partial(retract, self._store, self._stream, self.partition, record)
                self._patience.until_answered(again)

    # Reading

    def due_in_s(self, now_s: float) -> float | None:
        """Seconds until ``write`` should be called; None while there is nothing to insert."""
        return 0.0 if self._next_log_id is not None else self._buffer.due_in_s(now_s)

    @property
    def pressing(self) -> bool:
        """Whether the next insert should not be put off for the sake of a larger one."""
        return self._next_log_id is not None or self._buffer.full()

    @property
    def buffered_bytes(self) -> int:
        return self._buffer.bytes

    @property
    def buffered(self) -> int:
        return len(self._buffer)

    def fill(self, now_s: float) -> int:
        """Read what is at hand, up to a full range; how many records were taken."""
        taken = 0
        while not self._buffer.full() and self._next_log_id is None and not self._stop.is_set():
            if not self._ahead:
                self._ahead.extend(
                    self._source.read(
                        self.partition,
                        self.position,
                        max_records=READ_RECORDS,
                        max_bytes=READ_BYTES,
                    )
                )
            if not self._ahead or not self._offer(self._ahead[0], now_s):
                break
            self._ahead.popleft()
            taken += 1
        return taken

    def _offer(self, record: LogRecord, now_s: float) -> bool:
        """Buffer one record; False if it belongs to another log, which begins a new range."""
        piece = self._piece(record)
        metered = piece.metered
        if metered is not None:
            if metered.log_id != self._log_id:
                self._next_log_id = metered.log_id
                return False
            if self._origins.next is None:
                self._report_unseen(metered)
            try:
                self._origins.check(metered)
            except OriginBreakError as broken:
                self._accept(broken, metered)
        self._buffer.add(piece, now_s)
        self.position = record.offset + 1
        return True

    def _piece(self, record: LogRecord) -> Piece:
        value = record.value or b""
        try:
            return Piece(record.offset, value, self._stream.parse(record, self._source.log_id))
        except ForeignRecordError as foreign:
            if record.offset not in self._left_out:
                self._quarantine(record.offset, value, -1, foreign)
            return Piece(record.offset, value, None)

    def _range(self, pieces: list[Piece]) -> Range:
        """The range of these pieces. Origins are -1 while no record has told one."""
        metered = [p.metered for p in pieces if p.metered]
        first = self._written_next
        if first is None:
            first = _origin_of(metered[0]) if metered else -1
        self._written_next = metered[-1].last + 1 if metered else self._written_next
        return Range(self._log_id, pieces, first, metered[-1].last + 1 if metered else first)

    def _rebuild(self, intent: Intent) -> Range | None:
        """Exactly the records of an intent again; None if they are lost and that was accepted.

        Of a compacted topic those that are left, None if none is: what took their place comes with
        a later range.
        """
        compacted = self._stream.compacted
        available = self._source.first_offset(self.partition)
        if available > intent.first and not compacted:
            self._lose_range(intent, available)
            return None
        pieces = read_again(
            self._source, self.partition, intent, self._piece, compacted=compacted, stop=self._stop
        )
        bounds = (intent.first, intent.last)
        rng = Range(self._log_id, pieces, intent.origin_first, intent.origin_next, bounds)
        if compacted and len(pieces) < intent.records:
            return rng if pieces else None
        if len(pieces) != intent.records or rng.crc32() != intent.crc32:
            raise RangeChangedError(self.partition, intent.first, intent.last)
        return rng

    # Books of what went wrong

    def _quarantine(
        self,
        offset: int,
        value: bytes,
        origin: int,
        cause: PermanentStoreError | ForeignRecordError,
    ) -> None:
        if isinstance(cause, PermanentStoreError):
            code, reason, kind = cause.code, cause.message, "refused"
        else:
            code, reason, kind = 0, str(cause), "foreign"
        self._patience.until_answered(
            lambda: self._books.quarantine(
                self.partition, self._log_id, offset,
                origin=origin, code=code, reason=reason, value=value,
            )
        )  # fmt: skip
        self._left_out.add(offset)
        self.stats.quarantined[kind] += 1
        _log.error(
            "partition %d: metered offset %d is set aside in sink_quarantine: %s",
            self.partition, offset, reason,
        )  # fmt: skip

    def _accept(self, broken: OriginBreakError, metered: Metered) -> None:
        """Go on over a hole, if told to; never over an envelope that comes twice."""
        if not self._accept_loss or broken.found <= broken.expected:
            raise broken
        self._lose(
            (broken.expected, broken.found - 1), (self.position, metered.offset - 1), "hole",
            str(broken),
        )  # fmt: skip
        self._origins.resume_at(metered)

    def _lose_range(self, intent: Intent, available: int) -> None:
        lost = RangeLostError(self.partition, intent.first, intent.last, available)
        if not self._accept_loss:
            raise lost
        self._lose(
            (intent.origin_first, intent.origin_next - 1), (intent.first, intent.last),
            "retention", f"{lost}; what of it is in the store is unknown",
        )  # fmt: skip
        self.position = max(available, intent.last + 1)

    def _report_unseen(self, metered: Metered) -> None:
        """A history that does not begin at 0 breaks nothing, but it is written down."""
        before = _origin_of(metered)
        if before > 0:
            self._lose(
                (0, before - 1), (0, metered.offset - 1), "before_first",
                "removed from the log before this sink first read it",
            )  # fmt: skip

    def _lose(
        self, origins: tuple[int, int], offsets: tuple[int, int], reason: str, detail: str
    ) -> None:
        self._patience.until_answered(
            lambda: self._books.lose(
                self.partition, self._log_id, origins, offsets, reason=reason, detail=detail
            )
        )
        self.stats.lost_origins += origins[1] - origins[0] + 1
        _log.error(
            "partition %d: origins %d to %d are not in the store (%s)",
            self.partition, *origins, reason,
        )  # fmt: skip

    def _count(self, rng: Range, records: list[Metered], size: int) -> None:
        stats = self.stats
        stats.inserts += 1
        stats.records += len(records)
        stats.events += rng.events
        stats.bytes += size
        if records:
            stats.visible_us = max(0, self._clock.now_us() - records[0].log_ts_us)
            stats.worst_visible_us = max(stats.worst_visible_us, stats.visible_us)


def _ends_checkpoint(rng: Range | None) -> bool:
    last = rng.pieces[-1].metered if rng is not None else None
    return last is not None and last.ends_checkpoint


def _origin_of(record: Metered) -> int:
    """The first origin whose envelope can follow: its own, or the one behind its deltas."""
    return record.first if record.type == "envelope" else record.last + 1
