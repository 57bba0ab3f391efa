"""How guards hear of calls: each that ends in this process, and where the log has it.

Nothing is watched until the first guard exists, so a program without guards pays nothing. Then a
call is told of right before it is queued: before it can be delivered, and before the caller's next
call is judged.
"""

from __future__ import annotations

import re
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from callmeter.sdk import lifecycle
from callmeter.sdk.budget.price import Worth, facts_of, is_model_call, worth_of
from callmeter.sdk.call import Call
from callmeter.sdk.call_ends import on_every_end
from callmeter.sdk.containment import CONTAINMENT
from callmeter.transports.protocol import Delivery

if TYPE_CHECKING:
    from callmeter.sdk.budget.shared import SharedBudget
    from callmeter.sdk.client import Client

#: Set in ``Call.extra`` once a call was counted: it may be ended twice.
_COUNTED = "counted"
_CALL_IDS = re.compile(rb'\n\{"kind":"call_end","ts_us":\d+,"call_id":"([0-9a-f-]{36})"')


class Admitted(Protocol):
    """A call or block that a guard lets through; see ``callmeter.sdk.budget.admission``."""

    def saw(self, worth: Worth) -> None:
        """A model call has ended inside."""


#: What is admitted around the current code, in this task or thread; the innermost last.
ADMITTED: ContextVar[tuple[Admitted, ...]] = ContextVar("callmeter_admitted", default=())


class CallWatch:
    """The shared budgets of each client, and the hooks. One for the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hooked = False
        self._budgets: dict[Client, list[SharedBudget]] = {}

    def start(self) -> None:
        """Watch calls from now on."""
        with self._lock:
            if not self._hooked:
                self._hooked = True
                on_every_end(self._ended)
                lifecycle.on_fork(self._forked)

    def follow(self, client: Client, budget: SharedBudget) -> None:
        """Tell a shared budget of the client's calls and deliveries."""
        with self._lock:
            self._budgets.setdefault(client, []).append(budget)
            self._listen(client)

    def leave(self, client: Client) -> None:
        """Tell the client's budgets of nothing any more."""
        with self._lock:
            self._budgets.pop(client, None)

    def _listen(self, client: Client) -> None:
        shipper = client._shipper
        if shipper is None:
            return
        budgets = self._budgets[client]

        def delivered(delivery: Delivery) -> None:
            if delivery.partition is None or delivery.offset is None:
                return
            ids = [found.decode() for found in _CALL_IDS.findall(delivery.envelope.data)]
            for budget in budgets:
                budget.delivered(ids, delivery.partition, delivery.offset)

        shipper.tell_deliveries(delivered)

    def _forked(self) -> None:
        self._lock = threading.Lock()
        for client in self._budgets:
            self._listen(client)

    def _ended(self, call: Call) -> None:
        admitted = ADMITTED.get()
        if not admitted and not self._budgets:
            return
        try:
            if not is_model_call(call) or (call.extra is not None and _COUNTED in call.extra):
                return
            call._extra()[_COUNTED] = True
            worth = worth_of(call)
            for each in admitted:
                each.saw(worth)
            for client, budgets in list(self._budgets.items()):
                if client.intake is call.intake:
                    facts = facts_of(call, client.settings)
                    for budget in budgets:
                        budget.ended(call.id, facts, worth.started_us, worth.pico, worth.tokens)
        except Exception as exc:  # noqa: BLE001  # the host's call ends whatever we cannot count
            CONTAINMENT.caught("a budget guard", exc)


WATCH = CallWatch()
