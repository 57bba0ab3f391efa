"""The doctor's look at the store: schema, clock, what was lost or set aside, what has no price."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from callmeter.cli.doctor_finding import Figure, Finding, State, looked

if TYPE_CHECKING:
    from callmeter_sinks.clickhouse.store import Store

#: What is counted as recent.
RECENT = timedelta(hours=1)
_UNPRICED = timedelta(days=1)
_GAPS = timedelta(days=7)
#: Clocks further apart than this shift windows visibly; events 10 min ahead are refused.
SKEW_NOTICE_S = 2.0
SKEW_WRONG_S = 60.0


def look_at_store(store: Store, *, thorough: bool) -> Iterator[Finding]:
    """Findings of an open store; ``thorough`` asks what costs it more than a moment too."""
    reached = list(looked("store", "operations.md#store", lambda: _schema(store)))
    yield from reached
    if reached[0].state is State.WRONG:
        return
    yield from looked("clock", "operations.md#clock", lambda: _clock(store))
    yield from looked("dead letters", "operations.md#dead-letters", lambda: _dead_letters(store))
    if not thorough:
        return
    yield from looked("gaps", "operations.md#gaps", lambda: _gaps(store))
    yield from looked("unpriced", "prices.md", lambda: _unpriced(store))
    yield from looked("twice", "operations.md#instrumented-twice", lambda: _twice(store))


def _schema(store: Store) -> Finding:
    from callmeter_sinks.clickhouse.migrate import check_schema
    from callmeter_sinks.clickhouse.shards import tables_in

    check_schema(store)
    version = store.query("SELECT version()").rows[0][0]
    plain = store.query(
        f"SELECT name FROM system.tables WHERE database = {tables_in(store)} AND name = 'calls' "  # noqa: S608
        "AND engine NOT LIKE 'Replicated%'"
    ).rows
    several = f"{store.sharding.shards} shards, " if store.sharding is not None else ""
    text = f"{store.name}: ClickHouse {version}, {several}schema up to date"
    if plain and store.replicated:
        # Plain tables on a server lose an insert when a kill falls between two steps (design 14).
        text = f"{store.name}: tables are not Replicated: callmeter migrate makes them so"
        return Finding("store", State.WRONG, text, "operations.md#store")
    newest = store.query("SELECT toUnixTimestamp64Micro(max(log_ts)) FROM envelopes").rows[0][0]
    figures = (Figure("newest_stored_timestamp_seconds", newest / 1e6),) if newest > 0 else ()
    return Finding("store", State.OK, text, "operations.md#store", figures)


def skew(piece: str, ahead_s: float) -> Finding:
    """A clock beside ours: ``ahead_s`` positive if it is ahead."""
    size = abs(ahead_s)
    state = State.OK if size < SKEW_NOTICE_S else State.NOTICE
    if size >= SKEW_WRONG_S:
        state = State.WRONG
    way = "ahead of" if ahead_s >= 0 else "behind"
    return Finding(
        "clock", state, f"the {piece}'s clock is {size:.1f} s {way} this machine's",
        "operations.md#clock", (Figure("clock_ahead_seconds", ahead_s, {"of": piece}),),
    )  # fmt: skip


def _clock(store: Store) -> Finding:
    before = time.time()
    theirs = store.query("SELECT toUnixTimestamp64Micro(now64(6))").rows[0][0] / 1e6
    # Somewhere between question and answer; the middle is wrong by half of it at most.
    return skew("store", theirs - (before + time.time()) / 2)


def _dead_letters(store: Store) -> Finding:
    from callmeter_sinks.queries import details

    guide = "operations.md#dead-letters"
    rows = details.dead_letter_reasons(
        store, since=datetime.now(UTC) - RECENT, until=None, project=None
    )
    figures = tuple(
        Figure("dead_letters_last_hour", row.dead_letters, {"reason": row.reason}) for row in rows
    ) or (Figure("dead_letters_last_hour", 0, {"reason": "any"}),)
    if not rows:
        return Finding("dead letters", State.OK, "none in the last hour", guide, figures)
    said = ", ".join(f"{row.dead_letters:,} {row.reason}" for row in rows)
    return Finding("dead letters", State.NOTICE, f"in the last hour: {said}", guide, figures)


def _gaps(store: Store) -> Finding:
    from callmeter_sinks.queries import Queries

    guide = "operations.md#gaps"
    ask, since = Queries(store), datetime.now(UTC) - _GAPS
    # What retention removed on purpose was there once.
    missing = [gap for gap in ask.gaps(since=since) if not gap.removed]
    envelopes = sum(gap.envelopes for gap in missing)
    dropped = sum(sum(row.dropped.values()) for row in ask.sources(since=since))
    figures = (
        Figure("missing_envelopes", envelopes),
        Figure("dropped_events", dropped),
    )
    if not envelopes and not dropped:
        text = "nothing is missing or was dropped in the last 7 days"
        return Finding("gaps", State.OK, text, guide, figures)
    text = (
        f"{envelopes:,} envelopes of {len({gap.source for gap in missing}):,} sources are missing, "
        f"producers dropped {dropped:,} events (7 days); `callmeter gaps` lists them"
    )
    return Finding("gaps", State.NOTICE, text, guide, figures)


def _unpriced(store: Store) -> Finding:
    from callmeter_sinks.queries import Queries

    report = Queries(store).report(by=["model"], since=datetime.now(UTC) - _UNPRICED)
    rows = [row for row in report.rows if row.figures.unpriced_calls]
    count = sum(row.figures.unpriced_calls for row in rows)
    figures = (Figure("unpriced_calls_last_day", count),)
    if not rows:
        return Finding(
            "unpriced", State.OK, "every call of a day has a price", "prices.md", figures
        )
    models = ", ".join(str(row.key["model"]) for row in rows[:5])
    text = f"{count:,} calls of the last day have no price: {models}; `callmeter prices unpriced`"
    return Finding("unpriced", State.NOTICE, text, "prices.md", figures)


def _twice(store: Store) -> Finding:
    from callmeter_sinks.queries.twice import metered_twice

    guide = "operations.md#instrumented-twice"
    found = metered_twice(store, since=datetime.now(UTC) - RECENT)
    figures = (Figure("instrumented_twice_last_hour", sum(each.pairs for each in found)),)
    if not found:
        return Finding(
            "twice", State.OK, "no call of the last hour came by two roads", guide, figures
        )
    return Finding("twice", State.NOTICE, "; ".join(map(str, found)), guide, figures)
