"""Bills as providers give them: CSV files read into lines of day, provider, model and amount.

Three forms, known by their header line:

    plain       date,model,usd[,provider,project]                      documented in the guide
    OpenAI      start_time,…,amount_value,amount_currency,line_item,…  the cost export, day by day
    Anthropic   usage_date_utc,model,…,cost_usd,…                      the Console's cost export

Lines of one day, provider, project and model are one line afterwards. Amounts are exact decimals.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

from callmeter.errors import DataError
from callmeter.money import to_pico

MAX_LINES = 1_000_000
#: What a provider hangs on a model's name: the day of its release.
_RELEASE = re.compile(r"-(\d{4}-\d{2}-\d{2}|\d{8}|latest)\Z")
_WORDS = re.compile(r"[\s._]+")


@dataclass(frozen=True, slots=True, order=True)
class BillKey:
    """What one amount is for. ``model`` is as the bill names it, empty if it names none."""

    day: date
    provider: str
    project: str
    model: str


@dataclass(frozen=True, slots=True)
class Bill:
    """A file read: amounts in pico-USD, and the file's SHA-256, by which it is known again."""

    form: str
    digest: str
    amounts: Mapping[BillKey, int]

    @property
    def days(self) -> tuple[date, date]:
        """The first and the last."""
        days = [key.day for key in self.amounts]
        return min(days), max(days)


def canonical(model: str) -> str:
    """One name for a model however it is written: ``Claude Sonnet 4.5``, ``gpt-4o-2024-08-06``.

    >>> canonical("Claude Sonnet 4.5") == canonical("claude-sonnet-4-5-20250929")
    True
    """
    name = _WORDS.sub("-", model.strip().lower())
    return _RELEASE.sub("", name)


def read_bill(path: Path, provider: str = "", project: str = "") -> Bill:
    """Read a bill; ``provider`` and ``project`` stand in where a line names none.

    ``DataError`` names the line that cannot be read, or says that the form is unknown.
    """
    try:
        raw = path.read_bytes()
    except OSError as exc:
        raise DataError(f"{path}: {exc.strerror}") from exc
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise DataError(f"{path.name}: not UTF-8: {exc.reason} at byte {exc.start}") from exc
    reader = csv.DictReader(io.StringIO(text, newline=""))
    form, line_of = _form(path, reader.fieldnames or ())
    amounts: dict[BillKey, int] = {}
    for number, row in enumerate(reader, 2):
        if number > MAX_LINES:
            raise DataError(f"{path.name}: more than {MAX_LINES:,} lines")
        try:
            for key, pico in line_of(row, provider, project):
                amounts[key] = amounts.get(key, 0) + pico
        except (ValueError, ArithmeticError, KeyError, TypeError, AttributeError) as exc:
            raise DataError(f"{path.name}, line {number}: {exc}") from exc
    if not amounts:
        raise DataError(f"{path.name}: no line with an amount")
    return Bill(form, hashlib.sha256(raw).hexdigest(), amounts)


_Row = Mapping[str, str]
_Lines = Iterator[tuple[BillKey, int]]


def _form(path: Path, header: object) -> tuple[str, Callable[[_Row, str, str], _Lines]]:
    names = set(header) if isinstance(header, list) else set()
    for form, needed, line_of in _FORMS:
        if needed <= names:
            return form, line_of
    raise DataError(
        f"{path.name}: not a bill that is known: its first line must name date, model, usd; or be "
        "that of OpenAI's or Anthropic's cost export"
    )


def _plain(row: _Row, provider: str, project: str) -> _Lines:
    key = BillKey(
        date.fromisoformat(row["date"].strip()),
        (row.get("provider") or provider).strip(),
        (row.get("project") or project).strip(),
        row["model"].strip(),
    )
    yield key, _pico(row["usd"] or "")


def _openai(row: _Row, _provider: str, project: str) -> _Lines:
    if not row["amount_value"]:
        return  # a day without costs has a line without an amount
    currency = row["amount_currency"].strip().lower()
    if currency != "usd":
        raise ValueError(f"an amount in {currency!r}: only usd is reconciled")
    day = datetime.fromtimestamp(int(row["start_time"]), UTC).date()
    # "gpt-4o-2024-08-06, cached input": the model, then what of it.
    model = (row.get("line_item") or "").split(",")[0].strip()
    yield BillKey(day, "openai", project, model), _pico(row["amount_value"])


def _anthropic(row: _Row, _provider: str, project: str) -> _Lines:
    if not row["cost_usd"]:
        return
    day = date.fromisoformat(row["usage_date_utc"].strip()[:10])
    yield BillKey(day, "anthropic", project, row["model"].strip()), _pico(row["cost_usd"])


def _pico(usd: str) -> int:
    amount = Decimal(usd.strip())
    if not amount.is_finite():
        raise ValueError(f"{usd!r} is no amount")
    return to_pico(amount)


_FORMS: tuple[tuple[str, set[str], Callable[[_Row, str, str], _Lines]], ...] = (
    ("openai", {"start_time", "amount_value", "amount_currency"}, _openai),
    ("anthropic", {"usage_date_utc", "model", "cost_usd"}, _anthropic),
    ("plain", {"date", "model", "usd"}, _plain),
)
