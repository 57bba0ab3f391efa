"""``BudgetGuard``: stops calls before they are made, by limits of this process or of the fleet.

    guard = callmeter.BudgetGuard(llm, BudgetLimit("5", window="day"))     # this process
    guard = callmeter.BudgetGuard(llm, budget="team-a")                    # everybody's
    with guard: ...                # calls metered inside count; so do those of `guard(function)`

Sections: docs/guides/budgets.md, "Guards".
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from types import TracebackType
from typing import Any, Self, TypeVar

from callmeter.clock import Clock, SystemClock
from callmeter.errors import UsageError
from callmeter.money import from_pico
from callmeter.sdk import api
from callmeter.sdk.budget import wrap
from callmeter.sdk.budget.admission import Admission
from callmeter.sdk.budget.books import Books, Reserved
from callmeter.sdk.budget.calls import WATCH
from callmeter.sdk.budget.limit import (
    BudgetExceeded,
    BudgetWarning,
    Money,
    Refusal,
    money_pico,
)
from callmeter.sdk.budget.local import Limits, LocalBudget
from callmeter.sdk.budget.price import Worth, pricer
from callmeter.sdk.budget.scope import Facts
from callmeter.sdk.budget.shared import SharedBudget
from callmeter.sdk.circuit import DEFAULT_COOLDOWN_S, CircuitState
from callmeter.sdk.client import Client
from callmeter.sdk.containment import Complaints
from callmeter.sdk.context import FRAME

__all__ = [
    "BudgetExceeded",
    "BudgetGuard",
    "BudgetLimit",
    "BudgetWarning",
    "CircuitState",
    "Limits",
    "LocalBudget",
]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class BudgetLimit:
    """A limit of one process in USD and tokens; at least one amount is given.

    ``window``: ``session`` (the guard's life, or until ``reset``), or a calendar ``hour``, ``day``
    or ``month`` in UTC. ``max_cost_usd`` and ``max_tokens`` (input and output) hold for the window,
    ``per_user`` (USD) for each user in it, ``per_request`` (USD) for the estimate of one call.
    ``ValueError`` for an unknown window, a negative limit and what is no amount.

    >>> BudgetLimit("5", window="day", per_request="0.10")
    """

    max_cost_usd: Money | None = None
    window: str = "session"
    max_tokens: int | None = None
    per_request: Money | None = None
    per_user: Money | None = None

    def __post_init__(self) -> None:
        amounts = (self.max_cost_usd, self.max_tokens, self.per_request, self.per_user)
        if all(amount is None for amount in amounts):
            raise ValueError("a limit needs max_cost_usd, max_tokens, per_request or per_user")
        self.limits()

    def limits(self) -> Limits:
        """The same in pico-USD."""

        def pico(amount: Money | None) -> int | None:
            return None if amount is None else money_pico(amount)

        return Limits(
            pico(self.max_cost_usd),
            self.window,
            self.max_tokens,
            pico(self.per_request),
            pico(self.per_user),
        )


_BLOCKS: ContextVar[tuple[Admission, ...]] = ContextVar("callmeter_guard_blocks", default=())


class BudgetGuard:
    """Around any object with ``generate`` or ``stream`` (sync or async), around a function (also a
    tracked one), or around a block. Thread-safe; the call path never waits for I/O.

    ``limit``: a ``BudgetLimit`` of this process, or several. ``budget``: the name of a shared
    budget; its status is followed in the background from where the client sends to, and calls of
    this process that the status does not include yet are added. ``on_exceeded``: ``raise``
    ``BudgetExceeded`` before the call is made, or ``warn`` and let it pass. ``on_stale``: what to
    do while the shared status is cut off: ``allow`` goes by the last one, ``stop`` stops.
    ``estimate``: USD expected of a call, or a function of its arguments; else it is priced from the
    input's tokens and the output limit, else 0. ``user``, ``session``, ``provider`` and ``model``
    say what calls will be before they are made.

    ``ValueError`` for an unknown mode, ``UsageError`` for a shared budget without a client.
    """

    def __init__(
        self,
        llm: Any = None,
        limit: BudgetLimit | Sequence[BudgetLimit] | None = None,
        *,
        budget: str | None = None,
        on_exceeded: str = "raise",
        on_stale: str = "allow",
        cooldown_s: float = DEFAULT_COOLDOWN_S,
        estimate: Money | Callable[..., Money | None] | None = None,
        user: str = "",
        session: str = "",
        provider: str | None = None,
        model: str | None = None,
        client: Client | None = None,
        clock: Clock | None = None,
    ) -> None:
        if on_exceeded not in ("raise", "warn"):
            raise ValueError(f"on_exceeded is 'raise' or 'warn', not {on_exceeded!r}")
        if on_stale not in ("allow", "stop"):
            raise ValueError(f"on_stale is 'allow' or 'stop', not {on_stale!r}")
        if limit is None and budget is None:
            raise UsageError("a guard needs a limit, a shared budget's name, or both")
        self.llm = llm
        self.on_exceeded = on_exceeded
        self.estimate = estimate
        self._client = client
        self._clock: Clock = SystemClock() if clock is None else clock
        self._complaints = Complaints(self._clock.monotonic_s)
        self._about = {"user": user, "session": session, "provider": provider, "model": model}
        limits = [limit] if isinstance(limit, BudgetLimit) else list(limit or ())
        local = [
            LocalBudget(each.limits(), cooldown_s=cooldown_s, clock=self._clock) for each in limits
        ]
        shared = None if budget is None else _shared(budget, client, self._clock, cooldown_s)
        about = client or api.default_client()
        off = about is not None and about.settings.disabled
        self._books = Books(local, shared, stale_stops=on_stale == "stop" and not off)
        pricer()  # the book is read here, not in a call
        WATCH.start()

    # -- figures ---------------------------------------------------------------------------------

    @property
    def circuit_state(self) -> CircuitState:
        """``closed``, ``open`` or ``half_open``; of several limits the worst."""
        return self._books.circuit_state

    @property
    def spent(self) -> Decimal:
        """USD in the current window, of the first limit, or of the shared budget as known here."""
        if self._books.local:
            return from_pico(self._books.local[0].spent_pico)
        shared = self._books.shared
        return from_pico(0 if shared is None else shared.standing().spent)

    @property
    def tokens(self) -> int:
        """Tokens in the same window."""
        if self._books.local:
            return self._books.local[0].tokens
        return 0 if self._books.shared is None else self._books.shared.standing().tokens

    @property
    def shared(self) -> SharedBudget | None:
        """The shared budget as this process knows it."""
        return self._books.shared

    def spent_by(self, user: str) -> Decimal:
        """USD of one user in the current window of the first limit."""
        if not self._books.local:
            return Decimal(0)
        return from_pico(self._books.local[0].user_spent_pico(user))

    def reset(self) -> None:
        """Forget what this process's limits have counted, and close their circuits. A shared budget
        is reset with ``callmeter budget reset``.
        """
        for budget in self._books.local:
            budget.reset()

    def wait_ready(self, timeout_s: float = 5.0) -> bool:
        """Wait until the shared status was read once; for start-up and tests, never in a call."""
        shared = self._books.shared
        if shared is None:
            return True
        pause, deadline_s = threading.Event(), SystemClock().monotonic_s() + timeout_s
        while not shared.loaded and SystemClock().monotonic_s() < deadline_s:
            pause.wait(0.01)
        return shared.loaded

    # -- the call path ---------------------------------------------------------------------------

    def admit(self, estimate: Money | None = None, *, user: str = "") -> Admission:
        """A block, sync or async: entering it asks the budgets, calls inside count.

        >>> with guard.admit("0.02", user="alice"): ...
        """
        pico = 0 if estimate is None else money_pico(estimate)
        return Admission(self, self._books, pico, user or str(self._about["user"]))

    def check(self, estimate: Money | None = None, *, user: str = "") -> None:
        """Ask the budgets now and reserve nothing: ``BudgetExceeded`` or a warning."""
        self.admit(estimate, user=user).begin().end()

    def record(
        self, cost: Money = 0, tokens: int = 0, *, user: str = "", at: float | None = None
    ) -> None:
        """Count spend that no metered call tells of, against this process's limits; ``at`` is when
        the call began, in seconds since the epoch. Negative amounts are corrections.
        """
        at_us = self._clock.now_us() if at is None else round(at * 1e6)
        who = user or str(self._about["user"])
        self._books.record(Worth(money_pico(cost), tokens, at_us, who))

    def acting_for(self, user: str = "", session: str = "") -> BudgetGuard:
        """The same guard with the same sums, for the calls of a user or session."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__)
        about = {"user": user, "session": session}
        view._about = {**self._about, **{k: v for k, v in about.items() if v}}
        return view

    def ask(self, estimate_pico: int, user: str) -> Reserved | None:
        """What ``Admission.begin`` does: reserved, or ``BudgetExceeded``; None after a warning."""
        answer = self._books.admit(self._facts(user), estimate_pico)
        if isinstance(answer, Reserved):
            return answer
        self._refuse(answer)
        return None

    def _refuse(self, refusal: Refusal) -> None:
        error = refusal.error()
        if self.on_exceeded == "raise" and not refusal.warns_only:
            raise error
        self._complaints.warn(f"{error}; the call goes on")
        warnings.warn(str(error), BudgetWarning, stacklevel=2)

    def _facts(self, user: str) -> Facts:
        client = self._client or api.default_client()
        own, about = FRAME.get().labels.tags, self._about
        session = str(about["session"])
        if client is None:
            return Facts("", "", "", about["provider"], about["model"], user, session, own)
        settings = client.settings
        tags = {**settings.tags, **own} if settings.tags else own
        return Facts(
            settings.project, settings.environment, settings.service,
            about["provider"], about["model"], user, session, tags,
        )  # fmt: skip

    # -- around objects, functions and blocks ----------------------------------------------------

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """The model's ``generate``, if the budgets let it; awaitable if the model's is."""
        return wrap.generate(self, self.llm.generate, args, kwargs)

    def stream(self, *args: Any, **kwargs: Any) -> Any:
        """The model's ``stream``, if the budgets let it: asked when the first chunk is, counted
        when it ends. An async iterator if the model's is.
        """
        return wrap.stream(self, self.llm.stream, args, kwargs)

    def __call__(self, fn: F) -> F:
        """Guard a function, coroutine function or generator function; calls metered inside it
        count.

        >>> @guard
        ... @callmeter.track
        ... def answer(question): ...
        """
        return wrap.function(self, fn)

    def __enter__(self) -> Self:
        _BLOCKS.set((*_BLOCKS.get(), self.admit().__enter__()))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        blocks = _BLOCKS.get()
        mine = next((each for each in reversed(blocks) if each.guard is self), None)
        if mine is not None:
            _BLOCKS.set(tuple(each for each in blocks if each is not mine))
            mine.__exit__(kind, exc, tb)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.__exit__(kind, exc, tb)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "llm":  # copying asks before __init__ has run
            raise AttributeError(name)
        return getattr(self.llm, name)


def _shared(name: str, client: Client | None, clock: Clock, cooldown_s: float) -> SharedBudget:
    from callmeter.sdk.budget.following import shared_budget

    found = client or api.default_client()
    if found is None:
        raise UsageError(
            f"the shared budget {name!r} needs a client: callmeter.init(url) before the guard"
        )
    return shared_budget(found, name, clock, cooldown_s)
