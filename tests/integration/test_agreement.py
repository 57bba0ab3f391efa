"""The same calls give the same figures in the SDK, in the stream's sums and in the stored rows."""

from __future__ import annotations

import random
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

import callmeter
from callmeter.clock import SystemClock
from callmeter.money import from_pico, to_pico
from callmeter.pricing import Pricer, installed_book
from callmeter.replay.recorded import recorded_envelopes
from callmeter.replay.sending import send_all
from callmeter.transports.factory import open_transport
from callmeter.transports.protocol import Sealed
from callmeter_sinks.progress import arrived
from callmeter_sinks.verify import verify
from support.embedded import Pipeline

MODELS = (("openai", "gpt-4o-mini"), ("openai", "gpt-4o"), ("anthropic", "claude-3-haiku-20240307"))
SEEDS = (1, 2, 3)


@dataclass
class Tally:
    """What the program knows of its own calls."""

    calls: int = 0
    attempts: int = 0
    failures: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_pico: int = 0
    unpriced: int = 0
    usage_unknown: int = 0

    @property
    def cost_usd(self) -> Decimal:
        return from_pico(self.cost_pico)


class ModelFailedError(Exception):
    """What the program's model client raises."""


def one_call(rng: random.Random, pricer: Pricer, tally: Tally) -> None:
    provider, model = rng.choice(MODELS)
    kind = rng.choice(["plain"] * 6 + ["failed", "no usage", "own cost", "no price"])
    if kind == "no price":
        model = "a-model-of-our-own"
    usage = {"input": rng.randrange(1, 5000), "output": rng.randrange(1, 900)}
    tally.calls += 1
    tally.attempts += 1
    try:
        with callmeter.generation("answer", model=model, provider=provider) as call:
            if kind == "failed":
                tally.failures += 1
                tally.usage_unknown += 1
                raise ModelFailedError
            if kind == "no usage":
                tally.usage_unknown += 1
                return
            call.usage(**usage)
            tally.input_tokens += usage["input"]
            tally.output_tokens += usage["output"]
            if kind == "own cost":
                call.cost("0.000000012345")
                tally.cost_pico += to_pico("0.000000012345")
            elif kind == "no price":
                tally.unpriced += 1
            else:
                now_us = SystemClock().now_us()
                priced = pricer.price(provider, model, now_us, usage)
                assert priced is not None
                tally.cost_pico += priced.cost_pico
    except ModelFailedError:
        return


@callmeter.track(name="program")
def program(rng: random.Random, pricer: Pricer, tally: Tally) -> None:
    for _ in range(rng.randrange(1, 4)):
        one_call(rng, pricer, tally)


def record(file: Path, project: str, seed: int) -> Tally:
    """Run a program that sends to a file; what it knows of its calls."""
    rng, pricer, tally = random.Random(seed), Pricer(installed_book()), Tally()
    callmeter.init(f"jsonl:{file}", project=project, max_batch_events=7)
    try:
        for _ in range(60):
            program(rng, pricer, tally)
        callmeter.metric("loss", 0.5, step=seed)
        result = callmeter.flush_or_raise()
        assert result.ok
    finally:
        callmeter.close()
    return tally


def send(embedded: Pipeline, envelopes: list[Sealed]) -> None:
    send_all(open_transport(embedded.url), envelopes, clock=SystemClock())
    source = envelopes[0].source
    wanted = len({envelope.seq for envelope in envelopes})

    def stored() -> bool:
        ledger = arrived(embedded.store, [source])[source]
        return ledger.envelopes >= wanted and verify(embedded.store).equal

    embedded.wait(stored)


def assert_agree(embedded: Pipeline, project: str, tally: Tally) -> None:
    stream = embedded.queries.report(["project"], project=project).totals
    (row,) = embedded.store.query(
        "SELECT count(), sum(attempts), countIf(status != 'ok'), sum(input_tokens), "
        "sum(output_tokens), sum(cost), countIf(unpriced), countIf(usage_unknown) FROM calls "
        "WHERE project = {project:String} AND operation = 'chat'",
        {"project": project},
    ).rows
    assert row == (
        tally.calls, tally.attempts, tally.failures, tally.input_tokens, tally.output_tokens,
        tally.cost_usd, tally.unpriced, tally.usage_unknown,
    )  # fmt: skip
    assert row == (
        stream.calls, stream.attempts, stream.failures, stream.input_tokens,
        stream.output_tokens, stream.cost_usd, stream.unpriced_calls, stream.usage_unknown,
    )  # fmt: skip


@pytest.mark.acceptance(230)
@pytest.mark.parametrize("seed", SEEDS)
def test_sdk_stream_and_batch_agree(
    embedded: Pipeline, project: str, tmp_path: Path, seed: int
) -> None:
    tally = record(tmp_path / "calls.jsonl", project, seed)
    assert tally.failures
    assert tally.unpriced
    assert tally.usage_unknown
    send(embedded, list(recorded_envelopes(tmp_path / "calls.jsonl")))
    assert_agree(embedded, project, tally)


@pytest.mark.acceptance(231)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_event_twice_and_out_of_order_changes_nothing(
    embedded: Pipeline, project: str, tmp_path: Path, seed: int
) -> None:
    tally = record(tmp_path / "calls.jsonl", project, seed)
    twice = [*recorded_envelopes(tmp_path / "calls.jsonl")] * 2
    random.Random(seed).shuffle(twice)
    assert [e.seq for e in twice] != sorted(e.seq for e in twice)
    send(embedded, twice)
    source = twice[0].source
    embedded.wait(lambda: _duplicates(embedded, source) == len(twice) // 2)
    assert_agree(embedded, project, tally)


def _duplicates(embedded: Pipeline, source: str) -> int:
    sql = "SELECT countIf(verdict = 'duplicate') FROM envelopes WHERE source = {source:UUID}"
    return int(embedded.store.query(sql, {"source": source}).rows[0][0])
