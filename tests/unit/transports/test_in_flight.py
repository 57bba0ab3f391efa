"""The books of transports with a thread of their own."""

from __future__ import annotations

import threading

from callmeter.transports.in_flight import InFlight
from callmeter.transports.protocol import Delivery, Outcome, Sealed


def sealed(seq: int, size: int = 10) -> Sealed:
    return Sealed("s", seq, 1, b"x" * size)


def opened(max_bytes: int = 100, max_envelopes: int = 10) -> tuple[InFlight, list[Delivery]]:
    reports: list[Delivery] = []
    books = InFlight(max_bytes, max_envelopes)
    books.open(reports.append)
    return books, reports


def test_bounded_by_bytes_and_by_count_but_one_always_fits() -> None:
    books, _ = opened()
    assert books.take(sealed(0, 1000)) == 0
    assert books.take(sealed(1, 1)) is None
    books.settle(0, Outcome.DELIVERED)
    assert [books.take(sealed(seq, 5)) is None for seq in range(11)] == [False] * 10 + [True]


def test_settled_once() -> None:
    books, reports = opened()
    ticket = books.take(sealed(0))
    assert ticket is not None
    books.retry_all("gone", 1.5)
    books.settle(ticket, Outcome.DELIVERED, partition=1, offset=2)
    assert [(r.outcome, r.error, r.retry_after_s) for r in reports] == [
        (Outcome.RETRY, "gone", 1.5)
    ]
    assert books.envelope(ticket) is None
    assert len(books) == 0


def test_settled_once_by_many_threads() -> None:
    books, reports = opened(max_bytes=10**6, max_envelopes=10**4)
    tickets = [books.take(sealed(seq)) for seq in range(500)]
    start = threading.Barrier(4)

    def settle() -> None:
        start.wait()
        for ticket in tickets:
            assert ticket is not None
            books.settle(ticket, Outcome.DELIVERED)

    threads = [threading.Thread(target=settle) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r.envelope.seq for r in reports) == list(range(500))
    assert books.wait_empty(0.0)


def test_waiting() -> None:
    books, _ = opened()
    books.wait_report(0.0)
    ticket = books.take(sealed(0))
    assert ticket is not None
    assert not books.wait_empty(0.0)
    timer = threading.Timer(0.01, books.settle, (ticket, Outcome.DELIVERED))
    timer.start()
    assert books.wait_empty(30.0)
    books.wait_report(30.0)
    timer.join()
