"""What a store holds of the metered records that ``support.metered`` made up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Context, Decimal
from pathlib import Path

from callmeter.log.record import NewRecord
from callmeter.log.sqlite_log import SqliteLog
from callmeter_sinks.clickhouse.store import Store
from support.metered import Truth

EVENT_TABLES = {
    "calls": "call_end",
    "calls_open": "call_begin",
    "costs": "cost",
    "metrics": "metric",
    "annotations": "annotation",
    "experiments": "experiment",
    "dead_letters": "dead_letters",
    "envelopes": "envelopes",
}


def sqlite_log(path: Path, partitions: int = 2) -> SqliteLog:
    return SqliteLog(path, partitions=partitions)


def append(log: SqliteLog, partition: int, values: Sequence[bytes]) -> None:
    """Put metered records into the log, as one checkpoint's transaction would."""
    log.append([NewRecord("metered", b"source", value, partition) for value in values])


def stored(store: Store) -> dict[str, object]:
    """Figures of a store, raw and rolled up, in the shape of ``expected``."""
    found: dict[str, object] = {}
    for table in EVENT_TABLES:
        key = "log_id, partition, origin" + ("" if table == "envelopes" else ", idx")
        if table == "dead_letters":
            key += ", whole_envelope"
        rows = store.query(f"SELECT count(), uniqExact({key}) FROM {table}").rows[0]
        found[table] = (int(rows[0]), int(rows[1]))
    raw = store.query(
        "SELECT countIf(operation != 'program'), countIf(operation = 'program'), "
        "countIf(status != 'ok'), sum(cost), countIf(unpriced), countIf(usage_unknown), "
        "sumMap(CAST(usage, 'Map(String, UInt64)')) FROM calls"
    ).rows[0]
    bills = store.query("SELECT sum(cost) FROM costs").rows[0][0]
    found["raw"] = (
        *map(int, raw[:3]), _pico(raw[3]) + _pico(bills), *map(int, raw[4:6]),
        _positive(raw[6]),
    )  # fmt: skip
    for window in ("1m", "1h", "1d"):
        found[f"rollup_{window}"] = _rollup(store, f"rollup_{window}")
        histograms = store.query(f"SELECT sumMap(latency), sumMap(ttft) FROM hist_{window}").rows[0]
        found[f"hist_{window}"] = tuple(_positive(h) for h in histograms)
    controls = store.query(
        "SELECT sum(calls), sum(operations), sum(failures), sum(cost), sum(unpriced), "
        "sum(usage_unknown), sumMap(CAST(usage, 'Map(String, UInt64)')), sum(envelopes), "
        "sum(duplicates), sum(refused_envelopes), sum(events), sum(refused) FROM rollup_controls"
    ).rows[0]
    found["controls"] = (
        *map(int, controls[:3]), _pico(controls[3]), *map(int, controls[4:6]),
        _positive(controls[6]), *map(int, controls[7:]),
    )  # fmt: skip
    return found


def _rollup(store: Store, table: str) -> tuple[object, ...]:
    row = store.query(
        "SELECT sumIf(calls, operation NOT IN ('program', '')), "
        "sumIf(calls, operation = 'program'), "
        f"sum(failures), sum(cost), sum(unpriced), sum(usage_unknown), sumMap(usage) FROM {table}"
    ).rows[0]
    return (*map(int, row[:3]), _pico(row[3]), *map(int, row[4:6]), _positive(row[6]))


def expected(truth: Truth) -> dict[str, object]:
    """The same figures from the truth: every row once, raw = rollups = controls, to the pico."""
    count = truth.counts
    wanted: dict[str, object] = {
        table: (count[kind], count[kind]) for table, kind in EVENT_TABLES.items()
    }
    sums = (
        count["model_calls"], count["operations"], count["failures"], truth.cost_pico,
        count["unpriced"], count["usage_unknown"], _positive(truth.usage),
    )  # fmt: skip
    wanted["raw"] = sums
    for window in ("1m", "1h", "1d"):
        wanted[f"rollup_{window}"] = sums
        wanted[f"hist_{window}"] = (_positive(truth.latency), _positive(truth.ttft))
    wanted["controls"] = (
        *sums, count["envelopes"], count["duplicates"], count["refused_envelopes"],
        count["events"], count["refused"],
    )  # fmt: skip
    return wanted


def _positive(counts: dict[object, int] | Counter[object] | object) -> dict[object, int]:
    assert isinstance(counts, dict)
    return {key: int(value) for key, value in counts.items() if value}


def _pico(usd: Decimal | None) -> int:
    """Sums of made-up amounts go beyond what one event may cost, so not ``money.to_pico``."""
    value = Context(prec=60).scaleb(usd or Decimal(0), 12)
    assert value == value.to_integral_value()
    return int(value)
