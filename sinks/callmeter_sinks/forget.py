"""Forget a user: their texts and their id leave the stored rows, every figure stays.

Rows are not deleted but emptied, so counts, tokens, money and ledger are as they were, and
``verify`` stays equal. Theirs are calls whose ``user`` it is, or with a tag or an attribute of that
value. Statements that change rows name the user by SHA-256 only, because the engine keeps their
text. May be repeated: notes go first and the calls that name the user last, so nothing is missed if
it is cut short. What it cannot reach is in ``OUT_OF_REACH``.

A note may lie on another shard than its call. So of several shards the calls that have notes are
read over all of them first, and each shard is told which they are.
"""

# ruff: noqa: S608 - only text of this module is put together; every value is bound

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from callmeter.clock import Clock, SystemClock
from callmeter.errors import UsageError
from callmeter_sinks.clickhouse.shards import Shards
from callmeter_sinks.clickhouse.store import Store

#: For people, one sentence each.
OUT_OF_REACH = (
    "The log keeps what was sent until its retention ends, 7 days by default.",
    "Rows made anew from the log, by `repair` or into an empty store, have it again.",
    "Spools and queues of producers that have not delivered yet.",
    "Backups of log and store, and exports.",
    "Texts of others' calls, metrics and experiments; the audit log, which is only added to.",
    "The status of budgets per user, in the log's compacted topics, until the budget is deleted.",
)
_NIL = "00000000-0000-0000-0000-000000000000"
_THEM = "hex(SHA256({})) = {{sha:String}}"
_THEM_NAMED = "{sha:String}"
_IN_MAP = "arrayExists(v -> hex(SHA256(v)) = {sha:String}, mapValues(%s))"
_USER = _THEM.format("user")
_TAGS = _IN_MAP % "tags"
_ATTRIBUTES = _IN_MAP % "attributes"
_CLEAN = "mapFilter((k, v) -> hex(SHA256(v)) != {sha:String}, %s)"
_CALLS = f"{_USER} OR {_TAGS} OR {_ATTRIBUTES}"
_NO_USER = f"user = if({_USER}, '', user)"
_SETTINGS = {
    "mutations_sync": "2",
    "lightweight_deletes_sync": "2",
    # A subquery that gives the same on every replica, since nothing else changes what it reads.
    "allow_nondeterministic_mutations": "1",
}


@dataclass(frozen=True, slots=True)
class _Step:
    """Rows of a table and what becomes of them; without ``update`` they are deleted."""

    table: str
    where: str
    update: str = ""


_ON_THEIR_CALLS = (
    f"call_id != toUUID('{_NIL}') AND call_id IN (SELECT call_id FROM calls WHERE {_CALLS} "
    f"UNION ALL SELECT call_id FROM calls_open WHERE {_CALLS})"
)
#: The same where the calls were read before, so many at a time.
_ON_THESE_CALLS = "call_id IN {calls:Array(UUID)}"
_AT_ONCE = 5_000
#: In this order: who a note belongs to is known as long as its call is.
_STEPS = (
    _Step("annotations", f"text != '' AND {_ON_THEIR_CALLS}", "text = '', metadata = ''"),
    _Step(
        "costs",
        f"{_USER} OR {_TAGS}",
        f"{_NO_USER}, tags = {_CLEAN % 'tags'}, note = ''",
    ),
    _Step(
        "alerts",
        f"{_USER} OR {_THEM.format('entity')} OR {_ON_THEIR_CALLS}",
        f"{_NO_USER}, entity = if({_THEM.format('entity')}, '', entity), message = ''",
    ),
    _Step("budget_status", _THEM.format("entity")),
    _Step("budget_now", _THEM.format("entity")),
    _Step(
        "calls_open",
        _CALLS,
        f"{_NO_USER}, tags = {_CLEAN % 'tags'}, attributes = {_CLEAN % 'attributes'}, inputs = ''",
    ),
    _Step(
        "calls",
        _CALLS,
        f"{_NO_USER}, tags = {_CLEAN % 'tags'}, attributes = {_CLEAN % 'attributes'}, "
        "inputs = '', outputs = '', error_message = ''",
    ),
)


@dataclass(frozen=True, slots=True)
class _Aside:
    """A table of lines that were set aside as they came, found by the id as a JSON text in them."""

    table: str
    keys: tuple[str, ...]
    line: str
    update: str


_ASIDE = (
    _Aside(
        "dead_letters", ("log_id", "partition", "origin", "idx"), "line", "line = '', detail = ''"
    ),
    _Aside("sink_quarantine", ("log_id", "topic", "partition", "offset"), "record", "record = ''"),
)


@dataclass
class Forgotten:
    """Rows by table; ``audit_entries`` name the user still, since the audit is only added to."""

    rows: dict[str, int] = field(default_factory=dict)
    audit_entries: int = 0

    @property
    def total(self) -> int:
        return sum(self.rows.values())


def find(store: Store, user: str) -> Forgotten:
    """What ``forget`` would change, and changes nothing."""
    bound = _bound(user)
    found = Forgotten()
    for step in _STEPS:
        found.rows[step.table] = _count(store, step.table, step.where, bound)
    for aside in _ASIDE:
        holds = {"json": _json(user)}
        found.rows[aside.table] = _count(store, aside.table, _holds(aside.line), holds)
    found.audit_entries = _count(store, "audit", _USER, bound)
    return found


def forget(
    store: Store,
    user: str,
    *,
    reference: str = "",
    shards: Shards | None = None,
    on_table: Callable[[str], None] = lambda _: None,
    clock: Clock | None = None,
) -> Forgotten:
    """Empty every row, then write one audit entry: how many rows of which table, ``reference``.

    With several ``shards`` ``store`` is their read side. Neither the id nor a digest of it is in
    the entry. Returns when no query sees the texts any more; the engine removes the old parts from
    disk within minutes.
    """
    bound = _bound(user)
    places = shards or Shards([store])
    found = find(store, user)
    for step in _STEPS:
        on_table(step.table)
        if not found.rows[step.table]:
            continue
        for where, values in _portions(store, step, bound, several=len(places) > 1):
            for place in places.stores:
                sql = f"DELETE FROM {step.table}"
                if step.update:
                    sql = f"ALTER TABLE {step.table}{_on_cluster(place)} UPDATE {step.update}"
                place.command(f"{sql} WHERE {where}", values, _SETTINGS)
    for aside in _ASIDE:
        on_table(aside.table)
        if found.rows[aside.table]:
            for place in places.stores:
                _empty_lines(place, aside, _json(user))
    _record(places.stores[0], found, reference, clock or SystemClock())
    return found


def _portions(
    store: Store, step: _Step, bound: Mapping[str, str], *, several: bool
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Conditions that a shard can decide by itself, and their values."""
    if not several or _ON_THEIR_CALLS not in step.where:
        yield step.where, bound
        return
    where = step.where.replace(_ON_THEIR_CALLS, _ON_THESE_CALLS)
    answer = store.query(
        f"SELECT DISTINCT toString(call_id) FROM {step.table} WHERE {_ON_THEIR_CALLS}", bound
    )
    calls = [call for (call,) in answer.rows]
    them = bound if _THEM_NAMED in where else {}
    # Once at least: a row may be theirs for another reason.
    for at in range(0, max(len(calls), 1), _AT_ONCE):
        yield where, {**them, "calls": calls[at : at + _AT_ONCE]}


def _bound(user: str) -> dict[str, str]:
    if not user:
        raise UsageError("whom? the id must not be empty: calls without a user have it")
    return {"sha": hashlib.sha256(user.encode()).hexdigest().upper()}


def _json(user: str) -> str:
    return orjson.dumps(user).decode()


def _holds(column: str) -> str:
    return f"position({column}, {{json:String}}) > 0"


def _count(store: Store, table: str, where: str, bound: Mapping[str, str]) -> int:
    rows = store.query(f"SELECT count() FROM {table} WHERE {where}", bound).rows
    return int(rows[0][0])


def _empty_lines(store: Store, aside: _Aside, json: str) -> None:
    """By place, read first, so that the statement that the engine keeps does not hold the id."""
    names = ", ".join(aside.keys)
    holding = f"SELECT {names} FROM {aside.table} WHERE {_holds(aside.line)}"
    where = " AND ".join(f"toString({key}) = {{k{at}:String}}" for at, key in enumerate(aside.keys))
    sql = f"ALTER TABLE {aside.table}{_on_cluster(store)} UPDATE {aside.update} WHERE {where}"
    for place in store.query(holding, {"json": json}).rows:
        bound = {f"k{at}": str(value) for at, value in enumerate(place)}
        store.command(sql, bound, _SETTINGS)


def _on_cluster(store: Store) -> str:
    """Nothing for a shard: a change replicates there, and each of the others is told by itself."""
    several = store.sharding is not None
    return f" ON CLUSTER `{store.cluster}`" if store.cluster and not several else ""


def _record(store: Store, found: Forgotten, reference: str, clock: Clock) -> None:
    """Into the store itself: of the log nothing changes, and no producer has said this."""
    now_us = clock.now_us()
    row = {
        "at": now_us / 1e6,
        "project": "callmeter",
        "action": "forget user",
        "detail": orjson.dumps({"rows": found.rows, "reference": reference}).decode(),
        "log_ts": now_us / 1e6,
        "log_id": _NIL,
        "call_id": _NIL,
        "origin": now_us,
    }
    store.insert_block("audit", list(row), orjson.dumps(row), fmt="JSONEachRow")
