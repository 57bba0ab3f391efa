"""Sinks over a real Kafka, killed and stopped at any moment: what was sent is stored, once.

The log carries aborted transactions, duplicates of producers and bad lines all the while. Once two
sinks of a group share a store that is killed inside the engine; once a sink has the engine in its
own process and dies with it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from callmeter_sinks.backoff import Patience
from callmeter_sinks.clickhouse.opening import open_store
from callmeter_sinks.clickhouse.store import Store
from support.chaos import ChaosRun
from support.kafka_server import Broker
from support.metered_topic import Feeder, MeteredTopic
from support.sink_process import session_s
from support.store_host import RemoteStore, StoreHost
from support.stored import expected, stored
from support.talking_sink import TalkingSink

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(3600)]

PARTITIONS = 3
#: Of injecting, in the long run; the short one takes a tenth of it.
LONGEST_S = 2400.0
#: What the process said last, and the bounds of how long after it (milliseconds).
AIMS = {
    "killed before the intent": ("I", 0, 2),
    "killed around the intent": ("I", 2, 10),
    "killed after the intent": ("i", 0, 2),
    "killed inside the insert": ("L", 2, 80),
    "killed after the insert": ("l", 0, 3),
    "killed at random": ("", 0, 300),
}
STOPPED_BEFORE = "stopped beyond the session before the insert"
STOPPED_CHECK = "stopped beyond the session before the check"
STORE_KILLED = "store killed inside the engine"
IN_THE_LOG = ("aborted transactions", "producer duplicates", "bad lines", "bad envelopes")


def count_log(chaos: ChaosRun, topic: MeteredTopic) -> None:
    truth = topic.truth.counts
    chaos.count("aborted transactions", topic.aborted)
    chaos.count("producer duplicates", truth["duplicates"])
    chaos.count("bad lines", truth["refused"])
    chaos.count("bad envelopes", truth["refused_envelopes"])


def within(seconds: float, faults: Sequence[str]) -> Iterator[str]:
    """The faults in turn, no more once the time is over: a slow machine gets fewer."""
    until = time.monotonic() + seconds
    for kind in faults:
        if time.monotonic() > until:
            return
        yield kind


class Fleet:
    """Two sinks of one group over one store; a dead one is started again."""

    def __init__(self, url: str, host: StoreHost) -> None:
        self._url = url
        self._host = host
        self.sinks = [self._start(), self._start()]

    def _start(self) -> TalkingSink:
        return TalkingSink(self._url, self._host.name)

    def inject(self, kind: str, chaos: ChaosRun) -> None:
        """One fault on the member that the dice name."""
        index = chaos.random.randrange(2)
        sink = self.sinks[index]
        if kind == STORE_KILLED:
            delay_s = chaos.random.uniform(2, 80) / 1000
            sink.at("L", self._host.kill, delay_s=delay_s)
            self._host.start()
        elif kind in (STOPPED_BEFORE, STOPPED_CHECK):
            mark = "L" if kind == STOPPED_BEFORE else "i"
            sink.at(mark, lambda: sink.process.send_signal(signal.SIGSTOP))
            # The group gives its partitions to the other, which brings its range to an end.
            time.sleep(session_s() + chaos.random.uniform(0.5, 2.0))
            sink.process.send_signal(signal.SIGCONT)
        else:
            mark, low, high = AIMS[kind]
            delay_s = chaos.random.uniform(low, high) / 1000
            if mark:
                sink.at(mark, sink.kill, skip=chaos.random.randrange(3), delay_s=delay_s)
            else:
                time.sleep(delay_s)
                sink.kill()
            sink.close()
            self.sinks[index] = self._start()
        chaos.count(kind)

    def supervise(self) -> None:
        """A sink must not end by itself, whatever is done to it."""
        for sink in self.sinks:
            assert sink.process.poll() is None, sink.errors

    def stop(self) -> None:
        """By SIGTERM; one that was started just now may not hear it yet, and dies of it."""
        hearing = [sink for sink in self.sinks if "READY" in sink.said]
        for sink in self.sinks:
            sink.process.send_signal(signal.SIGTERM)
        for sink in self.sinks:
            code = sink.end()
            assert code == 0 or (sink not in hearing and code == -signal.SIGTERM), sink.errors


def moved(store: Store, fleet: Fleet, before: int) -> None:
    """Wait until somebody has got on: the next fault comes at a moment nobody chose."""
    deadline = time.monotonic() + 90
    while envelopes(store) <= before:
        fleet.supervise()
        assert time.monotonic() < deadline, [sink.errors for sink in fleet.sinks]
        time.sleep(0.05)


def envelopes(store: Store) -> int:
    """How many are stored; asked again if the connection is one to a store that was killed."""
    ask = Patience(threading.Event()).until_answered
    return int(ask(lambda: store.query("SELECT count() FROM envelopes")).rows[0][0])


def test_two_sinks_and_a_store_under_fire(
    quick_kafka: Broker, topic_prefix: str, tmp_path: Path, chaos: ChaosRun
) -> None:
    kinds = [*AIMS, STORE_KILLED, STOPPED_BEFORE, STOPPED_CHECK]
    chaos.expect(*kinds, *IN_THE_LOG)
    rounds = chaos.pick(short=1, long=20)
    faults = kinds * rounds + list(AIMS) * chaos.pick(short=1, long=5)
    chaos.random.shuffle(faults)
    topic = MeteredTopic(
        quick_kafka.bootstrap, topic_prefix, partitions=PARTITIONS, seed=chaos.seed
    )
    with StoreHost(tmp_path / "store", tmp_path / "s") as host:
        store = RemoteStore(host.address)
        fleet = Fleet(topic.url, host)
        try:
            with Feeder(topic, chaos.random):
                for kind in within(LONGEST_S, faults):
                    moved(store, fleet, envelopes(store))
                    fleet.inject(kind, chaos)
            fleet.stop()
        finally:
            for sink in fleet.sinks:
                sink.close()
        drain(topic.url, host.name)
        store.close()  # its connection may be one to a store that was killed
        assert stored(store) == expected(topic.truth)
        claims = store.query("SELECT max(generation) FROM sink_claims").rows[0][0]
        store.close()
    assert (
        claims > sum(chaos.injected[kind] for kind in kinds) // PARTITIONS
    )  # partitions did change hands
    count_log(chaos, topic)


def test_a_sink_that_dies_with_its_engine(
    quick_kafka: Broker, topic_prefix: str, tmp_path: Path, chaos: ChaosRun
) -> None:
    chaos.expect(*AIMS, *IN_THE_LOG)
    faults = list(AIMS) * chaos.pick(short=1, long=13)
    chaos.random.shuffle(faults)
    where = tmp_path / "store"
    topic = MeteredTopic(
        quick_kafka.bootstrap, topic_prefix, partitions=PARTITIONS, seed=chaos.seed
    )
    phantoms = 0
    for kind in within(LONGEST_S / 2, faults):
        for _ in range(4):
            for partition in range(PARTITIONS):
                topic.checkpoint(partition)
            topic.abort(chaos.random.randrange(PARTITIONS))
        sink = TalkingSink(topic.url, str(where))
        mark, low, high = AIMS[kind]
        delay_s = chaos.random.uniform(low, high) / 1000
        try:
            # Drawn at random from when it opens the store on.
            skip = chaos.random.randrange(3) if mark else 0
            sink.at(mark or "REPAIRED", sink.kill, skip=skip, delay_s=delay_s)
        finally:
            sink.close()
        chaos.count(kind)
        phantoms += repaired(sink)
    phantoms += repaired(drain(topic.url, str(where)))
    print(f"{phantoms} phantoms repaired")
    count_log(chaos, topic)
    store = open_store(f"chdb:{where}")
    try:
        assert stored(store) == expected(topic.truth)
    finally:
        store.close()


def drain(log: str, store: str) -> TalkingSink:
    """A last sink that stores the rest; it has ended."""
    last = TalkingSink(log, store, "--drain")
    try:
        assert last.end(240) == 0, last.errors
        assert "DONE" in last.said
    finally:
        last.close()
    return last


def repaired(sink: TalkingSink) -> int:
    return sum(int(word.split()[1]) for word in sink.said if word.startswith("REPAIRED"))
