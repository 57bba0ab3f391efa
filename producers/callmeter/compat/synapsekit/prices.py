"""What a call costs by the installed price book, at the time it began.

The meter prices the stored record by the book of its topic; both are the same book unless somebody
has published another.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from callmeter.pricing import CostParts, Pricer, installed_book


@cache
def _pricer() -> Pricer:
    return Pricer(installed_book())


def cost_of(
    provider: str, model: str, at_us: int, usage: Mapping[str, int] | None
) -> CostParts | None:
    """Pico-USD for input, output and the rest; None if the usage or the price is unknown.

    ``MissingExtraError`` without genai-prices.
    """
    if usage is None:
        return None
    known = None if provider == "unknown" else provider
    return _pricer().parts(known, model, at_us, usage)
