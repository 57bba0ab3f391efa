"""Reports of a stream of many months: its truth by any groups, from disk and from memory."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from callmeter_sinks.clickhouse.chdb_store import ChdbStore
from callmeter_sinks.queries import Queries
from support.metered import MeteredStream
from support.stores import land, migrated_chdb

#: A moment in the stream, no whole hour.
CUT = datetime(2025, 6, 10, 8, 25, tzinfo=UTC)


@pytest.fixture(scope="module")
def stream() -> MeteredStream:
    return MeteredStream("019a0000-0000-7000-8000-00000000000f", 7, seed=3)


@pytest.fixture(scope="module")
def store(stream: MeteredStream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChdbStore]:
    with migrated_chdb(tmp_path_factory.mktemp("reports") / "db") as opened:
        land(opened, list(stream.records(30)), partition=7, token="stream")
        yield opened


@pytest.fixture
def ask(store: ChdbStore) -> Queries:
    return Queries(store)


def test_a_stream_of_many_months_adds_up_to_its_truth(ask: Queries, stream: MeteredStream) -> None:
    truth = stream.truth
    totals = ask.report([]).totals
    assert totals.calls == truth.counts["model_calls"]
    assert totals.cost_usd == Decimal(truth.cost_pico).scaleb(-12)
    assert totals.unpriced_calls == truth.counts["unpriced"]
    assert totals.usage_unknown == truth.counts["usage_unknown"]
    by_hour = ask.report(["hour", "model"]).rows
    assert sum(row.figures.calls for row in by_hour) == truth.counts["model_calls"]
    # Quantiles of groups, and of all, are those of a question that has no other group.
    for by in (["model"], ["project", "service", "model"], ["day", "model"], ["hour", "model"]):
        assert ask.report(by).totals == totals
    for row in ask.report(["model"]).rows:
        only = {"model": str(row.key["model"])}
        assert ask.report([], filters=only).totals == row.figures
    halves = [ask.report([], since=a, until=b).totals.calls for a, b in ((None, CUT), (CUT, None))]
    assert sum(halves) == truth.counts["model_calls"]
    assert min(halves) > 0


def test_rollups_are_read_from_memory_the_second_time_and_single_calls_never(
    ask: Queries, store: ChdbStore
) -> None:
    """By the engine's own count of blocks that it looked for among those it keeps decompressed."""

    def looked_for() -> tuple[int, int]:
        hits, misses = store.query(
            "SELECT sumIf(value, event = 'UncompressedCacheHits'), "
            "sumIf(value, event = 'UncompressedCacheMisses') FROM system.events"
        ).rows[0]
        return hits, misses

    for table in ("rollup_1d", "hist_1d"):
        store.command(f"OPTIMIZE TABLE {table} FINAL")  # a merge in between would make new blocks
    for filters in ({}, {"status": "ok"}):
        first = ask.report(["model"], filters=filters), ask.usage(["model"], filters=filters)
        hits, misses = looked_for()
        again = ask.report(["model"], filters=filters), ask.usage(["model"], filters=filters)
        assert again == first
        assert looked_for()[0] > hits
        assert looked_for()[1] == misses
    before = looked_for()
    ask.report(["user"])
    assert looked_for() == before
