"""The watch of one partition of ``spend``: budgets, objectives and running windows (design 7).

Pure: no I/O, no clock. A line is added to its entity's window and judged; statuses are written with
the checkpoint, so a reader sees an entity's spend once, however many records brought it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import orjson
from msgspec.structs import replace

from callmeter.errors import NewerSchemaError
from callmeter.log.record import LogRecord
from callmeter.schema.alerts import Alert, encode_alert
from callmeter.schema.budgets import Budget, decode_budget, encode_budget
from callmeter.schema.spend import SPEND_VERSION, Live, OpeningHeader, Spend, read_spend
from callmeter.schema.status import status_key
from callmeter.schema.topics import ALERTS, BUDGET_STATUS
from callmeter.schema.topics import LIVE as LIVE_TOPIC
from callmeter_processors.step import Checkpoint, Count, Output, StepFactory
from callmeter_processors.watch.book import BudgetBook
from callmeter_processors.watch.entity import Entity, load_entity
from callmeter_processors.watch.journal import Journal
from callmeter_processors.watch.live import LiveBook
from callmeter_processors.watch.report import Standing, encode_status, entity_status, state_of
from callmeter_processors.watch.rules import Moment

#: Statuses in one checkpoint; see "Budget status" in docs/reference/formats.md.
MAX_STATUSES = 2000
#: Entities looked at in one checkpoint for windows that can be forgotten.
_SWEEP = 2000
_UNWELL = ("warning", "exceeded")


class PartitionWatch:
    """A ``Step`` over one partition of ``spend``; see ``callmeter_processors.step``."""

    def __init__(self, log_id: str, partition: int, max_statuses: int = MAX_STATUSES) -> None:
        self._log_id = log_id
        self._partition = partition
        self._max_statuses = max_statuses
        self._journal = Journal(log_id)
        self._live = LiveBook(log_id)
        self._books: dict[str, BudgetBook] = {}
        self._included: dict[int, int] = {}
        #: The log's time, and the wall's as far as it has been told: the later of both is now.
        self._now_us = 0
        self._changed: dict[str, bytes | None] = {}
        self._touched: dict[str, Entity] = {}
        #: Entities whose status is to be written, those that wait longest first; and those of them
        #: whose state has changed.
        self._waiting: dict[str, Entity] = {}
        self._urgent: dict[str, Entity] = {}
        #: Entities that are not well: their window's end is news.
        self._unwell: dict[str, Entity] = {}
        self._sweeping: list[Entity] = []
        self._outputs: list[Output] = []
        self._counts: Counter[Count] = Counter()

    # -- state -----------------------------------------------------------------------------------

    def restore(self, rows: Mapping[bytes, bytes]) -> None:
        """Take over the partition's rows. ``NewerSchemaError`` if one is of a newer format."""
        definitions: list[Budget] = []
        for key_text, value in self._journal.restore(rows):
            key = orjson.loads(key_text)
            kind = key[0]
            if kind == "i":
                included, self._now_us = orjson.loads(value)
                self._included = {int(p): offset for p, offset in included.items()}
            elif kind == "o":
                book = self._book(key[1])
                basis, openings = orjson.loads(value)
                book.basis = max(book.basis, basis)
                book.openings = {int(p): (n, taken) for p, (n, taken) in openings.items()}
            elif kind == "d":
                definitions.append(decode_budget(value))
            elif kind == "e":
                entity, pending = load_entity(key[1], key[2], key[3], value)
                book = self._book(entity.budget)
                book.basis = max(book.basis, entity.basis)
                book.entities[entity.name] = entity
                if pending:
                    self._waiting[entity.key] = entity
            else:
                self._live.restore(key, value)
        for budget in definitions:
            book = self._book(budget.id)
            book.recall(budget)
            if book.terms is not None:
                for entity in book.entities.values():
                    if state_of(book.terms, entity, self._now_us) in _UNWELL:
                        self._unwell[entity.key] = entity

    def configure(self, budgets: Sequence[Budget], next_offset: int, partitions: int) -> None:
        """Take up the definitions as they are now, all of them; see ``Configurable``.

        A budget that was defined and is not any more is as good as deleted.
        """
        moment = Moment(self._log_id, self._now_us)
        known = {budget.id: budget for budget in budgets}
        for name, book in self._books.items():
            if name not in known and book.terms is not None:
                known[name] = replace(book.terms.budget, state="deleted")
        for name, budget in known.items():
            book = self._book(name)
            if book.definition == budget:
                continue
            self._leave(book.define(budget))
            self._changed[_key("d", name)] = encode_budget(budget)
            for entity, alerts in book.judge_all(moment, self._now_us):
                self._touch(entity)
                self._say(alerts)
            self._note_openings(book)

    # -- folding ---------------------------------------------------------------------------------

    def process(self, record: LogRecord) -> None:
        """Add one record of ``spend``. ``NewerSchemaError`` for one of a newer format."""
        header, lines = read_spend(record.value or b"")
        self._counts["events", ""] += len(lines)
        if header.v > SPEND_VERSION:
            raise NewerSchemaError(
                f"a spend record has format {header.v}, this callmeter reads up to {SPEND_VERSION}:"
                " update the watch"
            )
        if header.log != self._log_id:
            return
        self._now_us = max(self._now_us, header.log_ts_us)
        moment = Moment(self._log_id, header.log_ts_us)
        if isinstance(header, OpeningHeader):
            book = self._book(header.budget)
            if book.open(header):
                self._add(lines, moment, counted=False)
                self._note_openings(book)
                for entity in book.entities.values():
                    self._touch(entity)
            return
        self._add(lines, moment, counted=True)
        if header.part == header.parts - 1:
            self._included[header.partition] = header.last
            self._note_included()

    def _add(self, lines: Iterable[Spend | Live], moment: Moment, *, counted: bool) -> None:
        for line in lines:
            if isinstance(line, Live):
                self._live.add(line)
                continue
            book = self._book(line.budget)
            entity, left = book.take(line)
            if left:
                self._leave(left)
            if entity is None:
                continue
            start_us = entity.add(line, moment.log_us, self._now_us, counted=counted)
            self._touch(entity)
            if start_us is not None and book.terms is not None:
                alerts = book.terms.judge(entity, start_us, moment)
                if alerts:
                    self._say(alerts)

    def tick(self, now_us: int) -> None:
        """Once a second: project windows, windows that ended, and a few entities to forget."""
        self._now_us = max(self._now_us, now_us)
        for project, value in self._live.say(self._now_us):
            self._outputs.append(Output(LIVE_TOPIC.name, project, value, self._partition))
        for key, entity in list(self._unwell.items()):
            terms = self._books[entity.budget].terms
            if terms is not None and state_of(terms, entity, self._now_us) == "ok":
                del self._unwell[key]
                self._waiting[key] = self._urgent[key] = entity
        self._sweep()

    def _sweep(self) -> None:
        if not self._sweeping:
            self._sweeping = [e for book in self._books.values() for e in book.entities.values()]
        for _ in range(min(_SWEEP, len(self._sweeping))):
            entity = self._sweeping.pop()
            book = self._books[entity.budget]
            if book.entities.get(entity.name) is not entity:
                continue
            if entity.forget(self._now_us):
                self._touched[entity.key] = entity
            if entity.gone(self._now_us):
                del book.entities[entity.name]
                self._leave([entity])

    # -- what there is to write ------------------------------------------------------------------

    def checkpoint(self) -> Checkpoint:
        """The rows and outputs since the last checkpoint: alerts, statuses, projects."""
        written = self._statuses()
        for key, entity in self._touched.items():
            self._changed[key] = entity.dump(pending=key in self._waiting)
        for key in written:
            # What waited and has not changed since: its row says so no more.
            self._changed.setdefault(key, written[key].dump(pending=False))
        self._touched = {}
        self._changed.update(self._live.drain())
        rows = self._journal.write(self._changed)
        outputs, counts = self._outputs, self._counts
        self._changed, self._outputs, self._counts = {}, [], Counter()
        if written:
            counts["statuses", ""] = len(written)
        return Checkpoint(rows, outputs, counts)

    def figures(self) -> Mapping[str, int]:
        """What it holds; see ``Measured``."""
        return {
            "state_rows": self._journal.rows,
            "entities": sum(len(book.entities) for book in self._books.values()),
            "statuses_waiting": len(self._waiting),
        }

    def _statuses(self) -> dict[str, Entity]:
        """Write statuses, changes of state first; the entities that had waited for it before."""
        room = self._max_statuses
        standing = Standing(self._log_id, self._now_us, self._included)
        written: dict[str, Entity] = {}
        for key in [*self._urgent, *self._waiting]:
            if not room:
                break
            entity = self._waiting.pop(key, None)
            if entity is None:
                continue
            self._urgent.pop(key, None)
            book = self._books[entity.budget]
            if book.terms is None:
                continue
            room -= 1
            status = entity_status(book, book.terms, entity, standing)
            if status.state in _UNWELL:
                self._unwell[key] = entity
            else:
                self._unwell.pop(key, None)
            self._put_status(entity, encode_status(status))
            written[key] = entity
        return written

    def _put_status(self, entity: Entity, value: bytes | None) -> None:
        key = status_key(entity.budget, entity.name)
        self._outputs.append(Output(BUDGET_STATUS.name, key, value, self._partition))

    def _touch(self, entity: Entity) -> None:
        self._touched[entity.key] = entity
        self._waiting.setdefault(entity.key, entity)

    def _say(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            self._outputs.append(Output(ALERTS.name, alert.rule.encode(), encode_alert(alert)))
            self._counts["alerts", alert.kind] += 1
            entity = self._books[alert.rule].entities[alert.entity]
            self._urgent[entity.key] = entity

    def _leave(self, entities: Iterable[Entity]) -> None:
        """Forget entities: their rows, and the statuses that speak of them."""
        for entity in entities:
            self._changed[entity.key] = None
            for waiting in (self._touched, self._waiting, self._urgent, self._unwell):
                waiting.pop(entity.key, None)
            self._put_status(entity, None)

    def _note_openings(self, book: BudgetBook) -> None:
        openings = {str(p): [n, taken] for p, (n, taken) in book.openings.items()}
        self._changed[_key("o", book.name)] = orjson.dumps([book.basis, openings])

    def _note_included(self) -> None:
        included = {str(p): offset for p, offset in self._included.items()}
        self._changed[_key("i")] = orjson.dumps([included, self._now_us])

    def _book(self, name: str) -> BudgetBook:
        book = self._books.get(name)
        if book is None:
            book = self._books[name] = BudgetBook(name)
        return book


def _key(*parts: str) -> str:
    return orjson.dumps(parts).decode()


def watch_factory(max_statuses: int = MAX_STATUSES) -> StepFactory:
    """What a runtime takes: makes the watch of a partition of ``spend``."""

    def make(log_id: str, partition: int) -> PartitionWatch:
        return PartitionWatch(log_id, partition, max_statuses)

    return make
