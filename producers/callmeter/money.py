"""Exact money: integer pico-USD in programs, ``Decimal`` at the edges, never a float.

One USD is 10**12 pico. Every published price per million tokens with at most six decimals is a
whole number of pico per token, so prices times counts stay exact. A foreign number is rounded once,
half-even, where it enters (design 4 of the laws).
"""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation

PICO_PER_USD = 10**12
#: A trillion USD an event: sums of 10**14 such events still fit ``Decimal(38,12)``.
MAX_ABS_PICO = 10**24

_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
_WIRE = re.compile(r"-?(0|[1-9][0-9]{0,24})\Z")


def to_pico(usd: Decimal | str | int) -> int:
    """USD as ``Decimal``, ``str`` or ``int`` to integer pico-USD, rounded half-even once.

    Raises ``TypeError`` for a float or a bool, ``ValueError`` for text that is no finite number.

    >>> to_pico("0.000618")
    618000000
    """
    if isinstance(usd, bool) or not isinstance(usd, Decimal | str | int):
        raise TypeError(f"money is Decimal, str or int, not {type(usd).__name__}")
    try:
        value = _EXACT.multiply(Decimal(usd), Decimal(PICO_PER_USD))
        pico = int(value.to_integral_value(rounding=ROUND_HALF_EVEN))
    except (InvalidOperation, OverflowError, ValueError) as exc:
        raise ValueError(f"not an amount of USD: {usd!r}") from exc
    if abs(pico) > MAX_ABS_PICO:
        raise ValueError(f"an amount of USD too large to store: {usd!r}")
    return pico


def float_to_pico(usd: float) -> int:
    """A float as compat facades take it: through ``repr``, so 0.1 means 0.1."""
    return to_pico(repr(float(usd)))


def from_pico(pico: int) -> Decimal:
    """Integer pico-USD to USD, exact.

    >>> from_pico(618000000)
    Decimal('0.000618000000')
    """
    return Decimal(pico).scaleb(-12, _EXACT)


def format_usd(pico: int) -> str:
    """USD as plain text without trailing zeros and without an exponent: ``5.8074795``."""
    text = format(from_pico(pico), "f").rstrip("0").rstrip(".")
    return "0" if text in ("", "-0", "-") else text


def wire_to_pico(text: str) -> int:
    """The wire's ``cost_pico``, a string of an integer; ``ValueError`` if it is anything else."""
    if not _WIRE.match(text):
        raise ValueError(f"cost_pico is not a plain integer: {text[:60]!r}")
    pico = int(text)
    if abs(pico) > MAX_ABS_PICO:
        raise ValueError("cost_pico is out of range")
    return pico
