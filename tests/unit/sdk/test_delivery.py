"""From the queue to the backend: batches, numbers, retries, drops, and honest results."""

import time

import pytest

import callmeter
from callmeter.errors import DeliveryError
from callmeter.schema.envelope import MAX_BYTES
from callmeter.testing import Capture, capture
from callmeter.transports.protocol import Outcome


def emit(count: int, text: str = "m") -> None:
    for i in range(count):
        callmeter.metric(text, float(i))


def pump(captured: Capture) -> float:
    """One round of the background thread's work; seconds until the next."""
    shipper = captured.client._shipper
    assert shipper is not None
    return shipper.step()


def test_envelopes_are_cut_by_count(captured: Capture) -> None:
    emit(1200)
    captured.client.flush(0.0)
    assert [sealed.n for sealed in captured.transport.delivered] == [500, 500, 200]


def test_the_batch_size_is_a_setting() -> None:
    with capture(max_batch_events=3) as captured:
        emit(7)
        captured.client.flush(0.0)
        assert [sealed.n for sealed in captured.transport.delivered] == [3, 3, 1]


def test_envelopes_are_cut_by_bytes(captured: Capture) -> None:
    for _ in range(300):
        callmeter.annotation("x" * 4_000)
    captured.client.flush(0.0)
    sizes = [len(sealed.data) for sealed in captured.transport.delivered]
    assert sum(sealed.n for sealed in captured.transport.delivered) == 300
    assert max(sizes) <= MAX_BYTES
    assert min(sizes[:-1]) > MAX_BYTES - 16_000  # and none is cut long before it is full


def test_events_wait_for_the_flush_delay_and_no_longer() -> None:
    with capture(flush_delay_s=0.25) as captured:
        emit(1)
        assert pump(captured) == pytest.approx(0.25)
        captured.clock.advance(0.2)
        assert pump(captured) == pytest.approx(0.05)
        assert captured.transport.delivered == []
        captured.clock.advance(0.06)
        pump(captured)
        assert len(captured.transport.delivered) == 1


def test_headers_count_what_was_accepted_and_dropped() -> None:
    with capture(max_batch_events=2, project="shop", environment="test", service="web") as captured:
        emit(3)
        callmeter.annotation("x" * (MAX_BYTES + 1))
        emit(1)
        captured.client.flush(0.0)
        first, second = captured.transport.headers
    assert (first.project, first.environment, first.service) == ("shop", "test", "web")
    assert first.source == second.source == captured.client.stats().source
    assert (first.seq, first.n, first.accepted, first.dropped) == (0, 2, 2, {})
    assert (second.seq, second.n, second.accepted) == (1, 2, 5)
    assert second.dropped == {"too_large": 1}


def test_a_clean_close_says_last(captured: Capture) -> None:
    emit(1)
    captured.client.close()
    headers = captured.transport.headers
    assert [header.last for header in headers] == [True]
    assert captured.transport.closed == 1


def test_a_clean_close_after_a_flush_says_last_with_a_heartbeat(captured: Capture) -> None:
    emit(1)
    captured.client.flush(0.0)
    captured.client.close()
    assert [header.last for header in captured.transport.headers] == [False, True]
    assert captured.transport.events[-1]["kind"] == "heartbeat"


def test_a_client_that_was_never_used_opens_nothing(captured: Capture) -> None:
    captured.client.flush(0.0)
    captured.client.close()
    assert captured.transport.opened == 0


def test_a_retry_sends_the_same_bytes(captured: Capture) -> None:
    captured.transport.outcome = Outcome.RETRY
    emit(3)
    captured.client.flush(0.0)
    captured.transport.outcome = Outcome.DELIVERED
    emit(2)
    captured.clock.advance(60)
    captured.client.flush(0.0)
    assert [sealed.seq for sealed in captured.transport.delivered] == [0, 1]
    first = [sealed.data for sealed in captured.transport.sent if sealed.seq == 0]
    assert len(first) == 2
    assert first[0] == first[1]


def test_retries_wait_longer_each_time_with_jitter_and_a_ceiling(captured: Capture) -> None:
    captured.transport.outcome = Outcome.RETRY
    emit(1)
    captured.client.flush(0.0)
    waits = []
    for _ in range(12):
        attempts = len(captured.transport.sent)
        waited = 0.0
        while len(captured.transport.sent) == attempts:
            captured.clock.advance(0.05)
            waited += 0.05
            pump(captured)
        waits.append(waited)
    for i, waited in enumerate(waits):
        ceiling = min(30.0, 0.1 * 2**i)
        assert ceiling / 2 - 0.05 <= waited <= ceiling + 0.1
    assert len({round(wait / min(30.0, 0.1 * 2**i), 2) for i, wait in enumerate(waits)}) > 3


def test_the_servers_wish_is_honoured(captured: Capture) -> None:
    captured.transport.outcome = Outcome.RETRY
    captured.transport.retry_after_s = 20.0
    emit(1)
    captured.client.flush(0.0)
    captured.transport.outcome = Outcome.DELIVERED
    captured.clock.advance(19.9)
    pump(captured)
    assert captured.transport.delivered == []
    captured.clock.advance(0.2)
    pump(captured)
    assert len(captured.transport.delivered) == 1


def test_a_flush_does_not_wait_for_the_backoff(captured: Capture) -> None:
    captured.transport.outcome = Outcome.RETRY
    emit(1)
    captured.client.flush(0.0)
    captured.transport.outcome = Outcome.DELIVERED
    assert captured.client.flush(0.0).ok


def test_what_is_refused_for_good_is_counted_and_not_sent_again(captured: Capture) -> None:
    captured.transport.outcome = Outcome.REFUSED
    emit(2)
    result = captured.client.flush(0.0)
    assert (result.ok, result.pending, result.dropped) == (False, 0, {"refused": 2})
    assert result.error == "the test said refused"
    captured.clock.advance(60)
    captured.transport.outcome = Outcome.DELIVERED
    emit(1)
    captured.client.flush(0.0)
    assert [sealed.seq for sealed in captured.transport.sent] == [0, 1]
    assert captured.transport.headers[0].dropped == {"refused": 2}
    captured.transport.delivered.clear()


def test_a_transport_that_is_full_is_tried_again(captured: Capture) -> None:
    captured.transport.full = True
    emit(1)
    assert captured.client.flush(0.0).pending == 1
    captured.transport.full = False
    assert captured.client.flush(0.0).ok


def test_a_flush_result_is_honest(captured: Capture) -> None:
    emit(3)
    result = captured.client.flush(0.0)
    assert result == callmeter.FlushResult(
        ok=True, accepted=3, delivered=3, pending=0, spooled=0, dropped={}, error=None
    )
    captured.transport.outcome = Outcome.RETRY
    emit(2)
    result = captured.client.flush(0.0)
    assert (result.ok, result.accepted, result.delivered, result.pending) == (False, 5, 3, 2)
    assert result.error == "the test said retry"


def test_ok_is_false_once_after_something_was_dropped(captured: Capture) -> None:
    callmeter.annotation("x" * (MAX_BYTES + 1))
    assert not captured.client.flush(0.0).ok
    emit(1)
    result = captured.client.flush(0.0)
    assert result.ok
    assert result.dropped == {"too_large": 1}


def test_flush_or_raise(captured: Capture) -> None:
    emit(1)
    assert captured.client.flush_or_raise(0.0).delivered == 1
    captured.transport.outcome = Outcome.RETRY
    emit(2)
    with pytest.raises(DeliveryError, match=r"1 of 3 events delivered, 2 pending, dropped: none"):
        captured.client.flush_or_raise(0.0)
    with pytest.raises(ValueError, match="negative"):
        captured.client.flush_or_raise(0.0, retries=-1)


@pytest.mark.parametrize(("retries", "rounds"), [(0, 1), (3, 4), (5, 6)])
def test_flush_or_raise_tries_as_often_as_told(retries: int, rounds: int) -> None:
    with capture() as captured:
        captured.transport.outcome = Outcome.RETRY
        emit(1)
        with pytest.raises(DeliveryError):
            captured.client.flush_or_raise(0.0, retries=retries)
        assert len(captured.transport.sent) == rounds


def test_a_drop_is_seen_by_flush_or_raise_although_nothing_is_pending(captured: Capture) -> None:
    callmeter.annotation("x" * (MAX_BYTES + 1))
    with pytest.raises(DeliveryError, match="1 too_large"):
        captured.client.flush_or_raise(0.0)
    assert captured.client.flush_or_raise(0.0).ok


@pytest.mark.parametrize("policy", ["oldest", "newest"])
def test_memory_is_bounded_while_the_backend_is_away(policy: str) -> None:
    cap = 256 * 1024
    with capture(max_queue_bytes=cap, drop=policy) as captured:
        captured.transport.outcome = Outcome.RETRY
        total = 20_000
        for i in range(total):
            callmeter.metric("m", float(i))
            if i % 97 == 0:
                pump(captured)
                assert captured.client.stats().bytes <= cap
        away = captured.client.stats()
        assert away.accepted == total
        assert set(away.dropped) == {"queue_full"}
        assert away.pending + away.dropped["queue_full"] == total
        captured.transport.outcome = Outcome.DELIVERED
        captured.clock.advance(60)
        for _ in range(2):  # with "newest" the queue moves up once the envelopes are gone
            captured.client.flush(0.0)
        after = captured.client.stats()
        assert (after.pending, after.dropped) == (0, away.dropped)
        values = sorted(event["value"] for event in captured.transport.events)
        assert len(values) == after.delivered == total - away.dropped["queue_full"]
        if policy == "oldest":
            assert values[-100:] == [float(i) for i in range(total - 100, total)]
        else:
            assert values[:1000] == [float(i) for i in range(1000)]


def test_an_envelope_that_was_given_up_leaves_a_gap_that_headers_explain() -> None:
    with capture(max_queue_bytes=64 * 1024, max_batch_events=100) as captured:
        captured.transport.outcome = Outcome.RETRY
        for _ in range(50):
            emit(100)
            pump(captured)
        captured.transport.outcome = Outcome.DELIVERED
        captured.client.flush(0.0)
        emit(1)
        captured.client.flush(0.0)
        delivered = captured.transport.headers
        last = delivered[-1]
        assert [header.seq for header in delivered] != list(range(last.seq + 1))
        assert sum(header.n for header in delivered) == last.accepted - sum(last.dropped.values())
        captured.transport.delivered.clear()


def test_short_calls_have_no_begin_and_long_ones_have(captured: Capture) -> None:
    with callmeter.generation("short", model="m"):
        pump(captured)
    pump(captured)
    with callmeter.generation("long", model="m", provider="p", user="u", tags={"a": "b"}) as call:
        captured.clock.advance(0.3)
        pump(captured)
        pump(captured)
        (begin,) = captured.of_kind("call_begin")
        call.set(finish_reason="stop")
    assert begin == {
        "kind": "call_begin",
        "ts_us": begin["started_us"],
        "call_id": call.id,
        "trace_id": call.trace_id,
        "started_us": 1_700_000_000_000_000,
        "operation": "chat",
        "name": "long",
        "model": "m",
        "provider": "p",
        "user": "u",
        "tags": {"a": "b"},
    }
    kinds = [event["kind"] for event in captured.events]
    assert kinds == ["call_end", "call_begin", "call_end"]


def test_a_begin_carries_the_estimate_for_the_guard(captured: Capture) -> None:
    with callmeter.generation(model="m", estimate="0.02"):
        captured.clock.advance(0.3)
        pump(captured)
        (begin,) = captured.of_kind("call_begin")
    assert begin["estimate_pico"] == "20000000000"


def test_heartbeats_name_calls_that_are_open_for_long() -> None:
    with capture(heartbeat_s=10.0) as captured:
        with callmeter.generation("stuck", model="m") as call:
            captured.clock.advance(10.0)
            pump(captured)
            captured.clock.advance(25.0)
            pump(captured)
        captured.clock.advance(10.0)
        pump(captured)
        first, second, third = captured.of_kind("heartbeat")
    assert (first["open"], first["open_long"]) == (1, [])
    assert (second["open"], second["open_long"]) == (1, [call.id])
    assert (third["open"], third["open_long"]) == (0, [])


def test_a_source_without_events_sends_no_heartbeat() -> None:
    with capture(heartbeat_s=10.0) as captured:
        captured.clock.advance(100.0)
        pump(captured)
        assert captured.transport.sent == []


def test_what_is_not_delivered_at_the_end_is_counted(captured: Capture) -> None:
    captured.transport.outcome = Outcome.RETRY
    emit(2)
    captured.client.flush(0.0)
    emit(1)
    captured.client.close(0.0)
    stats = captured.client.stats()
    assert stats.pending == 0
    assert stats.delivered == 0
    # Three events and the goodbye's place: all of them are accounted for.
    assert stats.accepted == sum(stats.dropped.values())
    assert set(stats.dropped) == {"shutdown"}
    assert not captured.client.flush(0.0).ok


def test_using_a_closed_client_is_counted_and_an_error_under_test(captured: Capture) -> None:
    captured.client.close()
    with pytest.raises(callmeter.UsageError, match="closed"):
        captured.client.metric("late", 1.0)
    assert captured.client.stats().dropped == {"closed": 1}


def test_in_production_a_closed_client_counts_and_does_nothing() -> None:
    from callmeter.testing import raising

    with capture() as captured, raising(False):
        with callmeter.generation(model="m") as open_call:
            callmeter.close()
        callmeter.metric("late", 1.0)
        with callmeter.generation(model="m") as late:
            late.usage(1, 1)
        callmeter.annotation("late")
        assert late is not open_call
        assert captured.client.stats().dropped == {"closed": 4}


def test_a_background_thread_delivers_without_being_asked() -> None:
    transport = callmeter.testing.CaptureTransport()  # type: ignore[attr-defined]
    client = callmeter.Client(
        callmeter.Settings(flush_delay_s=0.01, handle_signals=False), transport=transport
    )
    client.metric("m", 1.0)
    deadline = time.monotonic() + 10
    while not transport.delivered and time.monotonic() < deadline:
        time.sleep(0.005)
    client.close()
    assert [event["name"] for event in transport.events if event["kind"] == "metric"] == ["m"]


def test_flush_waits_for_what_was_accepted_before_it_only() -> None:
    transport = callmeter.testing.CaptureTransport()  # type: ignore[attr-defined]
    client = callmeter.Client(
        callmeter.Settings(flush_delay_s=60, handle_signals=False), transport=transport
    )
    for _ in range(10):
        client.metric("m", 1.0)
        assert client.flush(10.0).ok
    client.close()
    assert client.stats().delivered == 11  # ten, and the goodbye
