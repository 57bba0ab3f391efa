"""Experiments, their series and what is written about them."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import orjson

from callmeter.errors import UsageError
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import Binding, Period

#: Most experiments that one catalog covers.
MAX_CATALOG = 64
MAX_POINTS = 1_000_000

SeriesOrder = Literal["step", "timestamp"]


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one name: three sequences of equal length. A point without a step has None."""

    name: str
    steps: Sequence[int | None]
    timestamps: Sequence[datetime]
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """What an experiment has: names of its metrics, keys of their labels and of its metadata."""

    project: str
    experiment: str
    metrics: Sequence[str]
    label_keys: Sequence[str]
    metadata_keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class ExperimentRow:
    """An experiment as all its statements together say: the last word counts, key by key."""

    project: str
    slug: str
    status: str
    description: str
    error_name: str
    error_detail: str
    metadata: Mapping[str, object]
    first_at: datetime
    last_at: datetime


def series(
    store: Store,
    name: str,
    *,
    experiment: str | None,
    project: str | None,
    labels: Sequence[str],
    since: datetime | None,
    until: datetime | None,
    order: SeriesOrder,
    descending: bool,
    limit: int,
) -> Series:
    """Points of a metric by name and labels. See ``Queries.series``."""
    if order not in ("step", "timestamp"):
        raise UsageError("a series is ordered by step or by timestamp")
    if not 1 <= limit <= MAX_POINTS:
        raise UsageError(f"the limit is 1 to {MAX_POINTS}")
    binding = Binding()
    where = [f"name = {binding.add(name, 'String')}"]
    for column, wanted in (("experiment", experiment), ("project", project)):
        if wanted is not None:
            where.append(f"{column} = {binding.add(wanted, 'String')}")
    for wanted in labels:
        key, equals, value = wanted.partition("=")
        if not key:
            raise UsageError(f"a label filter is key or key=value, not {wanted[:60]!r}")
        bound = binding.add(key, "String")
        where.append(f"mapContains(labels, {bound})")
        if equals:
            where.append(f"labels[{bound}] = {binding.add(value, 'String')}")
    where += Period.of(since, until).sql("ts", binding)
    direction = "DESC" if descending else "ASC"
    first, second = ("step", "ts") if order == "step" else ("ts", "step")
    # Points without a step stand last either way; the origin makes the order complete.
    answer = store.query(
        f"SELECT step, ts, value FROM metrics WHERE {' AND '.join(where)} "
        f"ORDER BY {first} {direction} NULLS LAST, {second} {direction} NULLS LAST, "
        f"log_id, partition, origin, idx LIMIT {binding.add(limit, 'UInt32')}",
        binding.values,
    )
    steps, stamps, values = zip(*answer.rows, strict=True) if answer.rows else ((), (), ())
    return Series(name, steps, stamps, values)


def catalog(store: Store, *, project: str | None, experiments: Sequence[str]) -> list[CatalogEntry]:
    """Metric names and metadata keys by experiment. See ``Queries.catalog``."""
    if len(experiments) > MAX_CATALOG:
        raise UsageError(f"a catalog covers up to {MAX_CATALOG} experiments")
    binding = Binding()
    where = ["experiment != ''"]
    if project is not None:
        where.append(f"project = {binding.add(project, 'String')}")
    if experiments:
        where.append(f"experiment IN {binding.add(list(experiments), 'Array(String)')}")
    said = " AND ".join(where)
    answer = store.query(
        "SELECT project, experiment, arraySort(groupUniqArrayArray(names)), "
        "arraySort(groupUniqArrayArray(label_keys)), arraySort(groupUniqArrayArray(meta_keys)) "
        "FROM (SELECT project, experiment, groupUniqArray(toString(name)) AS names, "
        "groupUniqArrayArray(arrayMap(k -> toString(k), mapKeys(labels))) AS label_keys, "
        "emptyArrayString() AS meta_keys, max(ts) AS last_at FROM metrics "
        f"WHERE {said} GROUP BY project, experiment UNION ALL "
        "SELECT project, slug AS experiment, emptyArrayString(), emptyArrayString(), "
        "groupUniqArrayArray(JSONExtractKeys(meta)), max(ts) FROM experiments "
        f"WHERE {said} GROUP BY project, experiment) "
        "GROUP BY project, experiment ORDER BY max(last_at) DESC, project, experiment "
        f"LIMIT {binding.add(MAX_CATALOG, 'UInt32')}",
        binding.values,
    )
    return [CatalogEntry(*row) for row in answer.rows]


def experiments(
    store: Store,
    *,
    project: str | None,
    metadata: Sequence[str],
    text: str | None,
    limit: int,
) -> list[ExperimentRow]:
    """Experiments by metadata and text. See ``Queries.experiments``."""
    if not 1 <= limit <= 10_000:
        raise UsageError("the limit is 1 to 10000")
    binding = Binding()
    where = f"WHERE project = {binding.add(project, 'String')}" if project is not None else ""
    having = []
    if text:
        needle = binding.add(text, "String")
        having.append(
            f"(positionCaseInsensitiveUTF8(description_, {needle}) > 0 OR "
            "(project, slug) IN (SELECT project, experiment FROM annotations "
            f"WHERE positionCaseInsensitiveUTF8(text, {needle}) > 0))"
        )
    answer = store.query(
        "SELECT project, slug, argMaxIf(status, ts, status != '') AS status_, "
        "argMaxIf(description, ts, description != '') AS description_, "
        "argMaxIf(error_name, ts, status != '') AS error_name_, "
        "argMaxIf(error_detail, ts, status != '') AS error_detail_, "
        "arrayMap(x -> x.2, arraySort(groupArrayIf((ts, meta), meta != ''))) AS metas, "
        "min(ts) AS first_at, max(ts) AS last_at "
        f"FROM experiments {where} GROUP BY project, slug "
        f"{f'HAVING {having[0]}' if having else ''} ORDER BY last_at DESC, project, slug",
        binding.values,
    )
    rows = []
    for of, slug, status, description, error, detail, metas, first_at, last_at in answer.rows:
        merged = _merged(metas)
        if all(_has(merged, wanted) for wanted in metadata):
            rows.append(
                ExperimentRow(
                    of, slug, status, description, error, detail, merged, first_at, last_at
                )
            )
    return rows[:limit]


def _merged(metas: Sequence[str]) -> dict[str, object]:
    """Later statements win, key by key; what is no JSON object says nothing about keys."""
    merged: dict[str, object] = {}
    for text in metas:
        said = orjson.loads(text)
        if isinstance(said, dict):
            merged |= said
    return merged


def _has(metadata: Mapping[str, object], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    if key not in metadata:
        return False
    if not equals:
        return True
    held = metadata[key]
    return (held if isinstance(held, str) else orjson.dumps(held).decode()) == value
