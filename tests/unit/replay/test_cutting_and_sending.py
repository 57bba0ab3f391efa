"""Envelopes are cut the same way every time and sent until the log has them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callmeter.clock import ManualClock
from callmeter.errors import UnreachableError
from callmeter.replay.cutting import Origin, cut
from callmeter.replay.sending import send_all
from callmeter.schema.envelope import MAX_BYTES, decode_header, split_lines
from callmeter.transports.protocol import Delivery, Outcome, Report, Sealed

ORIGIN = Origin(source="01890a5d-ac96-8cba-8c6c-1f2e3d4c5b6a", project="demo")


@given(
    st.lists(
        st.binary(min_size=1, max_size=2000).map(lambda b: b'{"kind":"' + b.hex().encode() + b'"}')
    )
)
def test_cutting_keeps_every_line_in_order(lines: list[bytes]) -> None:
    envelopes = list(cut(lines, ORIGIN, ManualClock()))
    headers = [decode_header(split_lines(e.data)[0]) for e in envelopes]
    assert [line for e in envelopes for line in split_lines(e.data)[1:]] == lines
    assert [h.seq for h in headers] == list(range(len(envelopes)))
    assert [h.n for h in headers] == [e.n for e in envelopes]
    assert all(e.n <= 500 and len(e.data) <= MAX_BYTES for e in envelopes)
    assert [h.last for h in headers] == [False] * (len(headers) - 1) + [True] * bool(headers)
    if headers:
        assert headers[-1].accepted == len(lines)


class Scripted:
    """A transport that answers as told, then delivers."""

    name = "scripted"

    def __init__(self, clock: ManualClock, outcome: Callable[[Sealed, int], Outcome]) -> None:
        self.log: list[int] = []
        self.closed = False
        self._clock = clock
        self._outcome = outcome
        self._tries: dict[int, int] = {}
        self._queue: list[Sealed] = []

    def open(self, report: Report) -> None:
        self._report = report

    def send(self, envelope: Sealed) -> bool:
        if len(self._queue) >= 3:
            return False
        self._queue.append(envelope)
        return True

    def poll(self, timeout_s: float) -> None:
        self._clock.advance(timeout_s)
        for envelope in self._queue:
            tries = self._tries[envelope.seq] = self._tries.get(envelope.seq, 0) + 1
            outcome = self._outcome(envelope, tries)
            if outcome is Outcome.DELIVERED:
                self.log.append(envelope.seq)
            self._report(Delivery(envelope, outcome, error=f"try {tries}"))
        self._queue.clear()

    def close(self, timeout_s: float) -> None:
        self.closed = True


def envelopes(count: int) -> list[Sealed]:
    return list(cut([b'{"kind":"x"}'] * count, ORIGIN, ManualClock(), max_events=1))


def test_what_must_be_sent_again_is_sent_again() -> None:
    clock = ManualClock()
    transport = Scripted(
        clock, lambda e, tries: Outcome.RETRY if e.seq % 3 == 0 and tries < 3 else Outcome.DELIVERED
    )
    seen: list[int] = []
    sent = send_all(
        transport, envelopes(10), clock=clock, on_delivered=lambda e: seen.append(e.seq)
    )
    assert sorted(transport.log) == list(range(10))
    assert (sent.envelopes, sent.events, sent.refused) == (10, 10, [])
    assert sorted(seen) == list(range(10))
    assert transport.closed


def test_a_refusal_is_kept_and_the_rest_goes_on() -> None:
    clock = ManualClock()
    transport = Scripted(clock, lambda e, _: Outcome.REFUSED if e.seq == 1 else Outcome.DELIVERED)
    sent = send_all(transport, envelopes(4), clock=clock)
    assert sent.envelopes == 3
    assert [r.envelope.seq for r in sent.refused] == [1]


def test_patience_ends_with_the_last_error() -> None:
    clock = ManualClock()
    transport = Scripted(clock, lambda *_: Outcome.RETRY)
    with pytest.raises(UnreachableError, match="nothing delivered for 5 s over scripted: try"):
        send_all(transport, envelopes(2), clock=clock, patience_s=5)
    assert transport.closed
