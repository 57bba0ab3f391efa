"""Pricing by a small book made here: time, tiers, parts, factors, rounding, memory."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callmeter.pricing import Pricer
from callmeter.pricing import pricer as pricer_module
from callmeter.pricing.book import (
    DAY_US,
    GENAI_PRICES,
    OWN,
    Entry,
    Match,
    Period,
    PriceBook,
    Provider,
    Rate,
    Tier,
    Validity,
    Variant,
)
from callmeter.pricing.card import MAX_SHAPES, Card, divide_half_even
from callmeter.pricing.units import UNITS

DAY_1 = 20_000 * DAY_US
DAY_2 = DAY_1 + DAY_US


def rates(**prices: int | str | Fraction) -> dict[str, Rate]:
    return {unit: Rate(Fraction(price)) for unit, price in prices.items()}


def book(
    *periods: Period, variants: tuple[Variant, ...] = (), minimum=None, more: tuple[Entry, ...] = ()
):
    entry = Entry("acme", "m", Match("equals", "m"), periods, GENAI_PRICES, variants, minimum or {})
    return PriceBook("v", (Provider("acme"), Provider("shop", fallbacks=("acme",))), (*more, entry))


def cost(pricer: Pricer, usage, at_us=DAY_1, provider="acme", **context) -> int | None:
    priced = pricer.price(provider, "m", at_us, usage, **context)
    return None if priced is None else priced.cost_pico


def test_parts_are_taken_out_of_their_whole():
    pricer = Pricer(book(Period(rates(input=10, output=40, cache_read=1, cache_write=12))))
    assert cost(pricer, {"input": 100, "output": 10, "cache_read": 30, "cache_write": 20}) == (
        50 * 10 + 30 * 1 + 20 * 12 + 10 * 40
    )


def test_a_part_without_a_price_costs_what_its_whole_costs():
    pricer = Pricer(book(Period(rates(input=10, output=40))))
    plain = cost(pricer, {"input": 100, "output": 10})
    assert (
        plain
        == cost(pricer, {"input": 100, "output": 10, "cache_read": 30, "reasoning": 4})
        == 1400
    )


def test_what_two_parts_share_is_counted_once():
    pricer = Pricer(
        book(Period(rates(input=10, cache_read=1, audio_input=100, cache_audio_read=7)))
    )
    usage = {"input": 100, "cache_read": 40, "audio_input": 30, "cache_audio_read": 20}
    # 20 cached audio, 20 other cached, 10 other audio, 50 of neither
    assert cost(pricer, usage) == 20 * 7 + 20 * 1 + 10 * 100 + 50 * 10


@pytest.mark.parametrize(
    "usage",
    [
        {"input": 5, "cache_read": 6},
        {"cache_read": 6},
        {"input": 5, "cache_read": 3, "audio_input": 1},
        {"input": 5, "cache_read": 3, "audio_input": 3, "cache_audio_read": 0},
        {"input": -1},
        {"input": 5, "output": -1},
        {"input": 5, "image": 1},
        {"input": 5, "search": 1},
        {"input": 5, "output": 1},
    ],
)
def test_what_contradicts_itself_or_has_no_price_is_unpriced(usage):
    priced = rates(input=10, cache_read=1, audio_input=100, cache_audio_read=7)
    assert cost(Pricer(book(Period(priced))), usage) is None


def test_a_count_of_zero_needs_no_price():
    pricer = Pricer(book(Period(rates(input=10))))
    assert cost(pricer, {"input": 5, "output": 0, "image": 0, "cache_read": 0}) == 50
    assert cost(pricer, {}) == 0


def test_requests_are_counted_without_being_told():
    pricer = Pricer(book(Period(rates(input=10, request=5))))
    assert cost(pricer, {"input": 2}) == 25
    assert cost(pricer, {}) == 5
    assert cost(pricer, {"input": 2, "request": 3}) == 35
    assert cost(Pricer(book(Period(rates(input=10)))), {"input": 2, "request": 1}) == 20


def test_a_unit_of_ones_own_stands_alone():
    pricer = Pricer(book(Period(rates(input=10, image=1000))))
    assert cost(pricer, {"input": 2, "image": 3}) == 3020


@pytest.mark.parametrize(
    ("count", "price"), [(0, 10), (200, 10), (201, 30), (1000, 30), (1001, 50)]
)
def test_a_tier_holds_for_all_tokens_strictly_above_its_threshold(count, price):
    tiered = {
        "input": Rate(Fraction(10), (Tier(200, Fraction(30)), Tier(1000, Fraction(50)))),
        "output": Rate(Fraction(2), (Tier(200, Fraction(3)),)),
    }
    pricer = Pricer(book(Period(tiered)))
    parts = pricer.parts("acme", "m", DAY_1, {"input": count, "output": 7})
    assert parts is not None
    assert (parts.input_pico, parts.output_pico) == (count * price, 7 * (2 if count <= 200 else 3))
    assert cost(pricer, {"input": count, "output": 7}) == count * price + 7 * (
        2 if count <= 200 else 3
    )


def test_the_last_period_that_holds_decides_to_the_microsecond():
    pricer = Pricer(
        book(
            Period(rates(input=1)),
            Period(rates(input=2), Validity(from_us=DAY_1)),
            Period(rates(input=3), Validity(from_us=DAY_2, until_us=DAY_2 + 10)),
        )
    )
    for at_us, price in [
        (0, 1),
        (DAY_1 - 1, 1),
        (DAY_1, 2),
        (DAY_2 - 1, 2),
        (DAY_2, 3),
        (DAY_2 + 9, 3),
        (DAY_2 + 10, 2),
        (DAY_1 - 1, 1),  # back again: no state remains
    ]:
        assert cost(pricer, {"input": 1}, at_us) == price


def test_times_of_day_over_midnight():
    night = Validity(daily=(DAY_US - 100, 50))
    pricer = Pricer(book(Period(rates(input=10)), Period(rates(input=1), night)))
    for offset, price in [(0, 1), (49, 1), (50, 10), (DAY_US - 101, 10), (DAY_US - 100, 1)]:
        assert cost(pricer, {"input": 1}, DAY_1 + offset) == price


@given(st.integers(0, 3 * DAY_US), st.integers(0, 3 * DAY_US))
def test_any_order_of_times_gives_what_each_time_alone_gives(one, other):
    periods = (
        Period(rates(input=1)),
        Period(rates(input=2), Validity(from_us=DAY_1 + DAY_US)),
        Period(rates(input=3), Validity(daily=(DAY_US // 2, DAY_US // 3))),
    )
    pricer = Pricer(book(*periods))
    for at_us in (DAY_1 + one, DAY_1 + other):
        holding = [period for period in periods if period.valid.holds(at_us)]
        assert cost(pricer, {"input": 1}, at_us) == holding[-1].rates["input"].price


def test_before_its_first_price_a_model_is_unpriced():
    pricer = Pricer(book(Period(rates(input=1), Validity(from_us=DAY_1))))
    assert cost(pricer, {"input": 1}, DAY_1 - 1) is None


def test_variants_replace_prices_one_by_one_and_factors_multiply_all():
    variants = (
        Variant({"service_tier": "flex"}, rates(input=5)),
        Variant({"processing": "batch"}, rates(input=4, output=20)),
        Variant({"speed": "fast"}, rates(input=60)),
    )
    pricer = Pricer(book(Period(rates(input=10, output=40)), variants=variants))
    usage = {"input": 1, "output": 1}
    assert cost(pricer, usage) == 50
    assert cost(pricer, usage, service_tier="unheard-of") == 50
    assert cost(pricer, usage, service_tier="Flex") == 45
    assert cost(pricer, usage, batch=True) == cost(pricer, usage, service_tier="batch") == 24
    assert cost(pricer, usage, service_tier="flex", batch=True) == 25  # the first variant decides
    assert cost(pricer, usage, service_tier="fast") == 100
    # sold under another roof, special prices do not apply
    assert cost(pricer, usage, provider="shop", service_tier="flex") == 50
    factored = Period(rates(input=10), factors={"flex": Fraction(1, 2), "batch": Fraction(1, 3)})
    pricer = Pricer(book(factored))
    assert cost(pricer, {"input": 3}, service_tier="flex") == 15
    assert cost(pricer, {"input": 3}, batch=True) == 10
    assert cost(pricer, {"input": 3}, service_tier="flex", batch=True) == 5


def test_own_prices_come_first_exact_before_prefix_and_only_in_their_time():
    def own(pattern: Match, price: int, valid: Validity = Validity()) -> Entry:  # noqa: B008
        return Entry("acme", pattern.text, pattern, (Period(rates(input=price), valid),), OWN)

    pricer = Pricer(
        book(
            Period(rates(input=1)),
            more=(
                own(Match("prefix", ""), 2),
                own(Match("equals", "m"), 3, Validity(from_us=DAY_1, until_us=DAY_2)),
                own(Match("prefix", "m"), 4, Validity(from_us=DAY_1 - 10)),
            ),
        )
    )
    assert cost(pricer, {"input": 1}, DAY_1) == 3
    assert cost(pricer, {"input": 1}, DAY_1 - 1) == 4
    assert cost(pricer, {"input": 1}, DAY_2) == 4
    assert cost(pricer, {"input": 1}, DAY_1 - 11) == 2
    priced = pricer.price("acme", "m", DAY_1, {"input": 1})
    assert priced is not None
    assert (priced.source, priced.version) == ("own", "v")


def test_a_minimum_is_billed_once_a_unit_is_used():
    pricer = Pricer(
        book(
            Period(rates(audio_seconds=7, audio_input_seconds=5)),
            minimum={"audio_seconds": 10, "audio_input_seconds": 10},
        )
    )
    assert cost(pricer, {"audio_seconds": 3}) == 50
    assert cost(pricer, {"audio_seconds": 30}) == 150
    assert cost(pricer, {"audio_input_seconds": 4}) == 50
    assert cost(pricer, {"audio_seconds": 0}) == 0
    assert cost(pricer, {}) == 0


counts = st.integers(0, 2**40)
prices = st.fractions(0, 10**9, max_denominator=3600)


@given(counts, counts, prices, prices)
def test_exact_against_decimal_and_rounded_once(input_, output, per_input, per_output):
    card = Card({"input": Rate(per_input), "output": Rate(per_output)}, {})
    with localcontext(prec=200, rounding=ROUND_HALF_EVEN):
        common = per_input.denominator * per_output.denominator
        exact = Decimal(int((input_ * per_input + output * per_output) * common)) / common
        expected = int(exact.to_integral_value())
    assert card.cost({"input": input_, "output": output}) == expected


@given(st.lists(st.tuples(counts, counts, st.integers(0, 100)), max_size=5), st.integers(0, 10**9))
def test_linear_where_prices_are_whole(calls, price):
    card = Card(rates(input=price, output=4 * price, cache_read=price // 10), {})
    usages = [{"input": a, "output": b, "cache_read": a * share // 100} for a, b, share in calls]
    total = {unit: sum(each[unit] for each in usages) for unit in ("input", "output", "cache_read")}
    assert sum(card.cost(each) or 0 for each in usages) == card.cost(total)


@given(
    st.dictionaries(st.sampled_from(sorted(UNITS)), st.integers(0, 1000), max_size=5),
    st.sampled_from(
        [("input", "output"), ("input", "output", "cache_read", "request"), ("audio_seconds",)]
    ),
    st.fractions(0, 100, max_denominator=7),
)
def test_parts_add_up_and_order_of_units_does_not_matter(usage, priced, price):
    card = Card({unit: Rate(price * (at + 1)) for at, unit in enumerate(priced)}, {})
    total = card.cost(usage)
    parts = card.parts(usage)
    assert (None if parts is None else sum(parts)) == total
    assert card.cost(dict(reversed(usage.items()))) == total
    assert total is None or total >= 0


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**15))
def test_half_even(numerator, denominator):
    assert divide_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


@pytest.mark.parametrize(
    ("count", "cost_pico"),
    [(0, 0), (1, 0), (2, 1), (3, 2), (5, 2), (6, 3), (7, 4), (9, 4), (11, 6)],
)
def test_half_a_pico_goes_to_the_even_one(count, cost_pico):
    assert Card({"input": Rate(Fraction(1, 2))}, {}).cost({"input": count}) == cost_pico


def test_memory_is_bounded_whatever_names_and_units_arrive(monkeypatch):
    monkeypatch.setattr(pricer_module, "MAX_REMEMBERED", 10)
    prefix = Entry("acme", "n*", Match("prefix", "n"), (Period(rates(input=1)),), GENAI_PRICES)
    pricer = Pricer(book(Period(rates(input=1)), more=(prefix,)))
    for number in range(1000):
        pricer.price("acme", f"unknown-{number}", DAY_1, {"input": 1})
        assert pricer.price("acme", f"n-{number}", DAY_1, {"input": 1, f"unit{number}": 0})
        pricer.price("acme", "n", DAY_1, {"input": 1}, service_tier=f"tier-{number}")
        assert cost(pricer, {"input": 7}) == 7
    assert len(pricer._recent) + len(pricer._older) <= 20
    assert len(pricer._timelines) == 2
    for timeline in pricer._timelines.values():
        card = timeline.current.card
        assert card is not None
        assert len(card._shapes) <= MAX_SHAPES


def test_estimate_is_the_price_of_the_most_it_can_become():
    pricer = Pricer(book(Period(rates(input=10, output=40))))
    assert pricer.estimate("acme", "m", DAY_1, 100, 50) == 3000
    assert pricer.estimate("acme", "x", DAY_1, 100, 50) is None


def test_without_a_provider_an_own_price_decides_only_if_it_is_the_only_one():
    def own(provider: str, price: int) -> Entry:
        return Entry(
            provider, "llama", Match("equals", "llama"), (Period(rates(input=price)),), OWN
        )

    one = Pricer(book(Period(rates(input=1)), more=(own("vllm", 2),)))
    two = Pricer(book(Period(rates(input=1)), more=(own("vllm", 2), own("tgi", 3))))
    assert one.estimate(None, "llama", DAY_1, 1, 0) == 2
    assert two.estimate(None, "llama", DAY_1, 1, 0) is None
    assert two.estimate("tgi", "llama", DAY_1, 1, 0) == 3
