"""Control totals of the meter's checkpoints against the rows of the origins they cover."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial

from callmeter_sinks.checks.outcome import Check, Comparison, Unverifiable, settled
from callmeter_sinks.checks.two_sides import Side, compare
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import MODEL_OPERATIONS_SQL, Binding, Period, later

_MEASURES = {
    "envelopes": "sum",
    "duplicates": "sum",
    "refused_envelopes": "sum",
    "events": "sum",
    "refused": "sum",
    "calls": "sum",
    "operations": "sum",
    "failures": "sum",
    "costs": "sum",
    "cost": "sum",
    "unpriced": "sum",
    "usage_unknown": "sum",
    "usage": "sumMap",
}
_KEYS = ("log_id", "partition", "checkpoint")
_RECORD = "log_id, partition, origin"


def check_controls(
    store: Store, period: Period, horizons: Mapping[str, datetime]
) -> tuple[list[Check], list[Unverifiable]]:
    """Per checkpoint, in log time; and that checkpoints follow each other without a hole."""
    within, gone = later(period, horizons, ("rollup_controls", "envelopes", "calls", "costs"))
    unverifiable = []
    if gone is not None:
        unverifiable.append(Unverifiable(f"checkpoints before {gone:%Y-%m-%d}", "retention"))
    checks = settled(partial(_controls, store, within)).checks("{} by control totals")
    holes, explained = _holes(store, within)
    return [*checks, holes], [*unverifiable, *explained]


def _controls(store: Store, period: Period) -> Comparison:
    binding = Binding()
    within = " AND ".join(period.sql("log_ts", binding)) or "1"
    controls = (
        f"SELECT log_id, partition, first AS checkpoint, last FROM rollup_controls WHERE {within}"
    )
    books = (
        "SELECT log_id, partition, first AS checkpoint, "
        f"{', '.join(f'c.{name} AS {name}' for name in _MEASURES if name != 'usage')}, "
        "CAST(c.usage, 'Map(String, UInt64)') AS usage "
        f"FROM rollup_controls AS c WHERE {within}"
    )
    is_call = f"operation IN {MODEL_OPERATIONS_SQL}"
    rows = [
        _covered(
            controls,
            {
                "envelopes": "count()",
                "duplicates": "countIf(verdict = 'duplicate')",
                "refused_envelopes": "countIf(verdict = 'refused')",
                "events": "sum(toUInt64(if(verdict = 'accepted', t.events, 0)))",
                "refused": "sum(toUInt64(if(verdict = 'accepted', t.refused, 0)))",
            },
            "envelopes",
        ),
        _covered(
            controls,
            {
                "calls": f"countIf({is_call})",
                "operations": f"countIf(NOT {is_call})",
                "failures": "countIf(status != 'ok')",
                "cost": "sum(ifNull(t.cost, 0))",
                "unpriced": "sum(toUInt64(t.unpriced))",
                "usage_unknown": "sum(toUInt64(t.usage_unknown))",
                "usage": "sumMap(CAST(t.usage, 'Map(String, UInt64)'))",
            },
            "calls",
        ),
        _covered(controls, {"costs": "count()", "cost": "sum(t.cost)"}, "costs"),
    ]
    return compare(store, _KEYS, _MEASURES, (Side(rows), Side([books])), binding)


def _covered(controls: str, measures: dict[str, str], table: str) -> str:
    """Rows of a table summed by record, each with the checkpoint whose origins it lies in.

    Records are summed before the join: it then joins as many rows as there are envelopes, not
    events. Records past the last checkpoint are not covered yet and left out.
    """
    summed = ", ".join(f"{sql} AS {name}" for name, sql in measures.items())
    columns = ", ".join(
        f"r.{name} AS {name}" if name in measures else _nothing(name) for name in _MEASURES
    )
    return (
        "SELECT r.log_id AS log_id, r.partition AS partition, c.checkpoint AS checkpoint, "
        f"{columns} FROM (SELECT {_RECORD}, {summed} FROM {table} AS t GROUP BY {_RECORD}) AS r "
        f"ASOF JOIN ({controls}) AS c ON r.log_id = c.log_id AND r.partition = c.partition "
        "AND r.origin >= c.checkpoint WHERE r.origin <= c.last"
    )


def _nothing(name: str) -> str:
    if name == "usage":
        return "CAST(map(), 'Map(String, UInt64)') AS usage"
    if name == "cost":
        return "toDecimal128(0, 12) AS cost"
    return f"toUInt64(0) AS {name}"


def _holes(store: Store, period: Period) -> tuple[Check, list[Unverifiable]]:
    """Origins between checkpoints that no checkpoint covers, less those accepted as lost."""
    binding = Binding()
    within = " AND ".join(period.sql("log_ts", binding)) or "1"
    answer = store.query(
        "SELECT toString(log_id), partition, previous + 1, first - 1 FROM ("
        "SELECT log_id, partition, first, "
        # Before the first checkpoint there may be no record of the ledger.
        "lagInFrame(last, 1, least(first, oldest) - 1) OVER (PARTITION BY log_id, partition "
        "ORDER BY first ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS previous "
        f"FROM (SELECT log_id, partition, first, last FROM rollup_controls WHERE {within}) AS c "
        "INNER JOIN (SELECT log_id, partition, min(origin) AS oldest FROM envelopes "
        f"WHERE {within} GROUP BY log_id, partition) AS e USING (log_id, partition)) "
        "WHERE first != previous + 1 ORDER BY ALL",
        binding.values,
    )
    lost = {
        tuple(row)
        for row in store.query(
            "SELECT toString(log_id), partition, origin_first, origin_last FROM sink_losses"
        ).rows
    }
    holes = [tuple(row) for row in answer.rows]
    unexplained = [hole for hole in holes if hole not in lost]
    check = Check(
        "checkpoints without holes", len(unexplained), 0, len(unexplained),
        tuple(f"log {log} partition {p} origins {a}..{b}" for log, p, a, b in unexplained[:20]),
    )  # fmt: skip
    return check, [
        Unverifiable(f"log {log} partition {p} origins {a}..{b}", "accepted as lost")
        for log, p, a, b in sorted(lost)
    ]
