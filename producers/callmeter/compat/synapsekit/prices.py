"""What a call costs by the installed price book, at the time it began.

The meter prices the stored record by the book of its topic; both are the same book unless somebody
has published another.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from functools import cache

from callmeter.errors import MissingExtraError
from callmeter.pricing import CostParts, Pricer, installed_book


def require_prices() -> None:
    """``MissingExtraError`` without genai-prices."""
    if not _are_there():
        raise MissingExtraError("genai-prices", "prices")


@cache
def _are_there() -> bool:
    return importlib.util.find_spec("genai_prices") is not None


@cache
def _pricer() -> Pricer:
    return Pricer(installed_book())


def cost_of(
    provider: str, model: str, at_us: int, usage: Mapping[str, int] | None
) -> CostParts | None:
    """Pico-USD for input, output and the rest; None if the usage or the price is unknown, and
    without genai-prices: whoever cannot do without says so by ``require_prices``.
    """
    if usage is None or not _are_there():
        return None
    known = None if provider == "unknown" else provider
    return _pricer().parts(known, model, at_us, usage)
