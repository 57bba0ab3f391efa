"""Hearing of every call that ends, for budget guards."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from callmeter.sdk.call import Call


def on_every_end(tell: Callable[[Call], None]) -> None:
    """From now on hear of every call of this process that ends, right before it is queued.

    On the thread that ends it; ``tell`` must not raise. A call that is ended twice is told twice.
    There is no hook in the calls of a program that never asks for one: it would cost each of them.
    """
    leave, leave_async = Call.__exit__, Call.__aexit__

    def told(
        self: Call,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        tell(self)
        leave(self, kind, exc, tb)

    async def told_async(
        self: Call,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        tell(self)
        await leave_async(self, kind, exc, tb)

    for name, method in (("__exit__", told), ("__aexit__", told_async)):
        setattr(Call, name, method)
