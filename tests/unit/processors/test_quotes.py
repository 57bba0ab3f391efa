"""Prices that the fold asks for once: what it makes of them is what asking for each call makes."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from callmeter.pricing import PriceBook, Priced, Pricer
from callmeter.pricing.book import OWN, Entry, Match, Period, Provider, Rate, Tier, Validity
from callmeter.pricing.live import LivePricer
from callmeter_processors.foldrow import MINUTE_US
from callmeter_processors.meter import PartitionMeter
from support.metering import LOG, NOW_US, call_end, deltas, envelope, envelopes, record

#: A price changes amid the minute before NOW_US; the other model's price goes by tiers.
CHANGE_US = (NOW_US // MINUTE_US - 1) * MINUTE_US + 17_000_000


def book(version: str, dearer: int = 1) -> PriceBook:
    def rates(**prices: int) -> dict[str, Rate]:
        return {unit: Rate(Fraction(price * dearer)) for unit, price in prices.items()}

    changing = (
        Period(rates(input=10, output=40, cache_read=1), Validity(until_us=CHANGE_US)),
        Period(rates(input=7, output=30, cache_read=2), Validity(from_us=CHANGE_US)),
    )
    tiered = Rate(Fraction(3 * dearer, 7), (Tier(1_000, Fraction(5 * dearer, 7)),))
    return PriceBook(
        version,
        (Provider("acme"),),
        (
            Entry("acme", "changing", Match("equals", "changing"), changing, OWN),
            Entry(
                "acme",
                "tiered",
                Match("equals", "tiered"),
                (Period({"input": tiered, "output": Rate(Fraction(1, 2))}),),
                OWN,
            ),
        ),
    )


class AskedEachTime:
    """A pricer that quotes nothing."""

    def __init__(self, pricer: Pricer) -> None:
        self._pricer = pricer

    def price(self, *args: object, **context: object) -> Priced | None:
        return self._pricer.price(*args, **context)  # type: ignore[arg-type]

    def quote(self, *args: object) -> None:
        return None


counts = st.integers(0, 3_000)
usages = st.one_of(
    st.fixed_dictionaries({"input": counts, "output": counts}),
    st.fixed_dictionaries({"output": counts, "input": counts}),
    st.fixed_dictionaries({"input": counts, "output": counts, "cache_read": counts}),
    st.dictionaries(st.sampled_from(["input", "output", "cache_read", "image", "what"]), counts),
)
calls = st.builds(
    lambda model, ago, usage, status, tier: call_end(
        provider="acme", model=model, started_us=NOW_US - ago, usage=usage, status=status, **tier
    ),
    st.sampled_from(["changing", "tiered", "unknown"]),
    st.integers(0, 2 * MINUTE_US),
    usages,
    st.sampled_from(["ok", "error"]),
    st.sampled_from([{}, {}, {"service_tier": "batch"}, {"response_model": "tiered"}]),
)


@given(st.lists(calls, max_size=30))
def test_quoted_or_asked_for_each_time_it_is_the_same(events):
    def metered(pricer):
        meter = PartitionMeter(LOG, 0, pricer)
        meter.process(record(envelope(events)))
        return [output.value for output in meter.checkpoint().outputs]

    pricer = Pricer(book("v1"))
    assert metered(pricer) == metered(AskedEachTime(pricer))


def test_another_book_is_in_force_from_the_next_envelope_on():
    pricer = LivePricer(book("v1"))
    meter = PartitionMeter(LOG, 0, pricer)
    event = call_end(provider="acme", model="changing", usage={"input": 3, "output": 1})
    meter.process(record(envelope([event], seq=0)))
    pricer.replace(book("v2", dearer=10))
    meter.process(record(envelope([event], seq=1), offset=1))
    meter.checkpoint()
    meter.process(record(envelope([event], seq=2), offset=2))
    outputs = meter.checkpoint().outputs

    (line,) = envelopes(outputs)[0].lines
    assert (line["cost_pico"], line["price_version"]) == ("510", "v2")
    assert deltas(outputs)[0].lines[0]["cost_pico"] == "510"


def test_within_a_checkpoint_each_call_has_the_book_of_its_time():
    pricer = LivePricer(book("v1"))
    meter = PartitionMeter(LOG, 0, pricer)
    event = call_end(provider="acme", model="changing", usage={"input": 3, "output": 1})
    for seq in range(3):
        meter.process(record(envelope([event, event], seq=seq), offset=seq))
        if seq == 0:
            pricer.replace(book("v2", dearer=10))
    outputs = meter.checkpoint().outputs

    lines = [line for metered in envelopes(outputs) for line in metered.lines]
    assert [line["cost_pico"] for line in lines] == ["51", "51", "510", "510", "510", "510"]
    assert deltas(outputs)[0].lines[0]["cost_pico"] == str(2 * 51 + 4 * 510)
