"""Whatever the transport does: accepted = delivered + dropped + pending, and nothing comes
twice.
"""

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from callmeter import Client, Settings
from callmeter.schema.envelope import decode_header, split_lines
from callmeter.testing import ManualClock, raising
from callmeter.transports.protocol import Delivery, Outcome, Report, Sealed


class Whimsical:
    """A transport driven by hypothesis: full, slow, failing, refusing, delivering late."""

    name = "whimsical"

    def __init__(self) -> None:
        self.report: Report | None = None
        self.flying: deque[Sealed] = deque()
        self.got: dict[int, bytes] = {}
        self.full = False

    def open(self, report: Report) -> None:
        self.report = report

    def send(self, envelope: Sealed) -> bool:
        if self.full:
            return False
        self.flying.append(envelope)
        return True

    def poll(self, timeout_s: float) -> None:
        """Reports come when the test says so."""

    def close(self, timeout_s: float) -> None:
        while self.flying:
            self.settle(Outcome.RETRY, reached=False)

    def settle(self, outcome: Outcome, *, reached: bool) -> None:
        """Report on the oldest envelope; ``reached`` is whether the log has it (a lost answer)."""
        if not self.flying or self.report is None:
            return
        envelope = self.flying.popleft()
        if outcome is Outcome.DELIVERED or (outcome is Outcome.RETRY and reached):
            before = self.got.setdefault(envelope.seq, envelope.data)
            assert before == envelope.data, "bytes changed after the seq was given"
        self.report(Delivery(envelope, outcome, error=str(outcome)))


ACTIONS = st.one_of(
    st.tuples(st.just("emit"), st.integers(1, 120)),
    st.tuples(st.just("big"), st.integers(1, 3)),
    st.tuples(st.just("huge"), st.just(1)),
    st.tuples(st.just("unencodable"), st.just(1)),
    st.tuples(st.just("step"), st.integers(1, 3)),
    st.tuples(st.just("advance"), st.sampled_from([0.1, 0.3, 5.0, 60.0])),
    st.tuples(st.just("delivered"), st.integers(1, 5)),
    st.tuples(st.just("lost_answer"), st.integers(1, 5)),
    st.tuples(st.just("retry"), st.integers(1, 5)),
    st.tuples(st.just("refused"), st.integers(1, 2)),
    st.tuples(st.just("full"), st.booleans()),
    st.tuples(st.just("flush"), st.just(0)),
)


class Unencodable:
    def __str__(self) -> str:
        raise RuntimeError("no")


class Driver:
    """Does what hypothesis says, and keeps its own count of what was handed over."""

    def __init__(self, drop: str, batch: int) -> None:
        self.clock, self.transport = ManualClock(), Whimsical()
        self.handed = 0
        self.client = Client(
            Settings(
                max_queue_bytes=64 * 1024,
                drop=drop,
                max_batch_events=batch,
                heartbeat_s=0.0,
                handle_signals=False,
            ),
            transport=self.transport,
            clock=self.clock,
            threaded=False,
        )

    def emit(self, count: int) -> None:
        self.handed += count
        for _ in range(count):
            self.client.metric("m", 1.0)

    def big(self, count: int) -> None:
        self.handed += count
        for _ in range(count):
            self.client.annotation("x" * 20_000)

    def huge(self, _: int) -> None:
        self.handed += 1
        self.client.annotation("x" * 300_000)

    def unencodable(self, _: int) -> None:
        self.handed += 1
        event = {"kind": "annotation", "text": "t", "metadata": Unencodable()}
        self.client.emit_event(event)

    def step(self, count: int) -> None:
        assert self.client._shipper is not None
        for _ in range(count):
            self.client._shipper.step()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def delivered(self, count: int) -> None:
        for _ in range(count):
            self.transport.settle(Outcome.DELIVERED, reached=True)

    def lost_answer(self, count: int) -> None:
        for _ in range(count):
            self.transport.settle(Outcome.RETRY, reached=True)

    def retry(self, count: int) -> None:
        for _ in range(count):
            self.transport.settle(Outcome.RETRY, reached=False)

    def refused(self, count: int) -> None:
        for _ in range(count):
            self.transport.settle(Outcome.REFUSED, reached=False)

    def full(self, value: bool) -> None:
        self.transport.full = value

    def flush(self, _: int) -> None:
        result = self.client.flush(0.0)
        assert not (result.ok and result.pending)
        lost = sum(result.dropped.values())
        assert result.accepted == result.delivered + result.pending + lost

    def recover(self) -> None:
        """The backend is well again: everything that is pending must arrive."""
        self.transport.full = False
        for _ in range(400):
            self.advance(60.0)
            self.step(1)
            self.delivered(len(self.transport.flying))
            self.step(1)
            if not self.client.stats().pending:
                break
        assert self.client.stats().pending == 0

    def check(self) -> None:
        stats = self.client.stats()
        assert stats.accepted == self.handed
        assert self.handed == stats.delivered + stats.pending + sum(stats.dropped.values())


@settings(max_examples=200, deadline=None)
@given(
    actions=st.lists(ACTIONS, max_size=60),
    drop=st.sampled_from(["oldest", "newest"]),
    batch=st.integers(1, 50),
    ends_well=st.booleans(),
)
def test_every_event_is_accounted_for(actions, drop: str, batch: int, ends_well: bool) -> None:
    driver = Driver(drop, batch)
    with raising(False):
        for name, value in actions:
            getattr(driver, name)(value)
            driver.check()
        if ends_well:
            driver.recover()
        driver.client.close(0.0)
    stats = driver.client.stats()
    assert stats.pending == 0
    assert stats.accepted - driver.handed in (0, 1)  # the heartbeat that makes a last envelope
    assert stats.accepted == stats.delivered + sum(stats.dropped.values())
    headers = [decode_header(split_lines(data)[0]) for data in driver.transport.got.values()]
    # The log has what was delivered, and maybe what was thought lost on its way; never more.
    assert stats.delivered <= sum(header.n for header in headers) <= stats.accepted
    for header in headers:
        assert header.accepted - sum(header.dropped.values()) <= driver.handed + 1
