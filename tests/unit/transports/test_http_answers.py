"""What each answer of a collector means for each envelope."""

from __future__ import annotations

import email.utils
import time

import orjson
import pytest

from callmeter.transports.http_answers import judge
from callmeter.transports.http_connection import Answer
from callmeter.transports.protocol import Outcome, Sealed

BATCH = [Sealed("src", seq, 1, b"{}") for seq in range(4)]


def answer(status: int, body: object = None, **headers: str) -> Answer:
    data = b"" if body is None else orjson.dumps(body)
    return Answer(status, {k.replace("_", "-"): v for k, v in headers.items()}, data)


def results(*seqs: int) -> dict[str, object]:
    return {
        "results": [{"source": "src", "seq": s, "partition": 2, "offset": 10 + s} for s in seqs]
    }


def test_results_are_matched_by_source_and_seq_whatever_their_order() -> None:
    got = judge(BATCH, answer(200, results(3, 1, 0, 2)))
    assert [(r.outcome, r.partition, r.offset) for r in got.reports] == [
        (Outcome.DELIVERED, 2, 10 + seq) for seq in range(4)
    ]
    assert got.halt is None


def test_an_envelope_without_a_result_is_sent_again() -> None:
    got = judge(BATCH, answer(200, results(0, 1, 3)))
    assert [r.outcome for r in got.reports] == [
        Outcome.DELIVERED,
        Outcome.DELIVERED,
        Outcome.RETRY,
        Outcome.DELIVERED,
    ]


@pytest.mark.parametrize("body", [None, [], {"results": 1}, "<html>"])
def test_a_200_that_is_no_collector_s_delivers_nothing(body: object) -> None:
    got = judge(BATCH, answer(200, body))
    assert got.reports == []
    assert got.halt
    assert "collector" in got.halt


@pytest.mark.parametrize("status", [400, 403, 413])
@pytest.mark.parametrize("body", [{"envelope": 2}, {"source": "src", "seq": 2}])
def test_a_named_envelope_is_refused_and_its_neighbours_go_on(
    status: int, body: dict[str, object]
) -> None:
    got = judge(BATCH, answer(status, {"error": "bad", "reason": "x", **body}))
    assert [(r.outcome, r.envelope.seq) for r in got.reports] == [(Outcome.REFUSED, 2)]
    assert [[e.seq for e in part] for part in got.again] == [[0, 1, 3]]
    assert "bad" in (got.reports[0].error or "")


@pytest.mark.parametrize("status", [400, 413])
def test_an_unnamed_one_is_found_by_halving(status: int) -> None:
    got = judge(BATCH, answer(status))
    assert [[e.seq for e in part] for part in got.again] == [[0, 1], [2, 3]]
    assert got.reports == []
    alone = judge(BATCH[:1], answer(status))
    assert [r.outcome for r in alone.reports] == [Outcome.REFUSED]
    assert alone.again == []


def test_a_403_for_the_key_itself_refuses_all() -> None:
    got = judge(BATCH, answer(403, {"error": "this key reads only"}))
    assert [r.outcome for r in got.reports] == [Outcome.REFUSED] * 4


@pytest.mark.parametrize("status", [301, 302, 401, 404, 405, 407, 408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_a_halt_for_all(status: int) -> None:
    got = judge(BATCH, answer(status, {"error": "two\nlines"}, retry_after="7"))
    assert got.reports == []
    assert got.again == []
    assert got.halt == f"HTTP {status}: two"
    assert got.retry_after_s == 7.0


def test_halts_say_what_to_do_even_without_a_body() -> None:
    assert "API key" in (judge(BATCH, answer(401)).halt or "")
    assert "URL" in (judge(BATCH, answer(302)).halt or "")


def test_an_unknown_encoding_is_tried_otherwise() -> None:
    got = judge(BATCH, answer(415))
    assert got.weaker_codec
    assert got.again == [BATCH]


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("0", 0.0, 0.0),
        ("2.5", 2.5, 2.5),
        ("-3", 0.0, 0.0),
        ("999999", 3600.0, 3600.0),
    ],
)
def test_retry_after(value: str, low: float, high: float) -> None:
    got = judge(BATCH, answer(503, retry_after=value)).retry_after_s
    assert got is not None
    assert low <= got <= high


def test_retry_after_may_be_a_date() -> None:
    value = email.utils.formatdate(time.time() + 1000, usegmt=True)
    got = judge(BATCH, answer(503, retry_after=value)).retry_after_s
    assert got is not None
    assert 0.0 < got <= 1000.0


@pytest.mark.parametrize("value", ["", "soon", "nan"])
def test_a_retry_after_that_says_nothing(value: str) -> None:
    assert judge(BATCH, answer(503, retry_after=value)).retry_after_s is None
