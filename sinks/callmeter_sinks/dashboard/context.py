"""What every page works with: the dashboard's parts, and one request for a page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from aiohttp import web

from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.dashboard.access import Reader, Sessions
from callmeter_sinks.dashboard.changes import Changes
from callmeter_sinks.dashboard.lag import EndsOf
from callmeter_sinks.dashboard.reading import Reading
from callmeter_sinks.dashboard.verifying import Verifying
from callmeter_sinks.dashboard.view import View

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Dashboard:
    """The parts of one server. ``ends`` is None where no log is at hand."""

    reading: Reading
    sessions: Sessions
    changes: Changes
    verifying: Verifying
    ends: EndsOf | None
    now: Callable[[], datetime]
    look: Callable[[], Awaitable[str]]


DASHBOARD: web.AppKey[Dashboard] = web.AppKey("callmeter_dashboard", Dashboard)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request for a page by somebody who may see it."""

    dashboard: Dashboard
    request: web.Request
    reader: Reader
    view: View
    now: datetime

    async def read(self, name: str, question: Callable[[Store], T], *key: Hashable) -> T:
        """Ask the store about this view; ``key`` is whatever else the answer depends on.

        The question gets the store; ``self.dashboard.reading.queries`` asks by its methods.
        """
        reading = self.dashboard.reading
        return await reading.ask(
            (name, *key, *self.view.key()), lambda queries: question(queries.store)
        )

    async def query(self, method: str, *key: Hashable, **arguments: Any) -> Any:
        """Ask one of ``Queries``' methods; ``key`` tells apart calls with other arguments."""
        reading = self.dashboard.reading
        question = partial(getattr(reading.queries, method), **arguments)
        return await reading.ask((method, *key, *self.view.key()), lambda _: question())


@dataclass(frozen=True, slots=True)
class Page:
    """A template and what it is filled with."""

    template: str
    context: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200


PageMaker = Callable[[Asked], Awaitable[Page | web.StreamResponse]]
