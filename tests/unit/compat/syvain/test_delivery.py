"""How queued items get out: batches, retries, drops, results. Rows 139–156."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable

import pytest

from callmeter.compat.syvain import Collector, Experiment, MetricsCollectorError


def until(holds: Callable[[], bool], patience_s: float = 10.0) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def filled(collector: Collector, count: int, slug: str = "s") -> Experiment:
    experiment = collector.experiment(slug)
    for n in range(count):
        experiment.metric(f"m{n}", n, step=n)
    return experiment


def names(stub) -> list[str]:
    return [e.get("name") or e.get("text") for e in stub.delivered if e["kind"] != "experiment"]


@pytest.mark.acceptance(139)
def test_metric_returns_at_once_when_the_server_is_away(stub):
    collector = Collector("key", stub.url, flush_delay_seconds=0.0)
    experiment = collector.experiment("s")
    stub.close()
    took_s = []
    for n in range(3000):
        began_s = time.perf_counter()
        experiment.metric("loss", 0.5, step=n, metadata={"split": "train"})
        took_s.append(time.perf_counter() - began_s)
    # The row's own figure; a call takes some five microseconds, so the margin is two hundredfold.
    assert sorted(took_s)[int(len(took_s) * 0.99)] < 0.001
    result = experiment.flush()
    assert result.pending_metrics == 3000
    assert result.dropped_metrics == 0
    collector.close(timeout_s=0.1)


@pytest.mark.acceptance(140)
def test_items_arrive_by_themselves(make, stub):
    collector = make(flush_delay_seconds=0.25)
    experiment = collector.experiment("s")
    began_s = time.monotonic()
    experiment.metric("loss", 1, step=0)
    until(lambda: len(stub.delivered) == 1, patience_s=0.25 + 1)
    assert time.monotonic() - began_s >= 0.25  # it waited for company
    experiment.annotation("and once more")
    until(lambda: len(stub.delivered) == 2, patience_s=0.25 + 1)


@pytest.mark.acceptance(141)
def test_1200_metrics_are_500_500_and_200(make, stub):
    result = filled(make(), 1200).flush_or_raise()
    assert [len(request.events) for request in stub.writes] == [500, 500, 200]
    assert result.delivered_metrics == 1200
    assert names(stub) == [f"m{n}" for n in range(1200)]


def test_a_smaller_batch(make, stub):
    filled(make(max_batch_items=2), 5).flush_or_raise()
    assert [len(request.events) for request in stub.writes] == [2, 2, 1]


@pytest.mark.acceptance(142)
def test_an_item_keeps_its_id_over_its_tries(make, stub):
    experiment = make().experiment("s")
    experiment.metric("loss", 0.5, step=1)
    stub.answers.extend([503] * 3 * 3)  # three flushes of three tries
    for _ in range(3):
        assert experiment.flush().pending_metrics == 1
    assert experiment.flush().delivered_metrics == 1
    assert len(stub.writes) == 10
    assert len({request.events[0]["event_id"] for request in stub.writes}) == 1
    assert len({request.body for request in stub.writes}) == 1
    assert len(stub.delivered) == 1


@pytest.mark.acceptance(145)
def test_the_tries_of_one_write_share_an_idempotency_key(make, stub):
    collector = make()
    stub.created_status = 503
    with pytest.raises(MetricsCollectorError):
        collector.experiment("s")
    stub.created_status = 201
    experiment = filled(collector, 1)
    creations = [r.headers["idempotency-key"] for r in stub.of("/v1/experiments")]
    assert len(creations) == 4
    assert len(set(creations[:3])) == 1
    assert creations[3] != creations[0]

    stub.answers.extend([503, 503])
    experiment.flush_or_raise()
    experiment.metric("next", 1, step=0)
    experiment.flush_or_raise()
    keys = [r.headers["idempotency-key"] for r in stub.writes]
    assert len(keys) == 4
    assert keys[0] == keys[1] == keys[2]
    assert len({*creations, *keys}) == 4


@pytest.mark.acceptance(146)
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_passing_trouble_is_tried_three_times(make, stub, pauses, status):
    experiment = filled(make(), 1)
    stub.status = status
    assert experiment.flush().retryable_failures == 1
    assert len(stub.writes) == 3
    assert pauses == [0.25, 0.5]
    stub.status = 200
    stub.answers.extend([status, status])
    assert experiment.flush().ok
    assert len(stub.writes) == 6


@pytest.mark.acceptance(146)
def test_a_network_error_is_tried_three_times_and_400_once(make, stub, pauses):
    tries = []
    server = socket.create_server(("127.0.0.1", 0))

    def hang_up() -> None:
        for _ in range(3):
            connection, _ = server.accept()
            tries.append(connection.recv(10))
            connection.close()
        server.close()

    thread = threading.Thread(target=hang_up)
    thread.start()
    url = f"http://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(MetricsCollectorError):
        Collector("key", url, sleep=pauses.append).experiment("s")
    thread.join()
    assert len(tries) == 3
    assert pauses == [0.25, 0.5]

    pauses.clear()
    experiment = filled(make(), 1)
    stub.status = 400
    assert experiment.flush().permanent_failures == 1
    assert len(stub.writes) == 1
    assert pauses == []


@pytest.mark.acceptance(147)
def test_an_expired_credential_is_refreshed_and_the_item_delivered(make, stub):
    experiment = filled(make(), 1)
    stub.token = "another-one"  # what the producer has is no longer taken
    result = experiment.flush_or_raise()
    assert result.delivered_metrics == 1
    assert result.dropped_metrics == 0
    assert names(stub) == ["m0"]
    (refresh,) = stub.of("/v1/credentials/refresh")
    assert refresh.headers["authorization"] == "Bearer ak_test_key"
    assert [r.headers["authorization"] for r in stub.writes] == [
        "Bearer ak_test_key",
        "Bearer fresh-credential",
    ]


def test_a_key_that_is_not_taken_keeps_the_items(make, stub):
    experiment = filled(make(), 1)
    stub.token = stub.fresh = "nobody-knows"
    stub.status = 403
    result = experiment.flush()
    assert (result.pending_metrics, result.dropped_metrics) == (1, 0)
    stub.status, stub.token = 200, ""
    assert experiment.flush_or_raise().delivered_metrics == 1


@pytest.mark.acceptance(148)
def test_a_full_queue_drops_the_oldest_metrics_and_keeps_annotations(make, stub, caplog):
    experiment = make(max_queue_items=3).experiment("s")
    experiment.annotation("A0")
    for n in range(4):
        experiment.metric(f"m{n}", n, step=n)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 2  # m2 and m3 came into a full queue
    assert all("dropped 1 metrics and 0 annotations" in text for text in warnings)
    result = experiment.flush()
    assert sorted(names(stub)) == ["A0", "m2", "m3"]
    assert (result.dropped_metrics, result.dropped_annotations) == (2, 0)


def test_only_annotations_left_drop_the_oldest_and_warnings_are_bounded(make, stub, caplog):
    experiment = make(max_queue_items=3).experiment("s")
    for n in range(500):
        experiment.annotation(f"A{n}")
    assert len(caplog.records) == 10
    assert experiment.flush().dropped_annotations == 497
    assert names(stub) == ["A497", "A498", "A499"]


@pytest.mark.acceptance(149)
def test_a_drop_fails_the_last_flush_or_raise(make):
    collector = make(max_queue_items=3)
    experiment = filled(collector, 4)
    first = experiment.flush()
    assert first.dropped_metrics == 1
    assert not first.ok
    assert experiment.flush().ok  # told once
    with pytest.raises(MetricsCollectorError, match=r"pending_metrics=0.*dropped_metrics=1"):
        experiment.flush_or_raise()
    assert experiment.flush_or_raise().ok


@pytest.mark.acceptance(150)
def test_a_server_that_is_down_for_ten_minutes(make, stub, pauses):
    collector = make(max_retries=None)
    experiment = filled(collector, 700)
    stub.status = 503
    down_s = 0.0
    while down_s < 600:  # each flush takes the pauses between its tries
        before = len(pauses)
        assert experiment.flush().pending_metrics == 700
        down_s += sum(pauses[before:])
    stub.status = 200
    result = experiment.flush_or_raise()
    assert result.delivered_metrics == 700
    assert names(stub) == [f"m{n}" for n in range(700)]


@pytest.mark.acceptance(151)
def test_one_retry(make, stub, caplog):
    experiment = filled(make(max_retries=1), 1)
    stub.status = 503
    first = experiment.flush()
    assert (first.pending_metrics, first.dropped_metrics) == (1, 0)
    second = experiment.flush()
    assert (second.pending_metrics, second.dropped_metrics) == (0, 1)
    ours = [r for r in caplog.records if r.name == "syvain.metrics"]
    assert [r.levelno for r in ours] == [logging.WARNING]
    assert "retry limit of 1 reached" in ours[0].getMessage()
    stub.status = 200
    experiment.metric("after", 1, step=0)
    assert experiment.flush().delivered_metrics == 1
    assert names(stub) == ["after"]


@pytest.mark.acceptance(152)
def test_a_healthy_flush(make):
    experiment = filled(make(), 7)
    experiment.annotation("one")
    experiment.start(install_hooks=False)
    experiment.done()
    result = experiment.flush()
    assert result.ok is True
    delivered = (result.delivered_metrics, result.delivered_annotations, result.delivered_statuses)
    assert delivered == (7, 1, 2)
    assert (result.pending_metrics, result.pending_annotations, result.pending_statuses) == (0,) * 3


@pytest.mark.acceptance(153)
def test_a_failing_flush_says_so_and_does_not_raise(make, stub):
    experiment = filled(make(), 1)
    stub.status = 503
    result = experiment.flush()
    assert result.ok is False
    assert result.pending_metrics == 1
    assert result.retryable_failures == 1
    assert "503" in result.errors[0]


@pytest.mark.acceptance(154)
def test_a_bad_item_does_not_take_its_neighbours_with_it(make, stub):
    experiment = filled(make(), 10)
    stub.refuses = lambda event: event.get("name") == "m6"
    result = experiment.flush()
    assert result.permanent_failures == 1
    assert "not to my taste" in result.errors[0]
    assert (result.delivered_metrics, result.dropped_metrics, result.pending_metrics) == (9, 1, 0)
    assert sorted(names(stub)) == [f"m{n}" for n in (0, 1, 2, 3, 4, 5, 7, 8, 9)]
    assert experiment.flush().ok


@pytest.mark.acceptance(155)
def test_flush_or_raise(make, stub):
    experiment = filled(make(), 2)
    stub.status = 503
    with pytest.raises(MetricsCollectorError, match=r"pending_metrics=2.*retryable_failures=1"):
        experiment.flush_or_raise()
    stub.status = 200
    result = experiment.flush_or_raise()
    assert result.ok
    assert result.delivered_metrics == 2
    stub.status = 400
    experiment.metric("bad", 1, step=0)
    with pytest.raises(MetricsCollectorError, match="permanent_failures=1"):
        experiment.flush_or_raise()


@pytest.mark.acceptance(156)
@pytest.mark.parametrize(("given", "rounds"), [({}, 4), ({"retries": 5}, 6), ({"retries": 0}, 1)])
def test_rounds_of_flush_or_raise(make, stub, given, rounds):
    experiment = filled(make(), 1)
    stub.status = 503
    with pytest.raises(MetricsCollectorError):
        experiment.flush_or_raise(**given)
    assert len(stub.writes) == 3 * rounds  # each round makes three tries


@pytest.mark.acceptance(156)
def test_negative_retries_are_refused(make):
    with pytest.raises(ValueError):
        make().experiment("s").flush_or_raise(retries=-1)


def test_one_experiment_does_not_hold_up_another(make, stub):
    collector = make()
    filled(collector, 1, "bad")
    filled(collector, 2, "good")
    stub.refuses = lambda event: event["experiment"] == "bad"
    result = collector.flush()
    assert (result.delivered_metrics, result.dropped_metrics) == (2, 1)


def test_close_delivers_what_nobody_flushed(make, stub):
    collector = make()
    filled(collector, 1200)
    collector.close()
    assert len(names(stub)) == 1200
    goodbye = stub.of("/v1/envelopes")[-1]
    assert b'"last":true' in goodbye.body


def test_threads_flushes_and_the_background_together_deliver_each_item_once(make, stub):
    collector = make(flush_delay_seconds=0.0, max_batch_items=50)
    experiments = [collector.experiment(f"e{n}") for n in range(2)]

    def work(thread: int) -> None:
        for n in range(500):
            experiments[thread % 2].metric(f"t{thread}-{n}", n, step=n)
            if n % 100 == 99:
                collector.flush()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert collector.flush_or_raise().pending == 0
    assert sorted(names(stub)) == sorted(f"t{t}-{n}" for t in range(4) for n in range(500))
