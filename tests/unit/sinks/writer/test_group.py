"""Sinks that run together end together."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from callmeter_sinks.group import SinkGroup
from callmeter_sinks.sink import Sink
from callmeter_sinks.stats import SinkStats
from callmeter_sinks.thread import SinkThread


class Standin:
    """Runs until it is stopped, or fails at once."""

    def __init__(self, topic: str, *, events: int = 0, fails: bool = False) -> None:
        self.topic = topic
        self.stats = SinkStats(events=events)
        self.drained = 0
        self.stopped = threading.Event()
        self._fails = fails

    def run(self) -> SinkStats:
        if self._fails:
            raise ValueError(self.topic)
        assert self.stopped.wait(60)
        return self.stats

    def drain(self) -> SinkStats:
        self.drained += 1
        return self.stats

    def end(self) -> None:
        self.drain()
        self.stopped.set()

    def stop(self) -> None:
        self.stopped.set()


def group(*sinks: Any) -> SinkGroup:
    return SinkGroup([cast(Sink, sink) for sink in sinks])


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_what_ends_one_ends_all(failing: int) -> None:
    sinks = [Standin(f"t{n}", fails=n == failing) for n in range(3)]
    with pytest.raises(ValueError, match=f"t{failing}"):
        group(*sinks).run()
    assert all(sink.stopped.is_set() for sink in sinks)


def test_stopping_ends_all_and_the_first_one_counts() -> None:
    sinks = [Standin("metered", events=7), Standin("alerts", events=2)]
    together = group(*sinks)
    threading.Timer(0.0, together.stop).start()
    assert together.run().events == 7


def test_draining_drains_each() -> None:
    sinks = [Standin("metered", events=7), Standin("alerts")]
    assert group(*sinks).drain().events == 7
    assert [sink.drained for sink in sinks] == [1, 1]


def test_a_thread_of_a_group_says_what_made_it_fail() -> None:
    thread = SinkThread(group(Standin("metered"), Standin("alerts", fails=True)))
    thread.start()
    with pytest.raises(ValueError, match="alerts"):
        thread.stop()


def test_a_thread_that_is_stopped_has_each_sink_drain_first() -> None:
    sinks = [Standin("metered"), Standin("alerts")]
    thread = SinkThread(group(*sinks))
    thread.start()
    thread.stop()
    assert [sink.drained for sink in sinks] == [1, 1]
    assert thread.failed is None
