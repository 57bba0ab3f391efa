"""How honest the estimate of memory is, against what the interpreter says."""

import gc
import tracemalloc

import pytest

from callmeter import Client, Settings
from callmeter.sdk.weight import newest_bytes
from callmeter.testing import CaptureTransport, ManualClock

EVENTS = 4_000


def emit_calls(client: Client, count: int) -> None:
    for i in range(count):
        with client.generation(
            f"answer{i}",
            model="gpt-4o-mini",
            provider="openai",
            temperature=0.1 * i,
            max_tokens=1000 + i,
            user=f"user-{i}",
            session=f"session-{i}",
            route="r",
        ) as call:
            call.usage(input=1000 + i, output=2000 + i)
            call.set(finish_reason="stop", response_model="gpt-4o-mini-2024-07-18")


def emit_metrics(client: Client, count: int) -> None:
    for i in range(count):
        client.metric("loss", i + 0.5, step=i)


def emit_texts(client: Client, count: int) -> None:
    for i in range(count):
        with client.generation(model="m", note=f"{i}" + "x" * 5_000):
            pass


@pytest.mark.parametrize("emit", [emit_calls, emit_metrics, emit_texts])
def test_the_estimate_is_near_the_truth(emit) -> None:
    client = Client(
        Settings(
            max_queue_bytes=2**30, heartbeat_s=0.0, handle_signals=False, max_batch_events=500
        ),
        transport=CaptureTransport(),
        clock=ManualClock(),
        threaded=False,
    )
    emit(client, 2_000)  # the estimate is learnt from what was seen
    client.flush(0.0)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        estimated_before = client.stats().bytes
        emit(client, EVENTS)
        real = tracemalloc.get_traced_memory()[0] - before
        estimated = client.stats().bytes - estimated_before
    finally:
        tracemalloc.stop()
    assert client.stats().queued == EVENTS
    assert 0.75 < estimated / real < 2.0, (estimated / EVENTS, real / EVENTS)
    client.close(0.0)


@pytest.mark.parametrize("emit", [emit_calls, emit_metrics, emit_texts])
def test_callers_and_the_shipper_agree_on_what_an_event_weighs(emit) -> None:
    client = Client(
        Settings(max_queue_bytes=2**30, heartbeat_s=0.0, handle_signals=False),
        transport=CaptureTransport(),
        clock=ManualClock(),
        threaded=False,
    )
    emit(client, 2_000)
    client.flush(0.0)
    emit(client, 100)
    assert client._shipper is not None
    assert client.intake is not None
    seen = newest_bytes(client.intake.queue)
    assert 0.6 < seen / client._shipper._weigher.event_bytes() < 1.5
    client.close(0.0)


def test_a_run_of_long_texts_is_noticed_although_the_shipper_sleeps() -> None:
    cap = 8 * 2**20
    client = Client(
        Settings(max_queue_bytes=cap, heartbeat_s=0.0, handle_signals=False),
        transport=CaptureTransport(),
        clock=ManualClock(),
        threaded=False,
    )
    emit_metrics(client, 1_000)
    client.flush(0.0)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for i in range(10_000):  # 100 MB, and nobody drains
            with client.generation(model="m", note=f"{i}" + "x" * 10_000):
                pass
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < 1.25 * cap
    assert client.stats().dropped["queue_full"] > 9_000
    client.close(0.0)
