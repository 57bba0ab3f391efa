"""Questions about what is stored, for collectors that have a store beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

from aiohttp import web

from callmeter.collector.context import ApiError
from callmeter.errors import CallmeterError, UnreachableError, UsageError

_T = TypeVar("_T")


class ReadStore(Protocol):
    """A store that is asked with bound parameters; blocks."""

    def query(self, sql: str, params: Mapping[str, Any] | None = None) -> Any:
        """An object with ``rows``."""
        ...


class Reader(Protocol):
    """What ``callmeter_sinks.queries.Queries`` offers of experiments; blocks, any thread.

    Rows are that package's own: read by attribute, so that a collector need not have it installed.
    """

    @property
    def store(self) -> ReadStore: ...

    def experiments(self, *, project: str | None = None, limit: int = 100) -> Sequence[Any]: ...

    def catalog(
        self, *, project: str | None = None, experiments: Sequence[str] = ()
    ) -> Sequence[Any]: ...

    def series(
        self,
        name: str,
        *,
        experiment: str | None = None,
        project: str | None = None,
        labels: Sequence[str] = (),
        order: Literal["step", "timestamp"] = "step",
        descending: bool = False,
        limit: int = 100_000,
    ) -> Any: ...


READER: web.AppKey[Reader] = web.AppKey("callmeter_reader", Reader)


def reader_of(request: web.Request) -> Reader:
    """The collector's reader; ``ApiError`` 501 where there is no store beside it."""
    reader = request.app.get(READER)
    if reader is None:
        raise ApiError(501, "no_store", "this collector has no store to ask")
    return reader


async def ask(question: Callable[[], _T]) -> _T:
    """Run a question on a thread; its errors become answers."""
    try:
        return await asyncio.to_thread(question)
    except UsageError as exc:
        raise ApiError(400, "bad_value", str(exc)) from None
    except UnreachableError as exc:
        raise ApiError(503, "store_unreachable", str(exc), retry_after_s=1) from None
    except CallmeterError as exc:
        raise ApiError(500, "store", str(exc)) from None
