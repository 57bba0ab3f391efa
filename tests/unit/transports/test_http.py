"""The HTTP transport against servers that misbehave, each a script of answers."""

from __future__ import annotations

import os
import threading

import pytest

from callmeter.transports.http import MAX_POST_ENVELOPES
from callmeter.transports.protocol import Outcome
from support.serving import SOURCE, Request, Sending, Server, reply, sealed, taken, url


def test_one_connection_and_several_envelopes_a_post(serve, sending) -> None:
    gate = threading.Event()

    def slow(request: Request) -> bytes:
        gate.wait(30)
        return taken(request)

    server = serve(slow, taken)
    s = sending(url(server), api_key="sesame-1")
    s.send(sealed(0))
    for _ in range(3000):
        if server.requests:
            break
        s.transport.poll(0.01)
    s.send(*(sealed(seq) for seq in range(1, 6)))
    gate.set()
    assert s.wait(6) == [(seq, Outcome.DELIVERED) for seq in range(6)]
    assert [r.seqs for r in server.requests] == [[0], [1, 2, 3, 4, 5]]
    assert server.connections == 1
    request = server.requests[0]
    assert request.line == "POST /v1/envelopes HTTP/1.1"
    assert request.headers["authorization"] == "Bearer sesame-1"
    assert request.headers["content-type"] == "application/x-ndjson"
    assert [r.offset for r in s.reports] == list(range(6))


def test_posts_are_bounded_by_count_and_bytes(serve, sending) -> None:
    server = serve(taken)
    s = sending(url(server), max_in_flight_bytes=2**26)
    s.send(*(sealed(seq) for seq in range(2 * MAX_POST_ENVELOPES + 5)))
    s.wait(2 * MAX_POST_ENVELOPES + 5)
    assert max(len(r.seqs) for r in server.requests) <= MAX_POST_ENVELOPES
    many = 2 * MAX_POST_ENVELOPES + 5
    s.send(*(sealed(many + seq, pad=200_000) for seq in range(30)))
    assert s.wait(many + 30) == [(seq, Outcome.DELIVERED) for seq in range(many + 30)]
    assert max(len(r.body) for r in server.requests) <= 2 * 2**20


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_compression(serve, sending, codec: str) -> None:
    server = serve(taken)
    s = sending(url(server), compression=codec)
    s.send(sealed(0, pad=50_000))
    assert s.wait(1) == [(0, Outcome.DELIVERED)]
    assert server.requests[0].headers["content-encoding"] == codec
    assert len(server.requests[0].body) < 5_000


def test_a_server_without_the_codec_gets_a_weaker_one(serve, sending) -> None:
    unknown = lambda request: reply(415, {})  # noqa: E731
    server = serve(unknown, unknown, taken)
    s = sending(url(server), compression="zstd")
    s.send(sealed(0, pad=5000))
    assert s.wait(1) == [(0, Outcome.DELIVERED)]
    encodings = [r.headers.get("content-encoding") for r in server.requests]
    assert encodings == ["zstd", "gzip", None]
    refusing = serve(unknown)
    s = sending(url(refusing), compression="none")
    s.send(sealed(0))
    assert s.wait(1) == [(0, Outcome.RETRY)]


def test_a_kept_alive_connection_that_died_is_replaced_at_once(serve, sending) -> None:
    server = serve(taken)
    s = sending(url(server))
    s.send(sealed(0))
    s.wait(1)
    server.drop_connections()
    s.send(sealed(1))
    assert s.wait(2) == [(0, Outcome.DELIVERED), (1, Outcome.DELIVERED)]
    assert server.connections == 2


def test_a_connection_closed_without_an_answer_is_a_retry(serve, sending) -> None:
    server = serve(lambda _: None, taken)
    s = sending(url(server))
    s.send(sealed(0))
    assert s.wait(1) == [(0, Outcome.RETRY)]
    assert "without an answer" in (s.reports[0].error or "")
    s.send(sealed(0))
    assert s.wait(2) == [(0, Outcome.DELIVERED), (0, Outcome.RETRY)]


def test_the_bad_one_is_refused_and_its_neighbours_arrive(serve, sending) -> None:
    def judge(request: Request) -> bytes:
        if 3 in request.seqs:
            body = {"error": "bad", "source": SOURCE, "seq": 3, "envelope": 0}
            return reply(400, body)
        return taken(request)

    s = sending(url(serve(judge)))
    s.send(*(sealed(seq) for seq in range(6)))
    expected = [(seq, Outcome.DELIVERED) for seq in range(6)]
    expected[3] = (3, Outcome.REFUSED)
    assert s.wait(6) == expected


def test_a_body_too_large_is_halved_until_the_culprit_is_alone(serve, sending) -> None:
    def picky(request: Request) -> bytes:
        if len(request.seqs) > 2 or 5 in request.seqs:
            return reply(413, {"error": "too large"})
        return taken(request)

    s = sending(url(serve(picky)))
    s.send(*(sealed(seq) for seq in range(8)))
    expected = [(seq, Outcome.DELIVERED) for seq in range(8)]
    expected[5] = (5, Outcome.REFUSED)
    assert s.wait(8) == expected


def test_busy_hands_everything_back_with_the_server_s_wish(serve, sending) -> None:
    server = serve(lambda _: reply(503, {"error": "log away"}, "Retry-After: 9"))
    s = sending(url(server))
    s.send(*(sealed(seq) for seq in range(4)))
    assert s.wait(4) == [(seq, Outcome.RETRY) for seq in range(4)]
    assert {(r.error, r.retry_after_s) for r in s.reports} == {("HTTP 503: log away", 9.0)}


def test_an_answer_given_before_the_body_is_read_is_heard(serve, sending) -> None:
    class Hasty(Server):
        @staticmethod
        def _read(reader) -> Request | None:
            return Request("", {}, b"") if reader.readline() else None

    server = Hasty([lambda _: reply(401, {"error": "no key"}, "Connection: close"), lambda _: None])
    s = sending(url(server))
    s.send(sealed(0, pad=250_000))
    s.wait(1)
    server.close()
    assert s.reports[0].outcome is Outcome.RETRY


def test_a_hanging_server_is_a_retry_after_the_time_out(serve, sending) -> None:
    never = threading.Event()
    server = serve(lambda _: never.wait(60) and None)
    s = sending(url(server), timeout_s=0.2)
    s.send(sealed(0))
    assert s.wait(1) == [(0, Outcome.RETRY)]
    assert "0.2 s" in (s.reports[0].error or "")
    never.set()


def test_close_does_not_wait_for_a_server_that_hangs(serve) -> None:
    never = threading.Event()
    server = serve(lambda _: never.wait(60) and None)
    s = Sending(url(server), timeout_s=300.0)
    s.send(*(sealed(seq) for seq in range(3)))
    s.transport.close(0.1)
    assert [r.outcome for r in s.reports] == [Outcome.RETRY] * 3
    assert not any(t.name == "callmeter-http" and t.is_alive() for t in threading.enumerate())
    never.set()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")  # it is the point
def test_a_child_closes_without_touching_its_parent_s_connection(serve, sending) -> None:
    server = serve(taken)
    s = sending(url(server))
    s.send(sealed(0))
    s.wait(1)
    pid = os.fork()
    if pid == 0:
        s.transport.close(5.0)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    s.send(sealed(1))
    assert s.wait(2) == [(0, Outcome.DELIVERED), (1, Outcome.DELIVERED)]
    assert server.connections == 1
