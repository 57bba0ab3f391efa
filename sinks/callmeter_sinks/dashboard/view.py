"""What a page shows, as its URL says: time range, project and filters. A link is a view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import quote, urlencode

from multidict import MultiMapping

from callmeter.errors import UsageError
from callmeter_sinks.dashboard.access import Reader
from callmeter_sinks.queries.dimensions import dimension

Window = Literal["minute", "hour", "day"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STEPS: Mapping[Window, timedelta] = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
}
#: Ranges that end now: how long, by which window, and their name. They begin with a whole window.
RANGES: Mapping[str, tuple[timedelta, Window, str]] = {
    "15m": (timedelta(minutes=15), "minute", "Last 15 minutes"),
    "1h": (timedelta(hours=1), "minute", "Last hour"),
    "6h": (timedelta(hours=6), "minute", "Last 6 hours"),
    "24h": (timedelta(hours=24), "hour", "Last 24 hours"),
    "7d": (timedelta(days=7), "hour", "Last 7 days"),
    "30d": (timedelta(days=30), "day", "Last 30 days"),
    "90d": (timedelta(days=90), "day", "Last 90 days"),
}
ALL = "all"
CUSTOM = "custom"
DEFAULT_RANGE = "24h"
#: Dimensions that the form offers; ``tag:KEY`` may stand in a URL besides.
FILTERS = ("service", "model", "provider", "environment", "status", "user", "session", "error_type")
_MAX_VALUES = 20
_MAX_TEXT = 512


@dataclass(frozen=True, slots=True)
class View:
    """One request's view. ``since`` and ``until`` are aware and half-open, None without end."""

    range: str
    window: Window
    since: datetime | None
    until: datetime | None
    project: str | None
    filters: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, query: MultiMapping[str], reader: Reader, now: datetime) -> View:
        """From a URL's query. ``UsageError`` in one line for what makes no sense.

        A reader of some projects looks at one of them at a time, the first unless the URL names
        another; one that is not theirs is refused like one that does not exist: it is empty.
        """
        since, until = _moment(query.get("since")), _moment(query.get("until"))
        chosen = query.get("range") or DEFAULT_RANGE
        window: Window
        if since is not None or until is not None:
            chosen, window = CUSTOM, window_for(since, until or now)
            if since is not None and until is not None and until <= since:
                raise UsageError("the end of the time range is not after its begin")
        elif chosen == ALL:
            window = "day"
        elif chosen in RANGES:
            length, window, _ = RANGES[chosen]
            since = floor(now, window) - length
        else:
            raise UsageError(f"no time range {chosen[:40]!r}: there are {', '.join(RANGES)}, all")
        return cls(chosen, window, since, until, _project(query, reader), _filters(query))

    @property
    def title(self) -> str:
        """The range in words."""
        if self.range in RANGES:
            return RANGES[self.range][2]
        return "All time" if self.range == ALL else "Chosen time"

    def asked(self) -> dict[str, object]:
        """Keyword arguments of ``Queries``."""
        return {
            "since": self.since,
            "until": self.until,
            "project": self.project,
            "filters": self.filters,
        }

    def key(self) -> tuple[object, ...]:
        """Equal for views that show the same."""
        filters = tuple((name, tuple(values)) for name, values in sorted(self.filters.items()))
        return (self.range, self.window, self.since, self.until, self.project, filters)

    def url(self, path: str, *, drop: Sequence[str] = (), **changes: str | None) -> str:
        """A link that keeps this view but for the changes; ``filter_NAME`` adds a filter."""
        pairs: list[tuple[str, str]] = []
        if self.range == CUSTOM:
            for name, moment in (("since", self.since), ("until", self.until)):
                if moment is not None and "range" not in changes:
                    pairs.append((name, moment.isoformat().replace("+00:00", "Z")))
        elif self.range != DEFAULT_RANGE and "range" not in changes:
            pairs.append(("range", self.range))
        if self.project is not None and "project" not in changes:
            pairs.append(("project", self.project))
        for name, values in self.filters.items():
            if name not in drop:
                pairs += [(name, value) for value in values]
        for name, value in changes.items():
            if value is not None:
                pairs.append((name.removeprefix("filter_"), value))
        text = urlencode(pairs, quote_via=quote)
        return f"{path}?{text}" if text else path

    def only(self, path: str, name: str, value: str) -> str:
        """A link to this view with one filter set to one value."""
        return self.url(path, drop=(name,), **{f"filter_{name}": value})


def window_for(since: datetime | None, until: datetime) -> Window:
    """The window that shows a span with some ten to some hundred points."""
    span = until - (since or _EPOCH)
    if span <= timedelta(hours=6):
        return "minute"
    return "hour" if span <= timedelta(days=8) else "day"


def floor(moment: datetime, window: Window) -> datetime:
    """The begin of the window that holds the moment, UTC."""
    moment = moment.astimezone(UTC)
    return moment - (moment - _EPOCH) % STEPS[window]


def starts(window: Window, first: datetime, last: datetime, most: int = 1500) -> list[datetime]:
    """The begins of all windows from ``first``'s to ``last``'s; the newest ``most`` of them."""
    begin, end, step = floor(first, window), floor(last, window), STEPS[window]
    count = (end - begin) // step + 1
    skipped = max(count - most, 0)
    return [begin + step * place for place in range(skipped, count)]


def _project(query: MultiMapping[str], reader: Reader) -> str | None:
    wanted = _text(query.get("project"))
    if reader.projects is None:
        return wanted or None
    if wanted:
        # Project names are not empty, so this one shows nothing, as an unknown project does.
        return wanted if reader.covers(wanted) else ""
    return min(reader.projects, default="")


def _filters(query: MultiMapping[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in query:
        if name in FILTERS or name.startswith("tag:"):
            dimension(name)
            values = [_text(value) for value in query.getall(name) if value]
            if values:
                found[name] = list(dict.fromkeys(values))[:_MAX_VALUES]
    return found


def _text(value: str | None) -> str:
    if value is not None and len(value) > _MAX_TEXT:
        raise UsageError(f"a value in the address is longer than {_MAX_TEXT} characters")
    # Half a surrogate pair cannot be sent to the store; no producer's text holds one either.
    return (value or "").encode("utf-8", "replace").decode()


def _moment(value: str | None) -> datetime | None:
    if not value:
        return None
    try:
        moment = datetime.fromisoformat(value)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        utc = aware.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(f"{value[:40]!r} is no time: write 2026-11-01T12:00 (UTC)") from None
    if not 1970 <= utc.year <= 2100:
        raise UsageError("a time lies between 1970 and 2100")
    return utc
