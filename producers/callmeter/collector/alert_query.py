"""What a request to ``/v1/alerts`` asks for, checked."""

from __future__ import annotations

import re
from dataclasses import dataclass

from aiohttp import web

from callmeter.collector.context import ApiError, require_read
from callmeter.errors import DataError
from callmeter.log.place import Place, decode_place

MAX_ALERTS = 500
DEFAULT_ALERTS = 100
#: Longer than proxies wait for a first byte would be of no use.
MAX_WAIT_S = 30

_AGO = re.compile(r"([0-9]{1,9})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SINGLE = ("after", "since", "limit", "wait")


@dataclass(frozen=True, slots=True)
class AlertQuery:
    """From where, how many, how long to wait; ``projects`` empty chooses nothing."""

    after: Place | None
    since: str
    limit: int
    wait_s: int
    projects: frozenset[str]

    @classmethod
    def of(cls, request: web.Request) -> AlertQuery:
        """What the request says; ``ApiError`` 400, and 403 for a project that its key has not."""
        query = request.query
        for name in _SINGLE:
            if len(query.getall(name, ())) > 1:
                raise ApiError(400, "bad_value", f"{name!r} is there twice")
        given, since = query.get("after"), query.get("since", "")
        if given is not None and since:
            raise ApiError(400, "bad_value", "give 'after' or 'since', not both")
        if since and not _AGO.fullmatch(since):
            _number("since", since, 2**62)
        try:
            after = None if given is None else decode_place(given)
        except DataError as exc:
            raise ApiError(400, "bad_position", str(exc)) from None
        grant = require_read(request)
        projects = frozenset(query.getall("project", ()))
        for project in sorted(projects):
            if not grant.covers(project):
                raise ApiError(
                    403, "project", f"this key does not cover the project {project[:256]!r}"
                )
        return cls(
            after,
            since,
            _number("limit", query.get("limit", str(DEFAULT_ALERTS)), MAX_ALERTS),
            _number("wait", query.get("wait", "0"), MAX_WAIT_S),
            projects,
        )

    def since_us(self, now_us: int) -> int | None:
        """The time of ``since`` in µs since the epoch; None if it was not given."""
        if not self.since:
            return None
        ago = _AGO.fullmatch(self.since)
        return now_us - int(ago[1]) * _SECONDS[ago[2]] * 1_000_000 if ago else int(self.since)


def _number(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and int(text) <= most):
        raise ApiError(400, "bad_value", f"{name!r} is a whole number up to {most}")
    return int(text)
