"""The meter of one partition: judges, prices and folds envelopes, exactly once each (design 7).

Pure: no I/O, no clock. Steps for a record: header → sequence → envelope → lines → price and fold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from callmeter.log.record import LogRecord
from callmeter.schema.alerts import Alert, encode_alert
from callmeter.schema.budgets import Budget
from callmeter.schema.events import Event
from callmeter.schema.header import EnvelopeHeader
from callmeter.schema.metered import DELTAS_KEY, DeltasHeader, Refused
from callmeter.schema.reasons import RefusedReason, Verdict
from callmeter.schema.topics import ALERTS, METERED
from callmeter_processors.ends import EndAlerts
from callmeter_processors.fold import Fold
from callmeter_processors.gaps import GapAlerts
from callmeter_processors.judge import Opened, Refusal, judge_envelope, open_envelope
from callmeter_processors.ledger import BudgetLedger
from callmeter_processors.limits import MeterLimits
from callmeter_processors.lines import dead_letter, events_of, judge_lines
from callmeter_processors.logtime import LogTime
from callmeter_processors.metered import encode_deltas, encode_lines, metered_header
from callmeter_processors.opencalls import OpenCalls
from callmeter_processors.ordinary import Reader, new_reader
from callmeter_processors.rows import decode_rows, encode_row, row_key
from callmeter_processors.sequence import Sources
from callmeter_processors.skew import SkewAlerts
from callmeter_processors.step import Checkpoint, Count, Output, StepFactory
from callmeter_processors.tracker import Seen
from callmeter_processors.worth import Pricer


class PartitionMeter:
    """A ``Step`` over one partition of ``events``; see ``callmeter_processors.step``.

    Outputs go to ``metered``: one record for each record read, in order, then the deltas of the
    checkpoint. A checkpoint without records has none of these. Alerts on gaps and open calls go to
    ``alerts``; and once it is configured, what budgets and projects gain goes to ``spend``.
    """

    def __init__(
        self,
        log_id: str,
        partition: int,
        pricer: Pricer,
        limits: MeterLimits | None = None,
        reader: Reader | None = None,
    ) -> None:
        self._log_id = log_id
        self._partition = partition
        self._pricer = pricer
        self._limits = limits or MeterLimits()
        self._reader = reader or new_reader()
        self._sources = Sources(self._limits)
        self._time = LogTime(self._limits.blank_us)
        self._gaps = GapAlerts(log_id, self._sources, self._limits)
        self._ends = EndAlerts(log_id, self._sources)
        self._skew = SkewAlerts(log_id, self._sources, self._limits)
        self._open = OpenCalls(log_id, self._limits)
        self._ledger = BudgetLedger(log_id, partition, self._open, self._limits)
        self._alerts: list[Alert] = []
        self._begin()

    def _begin(self) -> None:
        self._ledger.begin()
        self._fold = Fold(self._pricer, self._ledger.spending)
        self._outputs: list[Output] = []
        self._first: int | None = None
        self._last = 0
        self._log_ts_us = 0
        self._duplicates = 0
        self._refused_envelopes = 0
        self._events = 0
        self._refused = 0
        self._counts: Counter[Count] = Counter()

    def restore(self, rows: Mapping[bytes, bytes]) -> None:
        """Take over the partition's rows. ``NewerSchemaError`` if one is of a newer format."""
        self._sources.restore(decode_rows(self._log_id, rows))
        speaking = {s: t.seen_us for s, t in self._sources.speaking() if not t.last}
        self._open.restore(rows, speaking)
        self._ledger.restore(rows)
        # Of ended sources too: they may have left gaps and open calls to tell of.
        self._time.restore(self._sources.newest_us)

    def configure(self, budgets: Sequence[Budget], next_offset: int, partitions: int) -> None:
        """Take up the definitions as they are now; see ``Configurable``.

        What has been read since the last checkpoint is still counted by those before.
        """
        self._ledger.configure(budgets, next_offset, partitions)
        if self._first is None:
            self._begin()

    def process(self, record: LogRecord) -> None:
        """Judge one record of ``events`` and fold it. Never raises on a producer's bytes."""
        if self._first is None:
            self._first = record.offset
        self._last = record.offset
        self._log_ts_us = record.timestamp_us
        self._time.record(record.timestamp_us)
        value = record.value or b""
        opened = open_envelope(value, record.key)
        seen = self._take(opened, record.timestamp_us)
        header = opened.header
        if seen is Seen.DUPLICATE:
            self._duplicates += 1
            self._emit(record, header, Verdict.DUPLICATE)
            return
        # What is too large is refused by its size; its lines need no counting.
        lines = self._reader.count(value) if len(value) <= self._limits.max_bytes else 0
        refusal = opened.refusal or judge_envelope(
            header, len(value), lines - 1, record.timestamp_us, self._limits
        )
        if refusal is None and seen is Seen.GIVEN_UP:
            refusal = Refusal(RefusedReason.TOO_LATE, "header field 'seq' is in a gap given up")
        if refusal is not None:
            self._refused_envelopes += 1
            self._counts["dead_letters", refusal.reason.value] += 1
            letter = dead_letter(refusal, value, self._limits)
            self._emit(record, header, Verdict.REFUSED, refusal, body=[encode_lines([letter])])
            return
        refused_before = self._refused
        body = self._accept(header, value, record.timestamp_us)
        bad = self._refused - refused_before
        self._events += header.n - bad
        self._emit(record, header, Verdict.ACCEPTED, body=body, refused=bad)

    def _take(self, opened: Opened, now_us: int) -> Seen | None:
        """What the envelope's seq is to its source; None where the header does not tell it.

        A refused envelope takes its seq as well: it arrived, so it is no gap.
        """
        if not opened.identified:
            return None
        header = opened.header
        source = header.source
        seen = self._sources.take(
            source,
            header.seq,
            now_us,
            last=header.last,
            project=header.project,
            service=header.service,
        )
        if seen is Seen.NEW:
            tracker = self._sources.tracker(source)
            if tracker is not None:
                self._skew.take(source, tracker, now_us, header.sent_us)
        return seen

    def _accept(self, header: EnvelopeHeader, value: bytes, now_us: int) -> list[bytes]:
        """Judge, price, fold and encode the lines of an accepted envelope, some at a time."""
        source = header.source
        fence_us = now_us + self._limits.future_us
        body: list[bytes] = []
        # Also without a line: an open call's source was heard of, and may have closed.
        for run in self._fold.read(self._reader, header, value, fence_us) or [[]]:
            told, events = False, None
            if isinstance(run, bytes):
                body.append(run)
            else:
                events, bad = judge_lines(run, now_us, self._limits)
                told = self._fold.add(header, events)
                body.append(encode_lines(events))
                self._refused += len(bad)
                self._counts.update(("dead_letters", line.reason) for line in bad)
            if told:
                self._sources.beats(source)
            if told or source in self._sources.gappy or self._open.concerns(source):
                self._take_open(header, events_of(body[-1]) if events is None else events, now_us)
        return body

    def _take_open(
        self, header: EnvelopeHeader, judged: Sequence[Event | Refused], now_us: int
    ) -> None:
        tracker = self._sources.tracker(header.source)
        gap_us = None
        if tracker is not None and tracker.gaps:
            gap_us = max(since_us for _, _, since_us in tracker.gaps)
        closed = tracker is None or (tracker.last and gap_us is None)
        self._open.take(header, judged, now_us, gap_us=gap_us, closed=closed)

    def _emit(
        self,
        record: LogRecord,
        header: EnvelopeHeader,
        verdict: Verdict,
        refusal: Refusal | None = None,
        *,
        body: Sequence[bytes] = (),
        refused: int = 0,
    ) -> None:
        """Write the record of one envelope; of the lines in its ``body`` so many are refused."""
        head = metered_header(self._log_id, record, header, verdict, refusal)
        if verdict is Verdict.ACCEPTED:
            head.events, head.refused = header.n - refused, refused
        value = b"".join((encode_lines([head]), *body))
        self._outputs.append(Output(METERED.name, header.source.encode(), value, self._partition))

    def tick(self, now_us: int) -> None:
        """Look for gaps, ends and open calls, by the log's time that goes on meanwhile."""
        log_us = self._time.at(now_us)
        if log_us:
            self._alerts += self._gaps.look(log_us)
            self._alerts += self._ends.look(log_us, self._time.heard_us)
            self._open.look(log_us, self._time.heard_us, self._ledger.stuck_limit)

    def checkpoint(self) -> Checkpoint:
        """The rows and outputs since the last checkpoint."""
        changed, forgotten = self._sources.drain()
        rows: dict[bytes, bytes | None] = {
            row_key(source): encode_row(self._log_id, tracker)
            for source, tracker in changed.items()
        }
        rows.update(dict.fromkeys(map(row_key, forgotten)))
        self._open.forget(forgotten)
        rows.update(self._open.drain())
        outputs = self._outputs
        counts = self._counted(len(outputs))
        if self._first is not None:
            outputs.extend(self._deltas(self._first))
        outputs.extend(self._ledger.outputs(self._first, self._last, self._time.newest_us))
        rows.update(self._ledger.drain())
        for alert in self._said():
            counts["alerts", alert.kind] += 1
            outputs.append(Output(ALERTS.name, alert.rule.encode(), encode_alert(alert)))
        self._begin()
        return Checkpoint(rows, outputs or (), counts)

    def _counted(self, envelopes: int) -> Counter[Count]:
        """What there was since the last checkpoint, for metrics."""
        counts = self._counts
        refused_envelopes, duplicates = self._refused_envelopes, self._duplicates
        counts["envelopes", "accepted"] = envelopes - duplicates - refused_envelopes
        counts["envelopes", "duplicate"] = duplicates
        counts["envelopes", "refused"] = refused_envelopes
        counts["events", ""] = self._events + self._refused
        counts.update(self._sources.counted())
        return +counts

    def figures(self) -> Mapping[str, int]:
        """What it holds; see ``Measured``."""
        return {
            **self._sources.figures(),
            "open_calls": len(self._open),
            "state_rows": len(self._sources) + self._open.rows + self._ledger.rows,
        }

    def _deltas(self, first: int) -> Iterator[Output]:
        """The checkpoint's deltas, after its envelopes."""
        controls = self._fold.controls()
        controls.envelopes = len(self._outputs)
        controls.duplicates = self._duplicates
        controls.refused_envelopes = self._refused_envelopes
        controls.events = self._events
        controls.refused = self._refused
        header = DeltasHeader(
            log=self._log_id,
            partition=self._partition,
            first=first,
            last=self._last,
            part=0,
            parts=1,
            log_ts_us=self._log_ts_us,
        )
        values = encode_deltas(header, controls, self._fold.deltas(), self._limits.delta_part_bytes)
        return (Output(METERED.name, DELTAS_KEY, v, self._partition) for v in values)

    def _said(self) -> list[Alert]:
        """Alerts since the last checkpoint."""
        alerts = [*self._alerts, *self._skew.look(), *self._open.alerts]
        self._alerts, self._open.alerts = [], []
        return alerts


def meter_factory(pricer: Pricer, limits: MeterLimits | None = None) -> StepFactory:
    """What a runtime takes: makes the meter of a partition."""

    def make(log_id: str, partition: int) -> PartitionMeter:
        return PartitionMeter(log_id, partition, pricer, limits)

    return make
