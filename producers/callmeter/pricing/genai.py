"""Reading genai-prices, the only file that imports it: its providers and models as book entries.

What the package holds as code rather than data is repeated here as data: the ten seconds that Groq
bills at least for a transcription. Its semantics (which price holds when, how a usage is
decomposed, when a tier begins) are those of its ``types.py`` and ``decompose.py``, and a contract
test compares every model of the installed package with ``genai_prices.calc_price``.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from callmeter.errors import DataError, MissingExtraError
from callmeter.pricing.book import (
    ALWAYS,
    GENAI_PRICES,
    Entry,
    Match,
    Period,
    Provider,
    Rate,
    Tier,
    Validity,
    Variant,
)
from callmeter.pricing.units import INPUT, MODALITIES, OUTPUT, REQUEST

if TYPE_CHECKING:
    from genai_prices import types as genai

_PICO = 10**12
_MINIMUM_SECONDS = {
    ("groq", "whisper-large-v3"): {"audio_seconds": 10, "audio_input_seconds": 10},
    ("groq", "whisper-large-v3-turbo"): {"audio_seconds": 10, "audio_input_seconds": 10},
}


def _price_keys() -> dict[str, tuple[str, int]]:
    """Name of a price in genai-prices -> our unit, and how many of them the price is for."""
    million, thousand, hour = 10**6, 10**3, 3600
    keys = {
        "input_mchars": ("characters", million),
        "input_text_messages_kcount": ("messages", thousand),
        "audio_hours": ("audio_seconds", hour),
        "input_audio_hours": ("audio_input_seconds", hour),
        "output_audio_hours": ("audio_output_seconds", hour),
        "input_gpixels": ("pixels", 10**9),
        "input_document_kpages": ("pages", thousand),
        "input_annotated_document_kpages": ("annotated_pages", thousand),
        "rerank_searches_kcount": ("rerank_search", thousand),
        "web_searches_kcount": ("search", thousand),
        "social_searches_kcount": ("social_search", thousand),
        "storage_searches_kcount": ("storage_search", thousand),
        "code_executions_kcount": ("code_execution", thousand),
        "requests_kcount": (REQUEST, thousand),
    }
    for modality in ("", *(f"{name}_" for name in MODALITIES)):
        tail = f"_{modality}"[:-1] if modality else ""
        keys[f"input{tail}_mtok"] = (f"{modality}input", million)
        keys[f"output{tail}_mtok"] = (f"{modality}output", million)
        keys[f"cache_{modality}read_mtok"] = (f"cache_{modality}read", million)
        for ttl in ("", "_5m", "_1h"):
            keys[f"cache_{modality}write{ttl}_mtok"] = (f"cache_{modality}write{ttl}", million)
        keys[f"input{tail}_tool_mtok"] = (f"{modality}tool_input", million)
        keys[f"output{tail}_reasoning_mtok"] = (f"{modality}reasoning", million)
        keys[f"output{tail}_citation_mtok"] = (f"{modality}citation", million)
    return keys


PRICE_KEYS = _price_keys()


def read_genai_prices() -> tuple[tuple[Provider, ...], tuple[Entry, ...], tuple[str, ...]]:
    """Providers, entries and notes from the installed genai-prices, or from the newer data that its
    ``UpdatePrices`` fetched in this process.

    Raises ``MissingExtraError`` if the package is not installed.
    """
    try:
        from genai_prices.data_snapshot import get_snapshot
    except ImportError as exc:
        raise MissingExtraError("genai-prices", "prices") from exc
    providers: list[Provider] = []
    entries: list[Entry] = []
    notes: list[str] = []
    for provider in get_snapshot().providers:
        providers.append(
            Provider(
                id=provider.id,
                match=_match(provider.provider_match) if provider.provider_match else None,
                model_match=_match(provider.model_match) if provider.model_match else None,
                fallbacks=tuple(provider.fallback_model_providers or ()),
            )
        )
        entries += [_entry(provider.id, model, notes) for model in provider.models]
    return tuple(providers), tuple(entries), tuple(notes)


def _entry(provider: str, model: genai.ModelInfo, notes: list[str]) -> Entry:
    where = f"{provider} {model.id}"
    if isinstance(model.prices, list):
        periods = [
            Period(_rates(each.prices, where, notes), _validity(each.constraint))
            for each in model.prices
        ]
        # before the first start date the first prices hold
        if periods and periods[0].valid != ALWAYS:
            periods.insert(0, Period(periods[0].rates))
    else:
        periods = [Period(_rates(model.prices, where, notes))]
    if model.id.endswith(":free"):
        # No price at all would be "unknown"; these are known to be free of charge.
        free = {INPUT: Rate(Fraction(0)), OUTPUT: Rate(Fraction(0))}
        periods = [period if period.rates else Period(free, period.valid) for period in periods]
    return Entry(
        provider=provider,
        model=model.id,
        match=_match(model.match),
        periods=tuple(periods),
        source=GENAI_PRICES,
        variants=tuple(
            Variant(dict(each.when), _rates(each.prices, where, notes), _validity(each.constraint))
            for each in model.price_variants or ()
        ),
        minimum=_MINIMUM_SECONDS.get((provider, model.id), {}),
    )


def _rates(prices: genai.ModelPrice, where: str, notes: list[str]) -> dict[str, Rate]:
    rates: dict[str, Rate] = {}
    for key, value in vars(prices).items():
        if value is None or key.startswith("_"):
            continue
        if key not in PRICE_KEYS:
            notes.append(f"{where}: genai-prices has {key}, which this callmeter does not know")
            continue
        unit, per = PRICE_KEYS[key]
        rates[unit] = _rate(value, per)
    return rates


def _rate(value: Any, per: int) -> Rate:
    if isinstance(value, Decimal):
        return Rate(_pico(value, per))
    last_of_equals = {tier.start: _pico(tier.price, per) for tier in value.tiers}
    tiers = tuple(Tier(start, price) for start, price in sorted(last_of_equals.items()))
    return Rate(_pico(value.base, per), tiers)


def _pico(usd: Decimal, per: int) -> Fraction:
    return Fraction(usd) * _PICO / per


def _validity(constraint: Any) -> Validity:
    if constraint is None:
        return ALWAYS
    if hasattr(constraint, "start_date"):
        return Validity(from_us=_midnight_us(constraint.start_date))
    return Validity(daily=(_of_day_us(constraint.start_time), _of_day_us(constraint.end_time)))


def _midnight_us(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000


def _of_day_us(moment: time) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    utc = datetime.combine(date(1970, 1, 1), aware).astimezone(UTC).time()
    seconds = (utc.hour * 60 + utc.minute) * 60 + utc.second
    return seconds * 1_000_000 + utc.microsecond


_OPS = {"equals": "equals", "starts_with": "prefix", "ends_with": "suffix", "contains": "contains"}


def _match(clause: Any) -> Match:
    """Names are compared in lower case; a regular expression is left as it is."""
    for field, op in _OPS.items():
        if hasattr(clause, field):
            return Match(op, getattr(clause, field).lower())  # type: ignore[arg-type]
    if hasattr(clause, "regex"):
        return Match("regex", clause.regex)
    if hasattr(clause, "or_"):
        return Match("any", of=_matches(clause.or_))
    if hasattr(clause, "and_"):
        return Match("all", of=_matches(clause.and_))
    raise DataError(f"genai-prices has a condition this callmeter does not know: {clause!r:.80}")


def _matches(clauses: Iterable[Any]) -> tuple[Match, ...]:
    return tuple(_match(clause) for clause in clauses)
