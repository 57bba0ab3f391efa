"""Projections of calls and costs answer as single rows do, whatever happens to these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from callmeter.errors import UsageError
from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.clickhouse.store import Result, Store
from callmeter_sinks.forget import forget
from callmeter_sinks.queries import Queries
from callmeter_sinks.retract import retract
from callmeter_sinks.rows import Metered
from callmeter_sinks.streams import STREAMS
from support.stores import migrated_chdb

DAY = datetime(2026, 3, 1, tzinfo=UTC)
LOG = "019a0000-0000-7000-8000-000000000001"
CALLS = """
INSERT INTO calls (project, environment, service, provider, model, operation, status, error_type,
  error_message, http_status, user, started_at, ts, attempts, latency_us, input_tokens,
  output_tokens, cost, unpriced, usage_unknown, call_id, log_ts, log_id, partition, origin, idx)
SELECT ['a', 'b'][1 + n % 2], 'prod', 'api', 'openai', ['x', 'y', 'z'][1 + n % 3],
  if(n % 7 = 0, 'tool', 'chat'), if(n % 11 = 0, 'error', 'ok'),
  if(n % 11 = 0, ['Timeout', 'RateLimit'][1 + n % 2], ''), if(n % 11 = 0, toString(n), ''),
  if(n % 11 = 0, 429, 0), concat('u', toString(n % 40)),
  toDateTime64('2026-03-01 00:00:00', 6, 'UTC') + toIntervalSecond(n * 10),
  toDateTime64('2026-03-01 00:00:00', 6, 'UTC'), 1 + n % 2, if(n % 5 = 0, NULL, n),
  if(n % 9 = 0, NULL, n), if(n % 9 = 0, NULL, 2 * n), if(n % 4 = 0, NULL, toDecimal128(n, 12) / 7),
  n % 4 = 0, n % 9 = 0, generateUUIDv4(), '2026-03-05 00:00:00', toUUID({log:String}), 0,
  intDiv(n, 100), n % 100
FROM (SELECT {first:UInt64} + number AS n FROM numbers({count:UInt64}))
"""
COSTS = """
INSERT INTO costs (project, service, operation, user, started_at, ts, cost, log_ts, log_id,
  partition, origin, idx)
SELECT 'a', 'api', 'chat', concat('u', toString(n % 40)),
  toDateTime64('2026-03-01 00:00:00', 6, 'UTC') + toIntervalSecond(n * 20),
  toDateTime64('2026-03-01 00:00:00', 6, 'UTC'), toDecimal128(n, 12) / 3, '2026-03-05 00:00:00',
  toUUID({log:String}), 0, 100000 + intDiv(n, 100), n % 100
FROM (SELECT number AS n FROM numbers(10000))
"""
#: The examples of every hour: also those that a report of a longer time leaves out.
FAILURES = """
SELECT project, toStartOfHour(started_at) AS hour, model, error_type, count(),
  argMaxIf(error_message, started_at, status != 'ok') FROM calls WHERE status != 'ok'
GROUP BY project, hour, model, error_type ORDER BY ALL
"""
PERIODS: tuple[Mapping[str, datetime], ...] = (
    {},
    {"since": DAY, "until": DAY + timedelta(days=2)},
    {"since": DAY + timedelta(hours=5, minutes=7), "until": DAY + timedelta(days=2, seconds=3)},
    {"since": DAY + timedelta(hours=5, minutes=7), "until": DAY + timedelta(hours=5, minutes=9)},
    {"until": DAY + timedelta(hours=30)},
)
_NO_LATENCIES: dict[str, Any] = dict.fromkeys(
    ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")
)


class Watched:
    """A store that keeps the engine's settings for it, and what it was asked."""

    embedded = True

    def __init__(self, store: Store, use: str = "1") -> None:
        self._store = store
        self._settings = {"optimize_use_projections": use}
        self.asked: list[tuple[str, Mapping[str, Any] | None]] = []

    def query(
        self,
        sql: str,
        params: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Result:
        self.asked.append((sql, params))
        return self._store.query(sql, params, {**self._settings, **(settings or {})})

    def plan(self) -> str:
        """What the engine reads for the last statement."""
        sql, params = self.asked[-1]
        return "\n".join(row[0] for row in self._store.query(f"EXPLAIN {sql}", params).rows)


def fill(store: Store) -> None:
    """Two parts, so that groups lie in more than one."""
    for first, count in ((0, 30_000), (30_000, 5_000)):
        store.command(CALLS, {"first": first, "count": count, "log": LOG})
    store.command(COSTS, {"log": LOG})


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbStore]:
    with migrated_chdb(tmp_path_factory.mktemp("projections") / "db") as opened:
        yield opened


@pytest.fixture
def store(engine: ChdbStore) -> Iterator[ChdbStore]:
    fill(engine)
    yield engine
    for table in ("calls", "costs", "envelopes", "audit"):
        engine.command(f"TRUNCATE TABLE {table} SYNC")


def answers(store: Store, use: str, periods: Sequence[Mapping[str, datetime]]) -> list[object]:
    watched = Watched(store, use)
    ask = Queries(watched)  # type: ignore[arg-type]
    found: list[object] = [watched.query(FAILURES).rows]
    for period in periods:
        found += [
            ask.report(["project", "user"], top=9, latencies=False, **period, **more)  # type: ignore[arg-type]
            for more in ({}, {"project": "a"}, {"filters": {"user": ["u3", "u4"]}})
        ]
        found.append(ask.spenders(top=9, **period))  # type: ignore[arg-type]
        found += [
            ask.errors(**period),  # type: ignore[arg-type]
            ask.errors(**period, filters={"model": "x"}),  # type: ignore[arg-type]
            ask.errors(**period, filters={"user": "u11"}),  # type: ignore[arg-type]
        ]
    return found


def same_as_from_rows(
    store: Store, periods: Sequence[Mapping[str, datetime]] = PERIODS[2:3]
) -> None:
    assert answers(store, "1", periods) == answers(store, "0", periods)


def test_answers_are_those_of_single_rows(store: ChdbStore) -> None:
    same_as_from_rows(store, PERIODS)
    ask = Queries(store)
    for period in PERIODS[1:3]:
        full = ask.report(["user"], **period)  # type: ignore[arg-type]
        sums = ask.report(["user"], latencies=False, **period)  # type: ignore[arg-type]
        assert [row.key for row in full.rows] == [row.key for row in sums.rows]
        of_full = [*(row.figures for row in full.rows), full.totals]
        of_sums = [*(row.figures for row in sums.rows), sums.totals]
        assert [replace(each, **_NO_LATENCIES) for each in of_full] == of_sums
    by_hand = store.query(
        "SELECT error_type, count(), toString(argMax(call_id, started_at)) FROM calls "
        "WHERE status = 'error' AND operation = 'chat' AND model = 'x' GROUP BY error_type"
    ).rows
    rows = [row for row in ask.errors() if row.model == "x"]
    assert sorted((r.error_type, r.calls, r.example_call_id) for r in rows) == sorted(by_hand)


def test_who_costs_most_is_what_a_report_begins_with(store: ChdbStore) -> None:
    ask = Queries(store)
    seen: set[Decimal | None] = set()
    for period in ({}, PERIODS[2], {"since": DAY + timedelta(days=3)}):
        for by, top, more in (
            (["user"], 9, {}),
            (["user"], 100, {"project": "a"}),
            (["project", "user"], 9, {"filters": {"user": ["u3", "u4"]}}),
            (["user", "model"], 200, {}),
            (["model"], 9, {}),
            ([], 9, {}),
        ):
            report = ask.report(by, top=top, latencies=False, **period, **more)  # type: ignore[arg-type]
            rows = ask.spenders(by, top=top, **period, **more)  # type: ignore[arg-type]
            assert [(r.key, astuple(r.figures)) for r in rows] == [
                (r.key, (r.figures.cost_usd, r.figures.calls, r.figures.failures))
                for r in report.rows
            ]
            seen |= {row.figures.cost_usd for row in rows}
    # No rollups here, so a report of all has a row, and nothing in it; of users some have no price.
    assert {None, Decimal(0)} <= seen
    with pytest.raises(UsageError):
        ask.spenders(top=0)


def test_the_engine_reads_the_projections(store: ChdbStore) -> None:
    watched = Watched(store)
    ask = Queries(watched)  # type: ignore[arg-type]
    ask.report(["user"], top=5, latencies=False)
    assert watched.plan().count("ReadFromMergeTree (by_user)") == 2
    ask.spenders(top=5)
    assert watched.plan().count("ReadFromMergeTree (by_user)") == 2
    assert "attempts" not in watched.plan()
    ask.report(["user"], since=DAY, until=DAY + timedelta(days=3), project="a", latencies=False)
    assert "ReadFromMergeTree (by_user)" in watched.plan()
    ask.errors(since=DAY)
    assert "ReadFromMergeTree (by_failure)" in watched.plan()


def test_who_is_forgotten_is_in_no_projection(store: ChdbStore) -> None:
    def named() -> int:
        tables = ("calls", "costs")
        parts = " UNION ALL ".join(
            f"SELECT user FROM mergeTreeProjection(currentDatabase(), {table}, by_user)"
            for table in tables
        )
        return int(store.query(f"SELECT countIf(user = 'u33') FROM ({parts})").rows[0][0])

    assert named() > 0
    forget(store, "u33")
    assert named() == 0
    assert store.query("SELECT countIf(user = 'u33') FROM calls").rows == [(0,)]
    same_as_from_rows(store)


def test_a_record_that_is_taken_back_is_in_no_projection(store: ChdbStore) -> None:
    before = Queries(store).report(["user"], latencies=False).totals.calls
    record = Metered(
        offset=1, log_id=LOG, type="envelope", first=3, last=3, events=100, part=0,
        ends_checkpoint=False, log_ts_us=0, value=b"", body_at=0,
    )  # fmt: skip
    retract(store, STREAMS["metered"], 0, record)
    assert store.query("SELECT count() FROM calls").rows == [(34_900,)]
    assert before - Queries(store).report(["user"], latencies=False).totals.calls > 80
    same_as_from_rows(store)
    # A merge leaves nothing out and adds nothing.
    store.command("OPTIMIZE TABLE calls FINAL")
    same_as_from_rows(store)
