"""The same calls, made through every interface, are the same calls: once, and sent twice."""

from __future__ import annotations

import random
from collections.abc import Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import callmeter
from callmeter.clock import SystemClock
from callmeter.money import from_pico
from callmeter.pricing import Pricer, installed_book
from callmeter.replay.recorded import recorded_envelopes
from callmeter.replay.sending import send_all
from callmeter.transports.factory import open_transport
from callmeter.transports.protocol import Sealed
from support.embedded import Pipeline
from support.facades import FACADES, PROVIDER, Ask, Told
from support.synalinks_standins import synalinks_engine

__all__ = ["synalinks_engine"]  # a fixture

pytestmark = pytest.mark.usefixtures("synalinks_engine")

ASKS = st.lists(
    st.builds(
        Ask,
        st.sampled_from(["gpt-4o-mini", "gpt-4o", "o3-mini"]),
        st.integers(1, 9_000),
        st.integers(1, 3_000),
        st.integers(0, 4).map(lambda n: n == 0),
    ),
    min_size=1,
    max_size=12,
)
# Each example is five programs through a running pipeline; what hypothesis makes differs by run.
FEW = settings(
    max_examples=4,
    phases=[Phase.generate],
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
PRICER = Pricer(installed_book())


def cost_of(asks: Sequence[Ask]) -> Decimal:
    """What the price book says of answered calls, one by one."""
    now_us = SystemClock().now_us()
    pico = 0
    for ask in asks:
        usage = {"input": ask.input, "output": ask.output}
        priced = PRICER.price(PROVIDER, ask.model, now_us, usage)
        assert priced is not None
        pico += priced.cost_pico
    return from_pico(pico)


def record(name: str, asks: Sequence[Ask], project: str) -> tuple[Told, list[Sealed]]:
    """A program that makes the calls and sends to a file; what it was told, and the file."""
    with TemporaryDirectory() as directory:
        file = Path(directory) / "calls.jsonl"
        callmeter.init(f"jsonl:{file}", project=project, max_batch_events=5)
        try:
            told = FACADES[name](asks)
            assert callmeter.flush_or_raise().ok
        finally:
            callmeter.close()
        return told, list(recorded_envelopes(file))


def send(embedded: Pipeline, envelopes: list[Sealed]) -> None:
    send_all(open_transport(embedded.url), envelopes, clock=SystemClock())


def stored(embedded: Pipeline, project: str) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Model calls of a project: from the rows, and from the stream's sums."""
    (rows,) = embedded.store.query(
        "SELECT count(), sum(attempts), countIf(status != 'ok'), sum(input_tokens), "
        "sum(output_tokens), sum(cost), countIf(unpriced) FROM calls "
        "WHERE project = {project:String} AND operation = 'chat'",
        {"project": project},
    ).rows
    sums = embedded.queries.report(["project"], project=project).totals
    return tuple(rows), (
        sums.calls, sums.attempts, sums.failures, sums.input_tokens, sums.output_tokens,
        sums.cost_usd, sums.unpriced_calls,
    )  # fmt: skip


def all_judged(embedded: Pipeline, sent: list[list[Sealed]]) -> bool:
    """Whether every envelope is in the ledger, as often as it was sent."""
    counts = {envelopes[0].source: len(envelopes) for envelopes in sent}
    sql = (
        "SELECT toString(source), count() FROM envelopes "
        "WHERE source IN {sources:Array(UUID)} GROUP BY source"
    )
    return dict(embedded.store.query(sql, {"sources": list(counts)}).rows) == counts


def truth_of(asks: Sequence[Ask]) -> tuple[Any, ...]:
    """What must be stored of these calls: the columns of ``stored``."""
    answered = [ask for ask in asks if not ask.fails]
    tokens = sum(ask.input for ask in answered), sum(ask.output for ask in answered)
    # Where nothing was answered, tokens and money are unknown, not 0.
    known = (*tokens, cost_of(answered)) if answered else (None, None, None)
    return (len(asks), len(asks), len(asks) - len(answered), *known, 0)


def assert_told(name: str, told: Told, asks: Sequence[Ask]) -> None:
    """The program itself was told the same, as far as its interface tells."""
    answered = [ask for ask in asks if not ask.fails]
    assert told.input == sum(ask.input for ask in answered), name
    assert told.output == sum(ask.output for ask in answered), name
    assert told.calls in {None, len(asks), len(answered)}, name
    assert told.cost_usd is None or told.cost_usd == pytest.approx(cost_of(answered)), name


def through_every_facade(
    embedded: Pipeline, asks: Sequence[Ask], *, twice: random.Random | None = None
) -> dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Make the calls through each interface; what is stored of each, by its name."""
    sent: dict[str, list[Sealed]] = {}
    projects = {name: f"{name}-{uuid4().hex[:10]}" for name in FACADES}
    for name, project in projects.items():
        told, envelopes = record(name, asks, project)
        assert_told(name, told, asks)
        sent[name] = envelopes if twice is None else envelopes * 2
        if twice is not None:
            twice.shuffle(sent[name])
        send(embedded, sent[name])
    embedded.wait(partial(all_judged, embedded, list(sent.values())))
    for envelopes in sent.values():
        embedded.settle(envelopes[0].source, len({envelope.seq for envelope in envelopes}))
    return {name: stored(embedded, project) for name, project in projects.items()}


@pytest.mark.acceptance(230)
@FEW
@given(asks=ASKS)
def test_every_facade_gives_the_same(embedded: Pipeline, asks: list[Ask]) -> None:
    truth = truth_of(asks)
    assert through_every_facade(embedded, asks) == dict.fromkeys(FACADES, (truth, truth))


@pytest.mark.acceptance(231)
@FEW
@given(asks=ASKS, order=st.randoms(use_true_random=False))
def test_also_when_everything_comes_twice_and_out_of_order(
    embedded: Pipeline, asks: list[Ask], order: random.Random
) -> None:
    truth = truth_of(asks)
    found = through_every_facade(embedded, asks, twice=order)
    assert found == dict.fromkeys(FACADES, (truth, truth))
