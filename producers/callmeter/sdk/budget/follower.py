"""Follows a shared budget's status on a thread of its own: from a collector, or from Kafka."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from callmeter.errors import ConfigError
from callmeter.sdk.budget.feed import Feed
from callmeter.sdk.budget.http_feed import HttpFeed
from callmeter.sdk.containment import Complaints

if TYPE_CHECKING:
    from callmeter.sdk.budget.shared import SharedBudget
    from callmeter.sdk.client import Client

#: Its own: a program that seeds the global one gets the numbers it would get without us.
_random = random.Random()
_FIRST_PAUSE_S = 0.1
_MAX_PAUSE_S = 5.0


class Follower:
    """The thread: follows for ever, with growing pauses while the source is away."""

    def __init__(self, budget: SharedBudget, open_feed: Callable[[], Feed]) -> None:
        self._budget = budget
        self._open_feed = open_feed
        self._complaints = Complaints()
        self._ended = threading.Event()
        self._feed: Feed | None = None

    def start(self) -> None:
        """Start following; in a forked child too, where the parent's thread does not exist."""
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="callmeter-budget", daemon=True).start()

    def stop(self) -> None:
        """End following, soon."""
        self._ended.set()
        feed = self._feed
        if feed is not None:
            feed.stop()

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._ended.is_set():
            before = self._budget.loaded
            try:
                self._feed = self._open_feed()
                self._feed.follow(self._budget)
                pause_s = _FIRST_PAUSE_S
            except Exception as exc:  # noqa: BLE001  # the thread must outlive any one trouble
                what = str(exc) or type(exc).__name__
                self._complaints.warn(f"the status of budget {self._budget.name!r}: {what}")
            if self._budget.loaded and not before:
                pause_s = _FIRST_PAUSE_S
            self._ended.wait(pause_s * (0.5 + _random.random() / 2))
            pause_s = min(_MAX_PAUSE_S, pause_s * 2)


def feed_for(client: Client) -> Callable[[], Feed]:
    """Opens what the client's URL has: a collector's stream or Kafka's topics."""
    url = client.url or ""
    if url.startswith(("http://", "https://")):
        return lambda: HttpFeed(client)
    if url.startswith("kafka"):
        from callmeter.sdk.budget.kafka_feed import KafkaFeed

        prefix = client.settings.prefix
        return lambda: KafkaFeed(url, prefix)
    raise ConfigError("a shared budget needs a collector or Kafka: callmeter.init(url) first")
