"""Budget definitions: record type of the topic ``budgets``, and what makes one valid.

The contract is docs/reference/formats.md, "Budgets". A definition is edited by writing its next
version; ``next_version`` says which of its counters an edit moves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Literal, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from callmeter.errors import DataError, NewerSchemaError, UsageError
from callmeter.money import format_usd, to_pico, wire_to_pico
from callmeter.schema.events import MAX_DURATION_US, MAX_UNITS
from callmeter.schema.windows import WINDOWS

BUDGET_VERSION = 1
PPM = 1_000_000
DEFAULT_THRESHOLDS = ("50%", "80%", "100%")
#: What a scope may name and what ``per`` may be; ``tag:NAME`` besides.
DIMENSIONS = ("project", "environment", "service", "provider", "model", "user", "session")
TAG = "tag:"

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,99}\Z")
#: The row beside the definitions that counts edits.
_RESERVED = frozenset({"position"})
_MAX_SCOPE_VALUES = 100
_MAX_THRESHOLDS = 20
_PERCENT = re.compile(r"([0-9]{1,6}(?:\.[0-9]{1,4})?)%\Z")
_TOKENS = re.compile(r"([0-9]{1,18}) ?tokens?\Z")
_USD = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(?: ?USD)?\Z")


class Slo(Struct, kw_only=True):
    """A service level instead of a sum of money: ``measure`` over the window's model calls.

    ``error_rate``: failures per call above ``max_ppm`` parts per million break it. ``latency``: the
    ``quantile_ppm`` quantile above ``max_us``. With fewer than ``min_calls`` nothing is said.
    ``open``: a call that is open for longer than ``max_us`` is told of as stuck.
    """

    measure: Literal["error_rate", "latency", "open"]
    max_ppm: int = 0
    max_us: int = 0
    quantile_ppm: int = 950_000
    min_calls: int = 20


class Budget(Struct, kw_only=True):
    """One definition. Absent limits are none; ``scope`` empty is everything.

    ``version`` counts edits. ``basis`` is the version in which what is counted was last changed
    (window, scope, per): spend of another basis is another sum. ``terms`` is the version in which
    limits or thresholds were, ``terms_us`` its time: alert ids hold it, and windows that had ended
    by then are not judged by it. ``resets`` counts manual resets.
    """

    v: int = BUDGET_VERSION
    id: str
    version: int = 1
    basis: int = 1
    terms: int = 1
    terms_us: int = 0
    window: str = "day"
    scope: dict[str, list[str]] = {}
    per: str = ""
    limit_pico: str | UnsetType = UNSET
    limit_tokens: int | UnsetType = UNSET
    thresholds: list[str] = field(default_factory=lambda: list(DEFAULT_THRESHOLDS))
    action: Literal["alert", "stop"] = "alert"
    state: Literal["active", "disabled", "deleted"] = "active"
    resets: int = 0
    slo: Slo | UnsetType = UNSET
    note: str = ""
    edited_us: int = 0


class Level(NamedTuple):
    """A threshold in numbers: crossed when the measure reaches ``at``."""

    measure: str  # "cost" (pico-USD) or "tokens"
    text: str
    at: int


_decoder = msgspec.json.Decoder(Budget)


def encode_budget(budget: Budget) -> bytes:
    """The definition as it stands in the topic."""
    return msgspec.json.encode(budget)


def decode_budget(value: bytes) -> Budget:
    """A definition from the topic. ``NewerSchemaError``, or ``DataError`` if it is not valid."""
    try:
        budget = _decoder.decode(value)
    except msgspec.DecodeError as exc:
        raise DataError(f"a budget definition cannot be read: {exc}") from exc
    if budget.v > BUDGET_VERSION:
        raise NewerSchemaError(
            f"budget {budget.id!r} has format {budget.v}, this callmeter reads up to "
            f"{BUDGET_VERSION}: update the workers"
        )
    for problem in problems(budget):
        raise DataError(f"budget {budget.id[:100]!r}: {problem}")
    return budget


def check_budget(budget: Budget) -> None:
    """``UsageError`` with one line that says what is wrong, if something is."""
    for problem in problems(budget):
        raise UsageError(f"budget {budget.id[:100]!r}: {problem}")


def problems(budget: Budget) -> Iterator[str]:
    """What is wrong with a definition, one line each; nothing if it is valid."""
    if not _ID.match(budget.id) or budget.id in _RESERVED:
        yield "a name is 1 to 100 letters, digits and . _ : - , not beginning with a sign"
    if budget.window not in WINDOWS:
        yield f"unknown window {budget.window[:60]!r}: one of {', '.join(WINDOWS)}"
    for key, values in budget.scope.items():
        if not is_dimension(key):
            yield f"unknown scope {key[:60]!r}: one of {', '.join(DIMENSIONS)}, tag:NAME"
        if not 0 < len(values) <= _MAX_SCOPE_VALUES or not all(0 < len(v) <= 256 for v in values):
            yield f"scope {key[:60]!r} needs 1 to {_MAX_SCOPE_VALUES} values of 1 to 256 characters"
    if budget.per and not is_dimension(budget.per):
        yield f"unknown per {budget.per[:60]!r}: one of {', '.join(DIMENSIONS)}, tag:NAME"
    if (budget.window == "session") != (budget.per == "session") and (
        budget.window == "session" or not budget.per
    ):
        yield "a window 'session' is per session, and per nothing else"
    if budget.resets < 0 or not 0 < budget.basis <= budget.version >= budget.terms > 0:
        yield "version, basis, terms or resets is no count"
    yield from _limit_problems(budget)


def _limit_problems(budget: Budget) -> Iterator[str]:
    if budget.limit_pico is not UNSET:
        try:
            if wire_to_pico(budget.limit_pico) <= 0:
                yield f"the limit is {budget.limit_pico} pico-USD: it must be above 0"
        except ValueError as exc:
            yield f"the limit is no amount: {exc}"
            return
    if budget.limit_tokens is not UNSET and not 0 < budget.limit_tokens <= MAX_UNITS * 1000:
        yield f"the limit is {budget.limit_tokens} tokens: it must be above 0"
    if budget.slo is not UNSET:
        yield from _slo_problems(budget, budget.slo)
        return
    if budget.limit_pico is UNSET and budget.limit_tokens is UNSET:
        yield "it has no limit: give USD, tokens or both"
    if len(budget.thresholds) > _MAX_THRESHOLDS:
        yield f"more than {_MAX_THRESHOLDS} thresholds"
    if len(set(budget.thresholds)) != len(budget.thresholds):
        yield "a threshold stands twice"
    for text in budget.thresholds:
        try:
            _levels(budget, text)
        except ValueError as exc:
            yield str(exc)


def _slo_problems(budget: Budget, slo: Slo) -> Iterator[str]:
    if budget.limit_pico is not UNSET or budget.limit_tokens is not UNSET:
        yield "an objective has no limit of money or tokens: make two rules"
    if budget.window == "session":
        yield "an objective needs a window of time"
    if slo.measure == "error_rate" and not 0 <= slo.max_ppm < PPM:
        yield "an error rate is at least 0 and below 100 %"
    if slo.measure != "error_rate" and not 0 < slo.max_us <= MAX_DURATION_US:
        yield "a latency must be above 0"
    if not 0 < slo.quantile_ppm < PPM or slo.min_calls < 1:
        yield "a quantile lies between 0 and 1, and min_calls is at least 1"


def is_dimension(name: str) -> bool:
    """Whether a scope or ``per`` may be this."""
    return name in DIMENSIONS or (name.startswith(TAG) and len(TAG) < len(name) <= 256)


def levels(budget: Budget) -> list[Level]:
    """Every threshold of a valid definition in numbers, ascending by measure.

    A percentage holds for each limit there is, and is rounded up: 50 % of 3 is reached at 2.
    """
    found = (level for text in budget.thresholds for level in _levels(budget, text))
    return sorted(found, key=lambda level: (level.measure, level.at, level.text))


def _levels(budget: Budget, text: str) -> list[Level]:
    found = _PERCENT.match(text)
    if found:
        ppm = int(Decimal(found[1]) * (PPM // 100))
        if not ppm:
            raise ValueError(f"threshold {text!r} must be above 0")
        limits = {"cost": budget.limit_pico, "tokens": budget.limit_tokens}
        return [
            Level(measure, text, -(-int(limit) * ppm // PPM))
            for measure, limit in limits.items()
            if limit is not UNSET
        ]
    found = _TOKENS.match(text)
    if found:
        level = Level("tokens", text, int(found[1]))
    else:
        found = _USD.match(text)
        if not found:
            raise ValueError(
                f"threshold {text[:60]!r} is none: write 80%, 4.50 (USD) or 100000 tokens"
            )
        try:
            level = Level("cost", text, to_pico(Decimal(found[1])))
        except InvalidOperation as exc:  # pragma: no cover (the pattern admits numbers only)
            raise ValueError(f"threshold {text[:60]!r} is no amount") from exc
    if not level.at:
        raise ValueError(f"threshold {text!r} must be above 0")
    return [level]


def next_version(old: Budget | None, wanted: Budget, now_us: int) -> Budget:
    """``wanted`` as the next version of ``old`` (None: there was none), its counters set.

    A deleted definition that is set again counts on from its version, so that nothing of its former
    life is taken for the new one's.
    """
    if old is None:
        return msgspec.structs.replace(
            wanted, version=1, basis=1, terms=1, terms_us=now_us, edited_us=now_us
        )
    version = old.version + 1
    revived = old.state == "deleted" != wanted.state
    same_basis = not revived and _basis(old) == _basis(wanted)
    same_terms = same_basis and _terms(old) == _terms(wanted)
    return msgspec.structs.replace(
        wanted,
        version=version,
        basis=old.basis if same_basis else version,
        terms=old.terms if same_terms else version,
        terms_us=old.terms_us if same_terms else now_us,
        edited_us=now_us,
    )


def _basis(budget: Budget) -> tuple[object, ...]:
    measure = "" if budget.slo is UNSET else budget.slo.measure
    scope = {key: sorted(values) for key, values in budget.scope.items()}
    return budget.window, scope, budget.per, measure


def _terms(budget: Budget) -> tuple[object, ...]:
    return budget.limit_pico, budget.limit_tokens, sorted(budget.thresholds), budget.slo


def describe_limit(budget: Budget) -> str:
    """The limit for people: ``5 USD``, ``100000 tokens``, ``5 USD and 100000 tokens``."""
    slo = budget.slo
    if slo is not UNSET:
        if slo.measure == "error_rate":
            return f"errors at most {Decimal(slo.max_ppm) / 10_000:f} %"
        if slo.measure == "open":
            return f"calls open at most {Decimal(slo.max_us) / PPM:f} s"
        quantile = f"p{Decimal(slo.quantile_ppm) / 10_000:f}"
        return f"{quantile} latency at most {Decimal(slo.max_us) / PPM:f} s"
    parts = []
    if budget.limit_pico is not UNSET:
        parts.append(f"{format_usd(int(budget.limit_pico))} USD")
    if budget.limit_tokens is not UNSET:
        parts.append(f"{budget.limit_tokens} tokens")
    return " and ".join(parts)
