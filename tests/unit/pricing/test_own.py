"""The own price file: what it may say, and one line for every fault."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from callmeter.errors import DataError
from callmeter.money import format_usd
from callmeter.pricing import Pricer, build_book, check_book, load_own_prices, parse_own_prices

EXAMPLE = """
[[price]]
provider = "vLLM"
model = "Llama-3*"
aliases = ["meta-llama/*", "our-llama"]
input = "0.10"
output = "0.40"
cache_read = "0.01"
tiers = [{ above = 200000, input = "0.20", output = "0.80" }]
batch = "0.5"
service_tiers = { flex = "0.5", Priority = "2" }
units = { gpu_second = "500" }

[[price]]
provider = "openai"
model = "gpt-4o"
from = 2026-01-01
input = "2"
output = "8"
search = "10000"

[[price]]
provider = "openai"
model = "gpt-4o"
from = 2026-06-01T00:00:00+02:00
until = "2026-07-01"
input = 1
output = "4"
"""
MAY_2026 = 1_777_593_600_000_000
MILLION = {"input": 1_000_000, "output": 1_000_000}


def usd(pricer, provider, model, usage, at_us=MAY_2026, **context):
    priced = pricer.price(provider, model, at_us, usage, **context)
    return None if priced is None else (format_usd(priced.cost_pico), priced.source)


@pytest.fixture(scope="module")
def pricer() -> Pricer:
    book = build_book(parse_own_prices(EXAMPLE))
    assert check_book(book) == []
    return Pricer(book)


def test_own_prices_are_laid_over_the_others(pricer):
    assert usd(pricer, "openai", "gpt-4o", MILLION) == ("10", "own")
    june_us, july_us = MAY_2026 + 31 * 86_400_000_000, MAY_2026 + 61 * 86_400_000_000
    assert usd(pricer, "openai", "gpt-4o", MILLION, june_us - 7_200_000_001) == ("10", "own")
    assert usd(pricer, "openai", "gpt-4o", MILLION, june_us - 7_200_000_000) == ("5", "own")
    assert usd(pricer, "openai", "gpt-4o", MILLION, july_us) == ("10", "own")
    assert usd(pricer, "openai", "gpt-4o", {**MILLION, "search": 3}) == ("10.03", "own")
    # before its time, and for other sellers and models, genai-prices holds
    assert usd(pricer, "openai", "gpt-4o", MILLION, 1_735_689_600_000_000) == (
        "12.5",
        "genai-prices",
    )
    assert usd(pricer, "azure", "gpt-4o", MILLION) == ("12.5", "genai-prices")
    assert usd(pricer, "openai", "gpt-4o-mini", MILLION) == ("0.75", "genai-prices")


@pytest.mark.parametrize("model", ["llama-3-8b", "LLAMA-3", "meta-llama/Llama-2", "our-llama"])
def test_patterns_and_aliases(pricer, model):
    usage = {"input": 200_000, "output": 1_000_000, "cache_read": 100_000, "gpu_second": 4}
    assert usd(pricer, "vllm", model, usage) == ("0.413", "own")
    assert usd(pricer, "vllm", model, {**usage, "input": 200_001}) == ("0.8230002", "own")


def test_factors_stack(pricer):
    assert usd(pricer, "vllm", "llama-3", MILLION, batch=True) == ("0.5", "own")
    assert usd(pricer, "vllm", "llama-3", MILLION, service_tier="priority") == ("2", "own")
    assert usd(pricer, "vllm", "llama-3", MILLION, service_tier="flex", batch=True) == (
        "0.25",
        "own",
    )


def test_only_names_that_fit(pricer):
    assert usd(pricer, "vllm", "mistral", MILLION) is None
    assert usd(pricer, "vllm", "our-llama-2", MILLION) is None


START = '[[price]]\nprovider = "p"\nmodel = "m"\n'


#: What faults repeat.
PRICE = 'USD per million units as quoted text, e.g. "0.15"'
FACTOR = 'a factor as quoted text, e.g. "0.5"'
NAMES = "a name, or a prefix with * at its end"
TIER = '{ above = 200000, input = "0.30", … } with "above" in input tokens, ascending'
MOMENT = "a date (UTC) like 2026-01-01, or a time with its offset"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("price = 3", "price: expected entries that begin with [[price]]"),
        ("prices = []", "prices: unknown, expected [[price]] entries"),
        (
            '[[price]]\nmodel = "m"\ninput = "1"',
            "price 1: provider: missing, expected a name",
        ),
        (
            '[[price]]\nprovider = "p"\ninput = "1"',
            f"price 1: model: missing, expected {NAMES}",
        ),
        (
            '[[price]]\nprovider = "p*"\nmodel = "m"\ninput = "1"',
            "price 1: provider: expected a name",
        ),
        (
            '[[price]]\nprovider = "p"\nmodel = "*"\ninput = "1"',
            f"price 1: model: expected {NAMES}",
        ),
        (
            '[[price]]\nprovider = "p"\nmodel = "a*b"\ninput = "1"',
            f"price 1: model: expected {NAMES}",
        ),
        (
            START,
            f"price 1: input: missing, expected at least one price in {PRICE}",
        ),
        (
            START + "input = 0.15",
            f'price 1: input: expected {PRICE}, not a float: write "0.15" in quotes',
        ),
        (
            START + 'input = "-1"',
            f"price 1: input: expected {PRICE}, not a negative one",
        ),
        (
            START + 'input = "1e3"',
            f"price 1: input: expected {PRICE}",
        ),
        (
            START + "input = true",
            f"price 1: input: expected {PRICE}",
        ),
        (
            START + 'input = "1"\noutptu = "2"',
            "price 1: outptu: unknown, expected a unit or a key of [[price]], did you mean output?",
        ),
        (
            START + 'input = "1"\nfrom = "soon"',
            f"price 1: from: expected {MOMENT}",
        ),
        (
            START + 'input = "1"\nfrom = 3',
            f"price 1: from: expected {MOMENT}",
        ),
        (
            START + 'input = "1"\nfrom = 2026-01-02\nuntil = 2026-01-02',
            "price 1: until: expected a time after from",
        ),
        (
            START + 'input = "1"\nbatch = 0.5',
            f'price 1: batch: expected {FACTOR}, not a float: write "0.5" in quotes',
        ),
        (
            START + 'input = "1"\nservice_tiers = { flex = "x" }',
            f"price 1: service_tiers.flex: expected {FACTOR}",
        ),
        (
            START + 'input = "1"\nservice_tiers = 3',
            "price 1: service_tiers: expected a table { name = value }",
        ),
        (
            START + 'input = "1"\naliases = "x"',
            "price 1: aliases: expected a list of names, each exact or a prefix with *",
        ),
        (
            START + 'input = "1"\nunits = { output = "1" }',
            "price 1: units.output: expected a unit of your own, named like my_unit",
        ),
        (
            START + 'cache_read = "1"',
            "price 1: cache_read: needs a price for input too, which it is a part of",
        ),
        (
            START + 'input = "1"\ncache_read = "1"\naudio_input = "2"',
            "price 1: cache_audio_read: missing, since audio_input and cache_read overlap in it",
        ),
        (
            START + 'input = "1"\ntiers = [{ above = 5, output = "1" }]',
            "price 1: tiers.output: expected a unit that has a price in this entry",
        ),
        (
            START + 'input = "1"\ntiers = [{ above = 5, input = "1" }, { above = 5, input = "2" }]',
            f"price 1: tiers: expected {TIER}",
        ),
        (
            START + 'input = "1"\ntiers = "x"',
            f"price 1: tiers: expected {TIER}",
        ),
        (
            START + 'input = "1"\n' + START + 'input = "2"',
            "price 2: from: same provider, model and start as price 1",
        ),
    ],
)
def test_each_fault_is_one_line_that_says_what_is_expected(text, line):
    with pytest.raises(DataError) as caught:
        parse_own_prices(text, "f.toml")
    assert f"f.toml: {line}" in str(caught.value).split("\n")


def test_all_faults_are_told_at_once():
    text = START + 'input = 0.1\noutptu = "2"\n' + '[[price]]\nmodel = "m"\ninput = "-1"\n'
    with pytest.raises(DataError) as caught:
        parse_own_prices(text, "f.toml")
    assert len(str(caught.value).split("\n")) == 4


def test_a_file_that_is_not_there_or_no_toml(tmp_path):
    with pytest.raises(DataError, match="cannot read the price file"):
        load_own_prices(tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("[[price")
    with pytest.raises(DataError, match="not TOML"):
        load_own_prices(bad)
    bad.write_bytes(b"\xff")
    with pytest.raises(DataError, match="not UTF-8"):
        load_own_prices(bad)
    good = tmp_path / "good.toml"
    good.write_text(EXAMPLE)
    assert len(load_own_prices(good).entries) == 2


def test_the_guide_shows_a_file_that_is_accepted():
    guide = Path(__file__).parents[3] / "docs" / "guides" / "prices.md"
    (example,) = re.findall(r"```toml\n(.*?)```", guide.read_text("utf-8"), re.DOTALL)
    assert len(parse_own_prices(example).entries) == 2
