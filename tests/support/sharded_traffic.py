"""A log of three partitions, with every kind of event, whose rows belong together across shards."""

from __future__ import annotations

from callmeter.log.record import NewRecord
from callmeter.log.sqlite_log import SqliteLog
from support.ledger import LOG, Book, call_id, us
from support.metered import MeteredStream
from support.signals import AT_US, alert, budget, live, status
from support.stored import append

PARTITIONS = 3
#: Envelopes a partition has, and the first of those that are ``related``.
ORIGINS = 6
RELATED = 4
TRACE = "ab" * 16
USER = "ann"
#: Has calls in every partition, and each has its note in another.
FORGOTTEN = "bob"


def fill(log: SqliteLog) -> None:
    """Seeded records in every partition, then ``related`` ones, then ``signals``."""
    for partition in range(PARTITIONS):
        stream = MeteredStream(log.log_id, partition, seed=7, months=1)
        append(log, partition, stream.checkpoint(envelopes=RELATED, events=12))
        book = Book(partition, origin=stream.next_origin, first=stream.next_origin)
        related(book)
        book.checkpoint()
        append(log, partition, [said.replace(LOG.encode(), log.log_id.encode(), 1)
                                for said in book.take()])  # fmt: skip
    log.append(signals(log.log_id))


def related(book: Book) -> None:
    """Each partition tells one part of what belongs together."""
    number = 10 + book.partition
    root = call_id(10)
    book.envelope(
        # A trace whose spans came by four producers; its open calls end elsewhere.
        book.call(number=number, started=f"2026-03-03T08:0{book.partition}", trace_id=TRACE,
                  name=f"span {book.partition}", cost="0.125", user=USER, session="s1",
                  program="bot", tags={"team": "red", "run": "r1"}, latency_us=90_000_000,
                  operation="program" if number == 10 else "chat", phase="serve",
                  parent_span_id=None if number == 10 else root[19:23] + root[24:]),
        {"kind": "call_begin", "ts_us": us("2026-03-03T08:00"), "trace_id": TRACE,
         "call_id": call_id(10 + (book.partition + 1) % PARTITIONS), "operation": "chat",
         "started_us": us("2026-03-03T08:00")},
        {"kind": "call_begin", "ts_us": us("2026-03-03T08:00"), "trace_id": TRACE,
         "call_id": call_id(900 + book.partition), "operation": "chat",
         "started_us": us("2026-03-03T08:00")},
        # Money and a note for a call of the next partition, which lies on the other shard.
        {"kind": "cost", "ts_us": us("2026-03-03T09:00"), "started_us": us("2026-03-03T08:00"),
         "cost_pico": str(10**9 * (1 + book.partition)), "source": "bill", "provider": "openai",
         "model": "gpt-4o", "operation": "chat", "status": "ok", "user": USER,
         "call_id": call_id(10 + (book.partition + 1) % PARTITIONS)},
        {"kind": "annotation", "ts_us": us("2026-03-03T09:00"), "text": f"of {USER}",
         "call_id": call_id(10 + (book.partition + 1) % PARTITIONS)},
        book.call(number=70 + book.partition, started="2026-03-03T11:00", user=FORGOTTEN,
                  tags={"who": FORGOTTEN}, inputs={"q": "hi"}),
        {"kind": "annotation", "ts_us": us("2026-03-03T11:00"), "text": f"of {FORGOTTEN}",
         "call_id": call_id(70 + (book.partition + 1) % PARTITIONS)},
        {"kind": "refused", "reason": "bad_json", "detail": "", "line": f'"{FORGOTTEN}"'},
        {"kind": "annotation", "ts_us": us("2026-03-03T09:00") + book.partition,
         "text": "needs a Warmup", "experiment": "run-1",
         "metadata": {"audit": {"user": USER, "model": "gpt-4o", "detail": {}}}},
        {"kind": "experiment", "ts_us": us("2026-03-03T09:00") + book.partition, "slug": "run-1",
         "status": "running", "meta": {f"rank{book.partition}": 1}},
        {"kind": "metric", "ts_us": us("2026-03-03T09:00") + book.partition, "name": "loss",
         "value": 1.0 / (1 + book.partition), "step": book.partition, "experiment": "run-1",
         "labels": {"rank": str(book.partition)}},
        {"kind": "refused", "reason": "bad_json", "detail": "", "line": f'{{"user":"{USER}"'},
        # The same calls by the SDK on one shard, by spans on the other.
        *(book.call(number=50 + 10 * each + book.partition, started="2026-03-04T10:00",
                    model="o1", trace_id=f"{each:032x}", usage={"input": 7 + each, "output": 3},
                    attributes={"callmeter.via": "otlp"} if book.partition == 1 else {},
                    service_tier="", cost=None)
          for each in range(3) if book.partition in (0, 1)),
        source=f"019a0000-0000-7000-8000-00000000bb0{book.partition}",
    )  # fmt: skip
    # Two envelopes of this source never arrive.
    book.envelope(
        book.call(number=40 + book.partition, started="2026-03-03T12:00", status="error",
                  error_type="RateLimitError", error_message=f"slow down, {USER}", http_status=429,
                  attempts=2, user=f"u{book.partition}", cost=None, usage=None),
        source=f"019a0000-0000-7000-8000-00000000bb0{book.partition}", seq=3, last=True,
        dropped={"queue_full": 1},
    )  # fmt: skip


def signals(log_id: str) -> list[NewRecord]:
    """Alerts, definitions, statuses and open calls, on both shards."""
    said = [budget(1), budget(2, note="more"), status(log_id, 10**12)]
    for partition in range(2):
        rule = f"team-{partition}"
        said += [
            _in(partition, alert(log_id, 100 + partition, rule=rule, entity=USER, user=USER)),
            # What it corrects, and the end of what hangs, stand in another partition.
            _in(partition, alert(log_id, 200 + partition, "withdrawn", rule=rule,
                                 corrects=f"{101 - partition:032x}")),
            _in(partition, alert(log_id, 300 + partition, "stuck", project="shop",
                                 call_id=call_id(10 + partition), started_us=AT_US)),
            _in(partition, alert(log_id, 400 + partition, "gap", first_seq=1, last_seq=2,
                                 source=f"019a0000-0000-7000-8000-00000000bb0{partition}")),
            _in(partition, status(log_id, 10**11 * partition, entity=f"u{partition}")),
            _in(partition, alert(log_id, 600 + partition, "orphaned", project="shop",
                                 message=f"of {FORGOTTEN}", call_id=call_id(71 - partition))),
            _in(partition, live(log_id, f"project-{partition}", gpt=partition, o1=1)),
        ]  # fmt: skip
    said.append(_in(1, alert(log_id, 500, "ended", project="shop", call_id=call_id(10))))
    said.append(_in(1, status(log_id, 10**9, entity=USER)))
    return said


def _in(partition: int, record: NewRecord) -> NewRecord:
    return NewRecord(record.topic, record.key, record.value, partition)
