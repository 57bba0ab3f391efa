"""Metric curves of several runs at once, thinned to what a screen shows, and notes beside them."""

# ruff: noqa: S608 - only text of this package is put together; every value is bound

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.queries.dimensions import Binding

#: Points that one line keeps, by largest triangles (Steinarsson 2013, "Downsampling time series").
POINTS = 400
#: Lines that are read at most; charts show the ones with most points.
_MOST_LINES = 400
_MOST_NOTES = 60

Axis = Literal["step", "time"]
Run = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Curve:
    """One line: a metric of one run, and the value of the label that it is split by.

    ``points`` are (x, value) in the order of x: steps, or seconds since the epoch. ``number`` is
    how many points there are, of which these were kept. ``last`` is the value at the highest x.
    """

    run: Run
    name: str
    label: str
    points: Sequence[tuple[float, float]]
    number: int
    least: float
    most: float
    last: float


@dataclass(frozen=True, slots=True)
class Annotation:
    """A note about a run; ``step`` is the last one that was told before it, None if none was."""

    run: Run
    at: datetime
    text: str
    step: int | None


def curves(
    store: Store, runs: Sequence[Run], names: Sequence[str], split: str, x: Axis
) -> list[Curve]:
    """Curves of the metrics ``names`` of the runs (project, slug), one for each value of ``split``.

    By step, points without one are left out; empty ``split`` joins all labels to one line.
    """
    if not runs or not names:
        return []
    binding = Binding()
    where = [_of(runs, binding)]
    where.append(f"name IN {binding.add(list(names), 'Array(String)')}")
    at = "toFloat64(step)" if x == "step" else "toUnixTimestamp64Micro(ts) / 1e6"
    if x == "step":
        where.append("step IS NOT NULL")
    label = f"labels[{binding.add(split, 'String')}]" if split else "''"
    answer = store.query(
        "SELECT project, experiment, toString(name) AS n, label, "
        f"largestTriangleThreeBuckets({POINTS})(x, value) AS points, count() AS number, "
        "min(value), max(value), argMax(value, (x, ts)) FROM ("
        f"SELECT project, experiment, name, toString({label}) AS label, assumeNotNull({at}) AS x, "
        f"value, ts FROM metrics WHERE {' AND '.join(where)}) "
        "GROUP BY project, experiment, n, label "
        f"ORDER BY number DESC, project, experiment, n, label LIMIT {_MOST_LINES}",
        binding.values,
    )
    return [
        Curve((project, slug), name, said, points, number, least, most, last)
        for project, slug, name, said, points, number, least, most, last in answer.rows
    ]


def notes(store: Store, runs: Sequence[Run]) -> list[Annotation]:
    """The newest notes about the runs, oldest of them first."""
    if not runs:
        return []
    binding = Binding()
    mine = _of(runs, binding)
    answer = store.query(
        "SELECT a.project, a.experiment, a.ts, a.text, "
        "if(m.ts = toDateTime64(0, 6, 'UTC'), NULL, m.step) FROM ("
        f"SELECT project, experiment, ts, text FROM annotations WHERE {mine} "
        f"ORDER BY ts DESC LIMIT {_MOST_NOTES}) AS a ASOF LEFT JOIN ("
        "SELECT project, experiment, ts, toInt64(assumeNotNull(step)) AS step FROM metrics "
        f"WHERE {mine} AND step IS NOT NULL) AS m "
        "ON a.project = m.project AND a.experiment = m.experiment AND a.ts >= m.ts "
        "ORDER BY a.ts",
        binding.values,
    )
    return [
        Annotation((project, slug), at, text, step) for project, slug, at, text, step in answer.rows
    ]


def _of(runs: Sequence[Run], binding: Binding) -> str:
    """Condition: the row is of one of the runs. Pairs travel as two arrays of equal length."""
    projects = binding.add([run[0] for run in runs], "Array(String)")
    slugs = binding.add([run[1] for run in runs], "Array(String)")
    return f"has(arrayZip({projects}, {slugs}), (toString(project), toString(experiment)))"
