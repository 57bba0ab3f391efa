"""The shared budgets that this process follows: one of a name and client, whoever guards by it."""

from __future__ import annotations

import threading

from callmeter.clock import Clock
from callmeter.errors import ConfigError
from callmeter.sdk import lifecycle
from callmeter.sdk.budget.calls import WATCH
from callmeter.sdk.budget.follower import Follower, feed_for
from callmeter.sdk.budget.shared import SharedBudget
from callmeter.sdk.client import Client
from callmeter.sdk.containment import logger


class _Followed:
    """The one table of a process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.budgets: dict[tuple[Client, str], tuple[SharedBudget, Follower]] = {}

    def forked(self) -> None:
        """In a forked child: threads are the parent's, what was known is a good beginning."""
        self.lock = threading.Lock()
        for budget, follower in self.budgets.values():
            budget.forked()
            follower.start()


_followed = _Followed()
lifecycle.on_fork(_followed.forked)


def shared_budget(client: Client, name: str, clock: Clock, cooldown_s: float) -> SharedBudget:
    """The budget of this name as the client's backend tells of it; followed from now on.

    A client that sends to neither a collector nor Kafka is told of nothing: its budgets are as if
    cut off, with one line in the log unless the client is disabled.
    """
    with _followed.lock:
        found = _followed.budgets.get((client, name))
        if found is not None:
            return found[0]
        budget = SharedBudget(name, clock, cooldown_s)
        if client.settings.disabled:
            return budget
        try:
            follower = Follower(budget, feed_for(client))
        except ConfigError as exc:
            logger.warning("budget %r is not followed: %s", name, exc)
            return budget
        _followed.budgets[client, name] = budget, follower
    WATCH.follow(client, budget)
    follower.start()
    return budget


def unfollow(client: Client) -> None:
    """End following for a client; its guards then go by what they know, as when cut off."""
    with _followed.lock:
        gone = [key for key in _followed.budgets if key[0] is client]
        followers = [_followed.budgets.pop(key)[1] for key in gone]
    for follower in followers:
        follower.stop()
    WATCH.leave(client)


lifecycle.on_close(unfollow)
