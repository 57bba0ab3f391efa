from __future__ import annotations

from decimal import Decimal

from callmeter.schema.histogram import bucket
from callmeter_sinks.buckets import bucket_edges
from callmeter_sinks.checks.outcome import TRIES, Check, Comparison, settled


def comparison(raw: int, rollups: int, *keys: str) -> Comparison:
    return Comparison({"calls": (raw, rollups)}, {"calls": {(key,) for key in keys}})


def run(*answers: Comparison) -> tuple[Comparison, int]:
    waiting = list(answers)
    slept: list[float] = []
    found = settled(lambda: waiting.pop(0), sleep=slept.append)
    assert len(slept) == len(answers) - len(waiting) - 1
    return found, len(answers) - len(waiting)


def test_what_agrees_is_asked_once() -> None:
    found, times = run(comparison(3, 3), comparison(0, 1, "never"))
    assert times == 1
    assert found.checks() == [Check("calls", 3, 3)]


def test_an_insert_under_way_is_no_difference() -> None:
    found, times = run(comparison(3, 2, "w1"), comparison(4, 4))
    assert times == 2
    assert found.checks()[0].equal


def test_a_busy_store_differs_each_time_at_another_key() -> None:
    found, times = run(comparison(3, 2, "w1"), comparison(4, 3, "w2"), comparison(5, 4, "w3"))
    assert times == 2  # no key differed twice: nothing to look at again
    assert found.checks()[0].equal


def test_a_key_that_differs_every_time_differs() -> None:
    found, times = run(*(comparison(3 + n, 2 + n, "w1", f"live{n}") for n in range(TRIES)))
    assert times == TRIES
    (check,) = found.checks()
    assert not check.equal
    assert (check.differing, check.examples) == (1, ("('w1',)",))


def test_parts_are_added() -> None:
    total = comparison(1, 1)
    total.add(comparison(2, 3, "a"))
    total.add(Comparison({"cost": (Decimal(1), Decimal(1))}, {}))
    checks = {check.what: check for check in total.checks("{} here")}
    assert (checks["calls here"].raw, checks["calls here"].rollups) == (3, 4)
    assert checks["cost_usd here"].equal


def test_equal_totals_with_a_differing_key_are_different() -> None:
    assert not Check("calls", 3, 3, 1, ("k",)).equal


def test_the_edges_of_buckets_are_exact() -> None:
    edges = bucket_edges()
    for index in (0, 1, 32, 33, 320, 500, 1000, 1500, 2015):
        least = edges[index]
        if least < 2**63:
            assert bucket(least) >= index
            assert least <= 1 or bucket(least - 1) < index
    assert edges == sorted(edges)
    assert edges[-2] == 2**63
