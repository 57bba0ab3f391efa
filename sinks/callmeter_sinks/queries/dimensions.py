"""Dimensions, filters and periods: from what a user typed to SQL with bound values.

Only text of this module ever reaches a statement. A dimension's name is looked up in a table; a
tag's key and every value travel as bound parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from callmeter.errors import UsageError
from callmeter.schema.events import MODEL_OPERATIONS

#: What reports call *calls*: sorted, so that statements are the same text every time.
MODEL_OPERATIONS_SQL = "({})".format(", ".join(f"'{name}'" for name in sorted(MODEL_OPERATIONS)))

#: Dimensions that rollups carry.
ROLLUP_DIMENSIONS = (
    "project",
    "environment",
    "service",
    "provider",
    "model",
    "operation",
    "phase",
    "status",
)
#: Windows, and how a start is cut to one.
WINDOWS: Mapping[str, str] = {
    "minute": "toStartOfMinute",
    "hour": "toStartOfHour",
    "day": "toStartOfDay",
}
#: Dimensions that only single calls carry: asking for one reads the raw tables.
RAW_DIMENSIONS = (
    "user",
    "session",
    "program",
    "node",
    "name",
    "response_model",
    "error_type",
    "finish_reason",
    "service_tier",
    "cost_source",
    "price_version",
)
_MAPS = {"tag": "tags", "attribute": "attributes"}

Filters = Mapping[str, str | Sequence[str]]


@dataclass
class Binding:
    """Collects bound values under names of its own making."""

    values: dict[str, Any] = field(default_factory=dict)

    def add(self, value: object, type_name: str) -> str:
        """The placeholder that stands for ``value`` in the statement."""
        name = f"p{len(self.values)}"
        self.values[name] = value
        return f"{{{name}:{type_name}}}"


@dataclass(frozen=True, slots=True)
class Dimension:
    """One thing to group or filter by; ``name`` is what the user typed and reads."""

    name: str
    kind: str  # "rollup", "window", "raw", "tags" or "attributes"
    key: str = ""  # of a tag or attribute

    @property
    def needs_calls(self) -> bool:
        """Whether only the raw tables know it."""
        return self.kind not in ("rollup", "window")

    def sql(self, binding: Binding) -> str:
        """The expression over a source that has the dimension's columns and ``start``."""
        if self.kind == "window":
            return f"{WINDOWS[self.name]}(start)"
        if self.kind in ("tags", "attributes"):
            return f"{self.kind}[{binding.add(self.key, 'String')}]"
        return f"`{self.name}`"


def dimension(name: str) -> Dimension:
    """``model``, ``hour``, ``user``, ``tag:team``, …; ``UsageError`` lists what there is."""
    if name in ROLLUP_DIMENSIONS:
        return Dimension(name, "rollup")
    if name in WINDOWS:
        return Dimension(name, "window")
    if name in RAW_DIMENSIONS:
        return Dimension(name, "raw")
    prefix, colon, key = name.partition(":")
    if colon and key and prefix in _MAPS:
        return Dimension(name, _MAPS[prefix], key)
    raise UsageError(
        f"no dimension {name[:60]!r}: there are {', '.join((*ROLLUP_DIMENSIONS, *WINDOWS))}, "
        f"{', '.join(RAW_DIMENSIONS)}, tag:KEY and attribute:KEY"
    )


def dimensions(names: Iterable[str]) -> list[Dimension]:
    """Several, each once."""
    found = [dimension(name) for name in names]
    if len({each.name for each in found}) != len(found):
        raise UsageError("a dimension is named twice")
    return found


def filter_sql(filters: Filters | None, binding: Binding) -> list[str]:
    """One condition a filter: the dimension is one of the values given."""
    conditions = []
    for name, wanted in (filters or {}).items():
        dim = dimension(name)
        if dim.kind == "window":
            raise UsageError(f"{name} is a window: give since and until")
        values = [wanted] if isinstance(wanted, str) else list(wanted)
        if not all(isinstance(value, str) for value in values):
            raise UsageError(f"the filter {name} is not text")
        conditions.append(f"{dim.sql(binding)} IN {binding.add(values, 'Array(String)')}")
    return conditions


def with_project(filters: Filters | None, project: str | None) -> dict[str, str | Sequence[str]]:
    """The filters with ``project`` among them; ``UsageError`` if it is given twice."""
    wanted = dict(filters or {})
    if project is not None:
        if "project" in wanted:
            raise UsageError("the project is given twice")
        wanted["project"] = project
    return wanted


@dataclass(frozen=True, slots=True)
class Period:
    """Half-open, in event time: from ``since``, before ``until``; None is without end. UTC."""

    since: datetime | None = None
    until: datetime | None = None

    @classmethod
    def of(cls, since: datetime | None, until: datetime | None) -> Period:
        """Both aware or None; ``UsageError`` otherwise, or if the end is not after the begin."""
        for moment in (since, until):
            if moment is not None and moment.tzinfo is None:
                raise UsageError("since and until need a time zone")
        if since is not None and until is not None and until <= since:
            raise UsageError("until is not after since")
        return cls(
            since.astimezone(UTC) if since else None, until.astimezone(UTC) if until else None
        )

    def in_minutes(self) -> Period:
        """Widened to whole minutes, the finest window of rollups."""
        since, until = self.since, self.until
        if since is not None:
            since = floor(since, _MINUTE)
        if until is not None:
            until = ceil(until, _MINUTE)
        return Period(since, until)

    def sql(self, column: str, binding: Binding) -> list[str]:
        """Conditions on a ``DateTime64(6)`` column.

        Of ``started_at`` also those on its hour, which follow from them: in the key of ``calls``
        the hour stands before the moment, and the engine derives neither from the other.
        """
        conditions = []
        for moment, comparison, whole in ((self.since, ">=", floor), (self.until, "<", ceil)):
            if moment is None:
                continue
            micros = binding.add(epoch_us(moment), "Int64")
            conditions.append(f"{column} {comparison} fromUnixTimestamp64Micro({micros}, 'UTC')")
            hour_s = epoch_us(whole(moment, _HOUR)) // 1_000_000
            if column.endswith("started_at") and hour_s in _DATETIMES_S:
                hour = f"toDateTime({binding.add(hour_s, 'UInt32')}, 'UTC')"
                conditions.append(f"toStartOfHour({column}) {comparison} {hour}")
        return conditions


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE = timedelta(minutes=1)
_HOUR = timedelta(hours=1)
_DAY = timedelta(days=1)
#: What a ``DateTime`` can say, seconds since the epoch.
_DATETIMES_S = range(2**32)
#: So many whole hours are read from minutes, if minutes are read anyway: a table more is looked at
#: part by part, which costs more than the rows of the minutes (docs/decisions/0022).
_FEW_HOURS = 12 * _HOUR


def epoch_us(moment: datetime) -> int:
    """Microseconds since the epoch, exact."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def floor(moment: datetime, step: timedelta) -> datetime:
    """The begin of the window of that length, counted from the epoch, that holds the moment."""
    return moment - (moment - _EPOCH) % step


def ceil(moment: datetime, step: timedelta) -> datetime:
    """The first begin of a window that is not before the moment."""
    return moment + (_EPOCH - moment) % step


def later(
    period: Period, kept_from: Mapping[str, datetime], tables: Iterable[str]
) -> tuple[Period, datetime | None]:
    """The part of a period in log time that retention left whole in every table.

    With it the moment before which something may be gone, None if nothing of the period is.
    """
    floor = max((kept_from[name] for name in tables if name in kept_from), default=None)
    if floor is None or (period.since is not None and period.since >= floor):
        return period, None
    return Period(floor, period.until), floor


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a period, read from the tables ``rollup_<suffix>`` and ``hist_<suffix>``."""

    suffix: str
    since: datetime | None
    until: datetime | None


def segments(
    period: Period, windows: Iterable[str] = (), *, minutes_from: datetime | None = None
) -> list[Segment]:
    """Cut a period of whole minutes so that each part is read from the coarsest rollup that fits.

    The middle comes from days, then hours, the edges from minutes; between days and minutes a few
    hours come from minutes too, if they are known to be kept: all since ``minutes_from`` are. A
    window that the answer is grouped by may not be coarser than its rollup: by ``hour`` nothing is
    read from days. Parts do not overlap, and together they are the period.
    """
    finest = set(windows)
    levels = [("1d", _DAY), ("1h", _HOUR), ("1m", _MINUTE)]
    if "minute" in finest:
        levels = levels[2:]
    elif "hour" in finest:
        levels = levels[1:]
    parts = _cut(period.since, period.until, levels)
    hours = [(p.since, p.until) for p in parts if p.suffix == "1h" and p.since and p.until]
    if (
        minutes_from is not None
        and len({part.suffix for part in parts}) == len(levels) == 3
        and all(since >= minutes_from for since, _ in hours)
        and sum((until - since for since, until in hours), timedelta(0)) <= _FEW_HOURS
    ):
        return _cut(period.since, period.until, [levels[0], levels[2]])
    return parts


def _cut(
    since: datetime | None, until: datetime | None, levels: Sequence[tuple[str, timedelta]]
) -> list[Segment]:
    if since is not None and until is not None and since >= until:
        return []
    (suffix, step), *finer = levels
    if not finer:
        return [Segment(suffix, since, until)]
    first = ceil(since, step) if since is not None else None
    last = floor(until, step) if until is not None else None
    if first is not None and last is not None and first >= last:
        return _cut(since, until, finer)
    parts = _cut(since, first, finer) if first is not None and since != first else []
    parts.append(Segment(suffix, first, last))
    if last is not None and last != until:
        parts += _cut(last, until, finer)
    return parts
