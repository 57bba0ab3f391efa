"""Repricing by corrections: to the pico, twice is once, and everything downstream follows."""

from __future__ import annotations

from decimal import Decimal
from itertools import islice
from pathlib import Path
from uuid import uuid4

import orjson
import pytest

import callmeter
from callmeter.cli.corrections import Run, corrections
from callmeter.clock import SystemClock
from callmeter.money import from_pico
from callmeter.pricing import Pricer, build_book, load_own_prices
from callmeter.replay.sending import send_all
from callmeter.schema.envelope import Header, encode
from callmeter.transports.factory import open_transport
from callmeter.transports.protocol import Sealed
from callmeter_sinks.queries.repricing import priced_calls
from support.cli import Ran
from support.cli import callmeter as run
from support.embedded import Pipeline

# 3 calls of gpt-4o-mini, 3 of a model nobody prices, 1 with a cost of its own.
INPUT, OUTPUT, EACH = 1001, 333, 3
OLD = EACH * (INPUT * 150_000 + OUTPUT * 600_000)  # pico: 0.15 and 0.60 USD a million
NEW = EACH * (INPUT * 123_457 + OUTPUT * 700_001)
SECRET = EACH * (INPUT * 1_000_000 + OUTPUT * 2_000_000)
REPORTED = "0.5"

PRICES = """
[[price]]
provider = "openai"
model = "gpt-4o-mini"
input = "0.123457"
output = "0.700001"

[[price]]
provider = "nobody"
model = "secret"
input = "1"
output = "2"
"""


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    file = tmp_path / "own.toml"
    file.write_text(PRICES)
    return file


@pytest.fixture
def spent(embedded: Pipeline, project: str) -> str:
    """A project that has spent OLD and REPORTED, and calls without a price."""
    client = callmeter.init(embedded.url, project=project, service="shop", environment="test")
    try:
        for _ in range(EACH):
            for provider, model in (("openai", "gpt-4o-mini"), ("nobody", "secret")):
                with callmeter.generation(model=model, provider=provider, tags={"t": "x"}) as call:
                    call.usage(input=INPUT, output=OUTPUT)
        with callmeter.generation(model="gpt-4o-mini", provider="openai") as call:
            call.usage(input=INPUT, output=OUTPUT)
            call.cost(REPORTED)
        callmeter.flush_or_raise()
    finally:
        client.close()
    embedded.wait(lambda: cost(embedded, project) == from_pico(OLD) + Decimal(REPORTED))
    return project


def cost(embedded: Pipeline, project: str) -> Decimal | None:
    return embedded.queries.report(project=project).totals.cost_usd


def reprice(embedded: Pipeline, prices: Path, project: str, *more: str) -> Ran:
    return run("reprice", "--prices", prices, "--dir", embedded.directory,
               "--project", project, "-q", "--json", *more)  # fmt: skip


def test_a_dry_run_writes_nothing(embedded: Pipeline, prices: Path, spent: str) -> None:
    said = reprice(embedded, prices, spent, "--dry-run").json()
    assert said["totals"]["changed"] == 2 * EACH
    assert said["totals"]["newly_priced"] == EACH
    assert Decimal(said["totals"]["after_usd"]) == from_pico(NEW + SECRET)
    assert cost(embedded, spent) == from_pico(OLD) + Decimal(REPORTED)
    assert embedded.store.query(
        "SELECT count() FROM costs WHERE project = {p:String}", {"p": spent}
    ).rows == [(0,)]


def test_every_figure_follows_to_the_pico(embedded: Pipeline, prices: Path, spent: str) -> None:
    said = reprice(embedded, prices, spent).json()
    rows = {row["model"]: row for row in said["rows"]}
    assert Decimal(rows["gpt-4o-mini"]["before_usd"]) == from_pico(OLD)
    assert Decimal(rows["gpt-4o-mini"]["after_usd"]) == from_pico(NEW)
    assert rows["secret"]["newly_priced"] == EACH
    assert Decimal(rows["secret"]["difference_usd"]) == from_pico(SECRET)
    wanted = from_pico(NEW + SECRET) + Decimal(REPORTED)
    assert cost(embedded, spent) == wanted
    for by in ("model", "service", "environment", "hour", "user", "tag:t", "status"):
        report = embedded.queries.report([by], project=spent)
        assert report.totals.cost_usd == wanted, by
        assert sum(row.figures.calls for row in report.rows) == 2 * EACH + 1, by
    by_model = {
        row.key["model"]: row.figures.cost_usd
        for row in embedded.queries.report(project=spent).rows
    }
    assert by_model == {
        "gpt-4o-mini": from_pico(NEW) + Decimal(REPORTED),
        "secret": from_pico(SECRET),
    }
    unpriced = run("prices", "unpriced", "--dir", embedded.directory, "--project", spent, "--json")
    assert [(row["calls"], row["repriced"]) for row in unpriced.json()["rows"]] == [(EACH, EACH)]
    verified = orjson.loads(run("verify", "--dir", embedded.directory, "--json").out)
    assert verified["equal"], [check for check in verified["checks"] if not check["equal"]]


def test_twice_is_once_and_back_again(
    embedded: Pipeline, prices: Path, spent: str, tmp_path: Path
) -> None:
    for changed in (2 * EACH, 0):
        said = reprice(embedded, prices, spent).json()
        assert said["totals"]["changed"] == changed
        assert cost(embedded, spent) == from_pico(NEW + SECRET) + Decimal(REPORTED)
    # Another book, and the first again: each a correction of what holds now.
    other = tmp_path / "other.toml"
    other.write_text(PRICES.replace('"0.123457"', '"0.15"').replace('"0.700001"', '"0.60"'))
    assert reprice(embedded, other, spent).json()["totals"]["changed"] == EACH
    assert cost(embedded, spent) == from_pico(OLD + SECRET) + Decimal(REPORTED)
    assert reprice(embedded, prices, spent).json()["totals"]["changed"] == EACH
    assert cost(embedded, spent) == from_pico(NEW + SECRET) + Decimal(REPORTED)


@pytest.mark.parametrize("sent", [0, 1, 4])
def test_a_run_that_was_cut_short_is_taken_over(
    embedded: Pipeline, prices: Path, spent: str, sent: int
) -> None:
    """Fence and some corrections are on their way, the close is not: the next run does the rest."""
    cut_short, now_us = Run(spent, 0), SystemClock().now_us()
    envelopes = [cut_short.fence("cut short", now_us)]
    pricer = Pricer(build_book(load_own_prices(prices)))
    calls = priced_calls(embedded.store, since=None, until=None, project=spent)
    lines = list(islice(corrections(calls, pricer, {}, now_us), sent))
    if lines:
        header = Header(cut_short.source, 1, sent, now_us, spent, accepted=1 + sent)
        envelopes.append(Sealed(cut_short.source, 1, sent, encode(header, lines)))
    send_all(open_transport(embedded.url), envelopes, clock=SystemClock())
    # Not waited for: what was sent may not be stored yet.
    reprice(embedded, prices, spent).json()
    assert cost(embedded, spent) == from_pico(NEW + SECRET) + Decimal(REPORTED)
    assert embedded.store.query(
        "SELECT count() FROM costs WHERE project = {p:String}", {"p": spent}
    ).rows == [(2 * EACH,)]
    assert Run(spent, 1).source in {row.source for row in embedded.queries.sources(project=spent)}
    assert reprice(embedded, prices, spent).json()["totals"]["changed"] == 0


def test_a_period_leaves_the_rest_alone(embedded: Pipeline, prices: Path, spent: str) -> None:
    said = reprice(embedded, prices, spent, "--until", "1d").json()
    assert said["rows"] == []
    assert cost(embedded, spent) == from_pico(OLD) + Decimal(REPORTED)


def test_wrong_usage_is_one_line(prices: Path, tmp_path: Path) -> None:
    nowhere = run("reprice", "--prices", prices, "--dir", tmp_path / f"{uuid4().hex}")
    assert nowhere.code == 78
    assert "start `callmeter up`" in nowhere.err
    assert not list(tmp_path.glob("*/log.db"))
    no_store = run("reprice", "--prices", prices, "--kafka", "kafka://localhost:1")
    assert (no_store.code, "--store" in no_store.err) == (64, True)
    bad = tmp_path / "bad.toml"
    bad.write_text('[[price]]\nprovider = "a"\nmodel = "b"\ninput = 0.1\n')
    assert run("reprice", "--prices", bad, "--dir", tmp_path).code in {65, 78}
