"""One call or block that a guard lets through: from the check to what it has cost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Token
from types import TracebackType
from typing import TYPE_CHECKING, Self

from callmeter.sdk.budget.calls import ADMITTED, Admitted
from callmeter.sdk.budget.price import Worth

if TYPE_CHECKING:
    from callmeter.sdk.budget.books import Books, Reserved
    from callmeter.sdk.budget.guard import BudgetGuard


class Admission:
    """A context manager, sync and async: model calls that end inside count against the guard.

    Entering it asks the budgets and raises ``BudgetExceeded``; leaving it frees what was reserved.
    """

    def __init__(self, guard: BudgetGuard, books: Books, estimate: int, user: str) -> None:
        self.guard = guard
        self._books = books
        self._estimate = estimate
        self._user = user
        self._reserved: Reserved | None = None
        self._token: Token[tuple[Admitted, ...]] | None = None
        self._lock = threading.Lock()
        #: Model calls that have ended inside.
        self.calls = 0

    def begin(self) -> Self:
        """Ask the budgets: ``BudgetExceeded``, or their estimate is reserved until ``end``."""
        self._reserved = self.guard.ask(self._estimate, self._user)
        return self

    def end(self) -> None:
        """Free what was reserved; what was spent is recorded already."""
        reserved, self._reserved = self._reserved, None
        if reserved is not None:
            self._books.release(reserved)

    def saw(self, worth: Worth) -> None:
        """A model call has ended inside."""
        with self._lock:
            self.calls += 1
        # Inside a second block of the same guard it is that block's: counted once.
        around = [a for a in ADMITTED.get() if isinstance(a, Admission) and a._books is self._books]
        if not around or around[-1] is self:
            self._books.record(worth._replace(user=worth.user or self._user))

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Run a part of the call, for example one step of a stream, inside."""
        token = ADMITTED.set((*ADMITTED.get(), self))
        try:
            yield
        finally:
            ADMITTED.reset(token)

    def __enter__(self) -> Self:
        self.begin()
        self._token = ADMITTED.set((*ADMITTED.get(), self))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        token, self._token = self._token, None
        try:
            if token is not None:
                ADMITTED.reset(token)
        except ValueError:
            # Left by another task or the garbage collector: there is nothing to put back here.
            self._token = None
        finally:
            self.end()

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.__exit__(kind, exc, tb)
