"""Money is exact: integers of pico-USD inside, Decimal and text at the edges."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callmeter.money import (
    MAX_ABS_PICO,
    float_to_pico,
    format_usd,
    from_pico,
    to_pico,
    wire_to_pico,
)

PICO = st.integers(-MAX_ABS_PICO, MAX_ABS_PICO)


@given(PICO)
def test_pico_to_usd_and_back_is_the_same(pico: int) -> None:
    assert to_pico(from_pico(pico)) == pico
    assert to_pico(format_usd(pico)) == pico
    assert wire_to_pico(str(pico)) == pico


@pytest.mark.parametrize(
    ("usd", "pico"),
    [
        ("0.000618", 618_000_000),
        (5, 5 * 10**12),
        (Decimal("5.8074795"), 5_807_479_500_000),
        ("0.0000000000005", 0),  # half goes to even
        ("0.0000000000015", 2),
        ("-0.0000000000015", -2),
        ("1e-12", 1),
    ],
)
def test_a_foreign_number_is_rounded_once_half_even(usd: str | int | Decimal, pico: int) -> None:
    assert to_pico(usd) == pico


def test_a_float_means_what_it_prints() -> None:
    assert float_to_pico(0.1) == 10**11
    assert float_to_pico(4e-7) * 1_000_000 == to_pico("0.4")


@pytest.mark.parametrize("bad", [0.1, True, None, b"1"])
def test_other_types_are_refused(bad: object) -> None:
    with pytest.raises(TypeError, match="money is Decimal, str or int"):
        to_pico(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", ["", "abc", "NaN", "Infinity", "1e40"])
def test_what_is_no_amount_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="USD"):
        to_pico(bad)


@pytest.mark.parametrize("bad", ["", "1.0", "01", "+1", " 1", "1 ", "1e3", "٣", str(10**25), "-"])
def test_the_wire_takes_plain_integers_only(bad: str) -> None:
    with pytest.raises(ValueError, match="cost_pico"):
        wire_to_pico(bad)


@pytest.mark.parametrize(
    ("pico", "text"), [(0, "0"), (10**12, "1"), (-1, "-0.000000000001"), (10**13, "10")]
)
def test_text_has_no_exponent_and_no_trailing_zeros(pico: int, text: str) -> None:
    assert format_usd(pico) == text
