"""Books as files and data: JSON, versions, checks, differences."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from callmeter.errors import CannotWriteError, DataError, MissingExtraError, NewerSchemaError
from callmeter.pricing import (
    PriceChange,
    book_from_json,
    book_to_json,
    build_book,
    check_book,
    diff_books,
    installed_book,
    load_book,
    parse_own_prices,
    save_book,
)
from callmeter.pricing.book import Entry, Match, Period, PriceBook, Provider, Rate, Tier, Validity
from callmeter.pricing.codec import content_digest

OWN = '[[price]]\nprovider = "p"\nmodel = "m"\ninput = "{}"\n'
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)

fractions = st.fractions(0, 10**15, max_denominator=10**9)
rates = st.builds(
    Rate,
    fractions,
    st.lists(st.builds(Tier, st.integers(0, 10**9), fractions), max_size=2).map(tuple),
)
validities = st.builds(
    Validity,
    st.none() | st.integers(0, 2**60),
    st.none() | st.integers(0, 2**60),
    st.none() | st.tuples(st.integers(0, 10**10), st.integers(0, 10**10)),
)
periods = st.builds(
    Period,
    st.dictionaries(st.sampled_from(["input", "output", "image"]), rates),
    validities,
    st.dictionaries(st.sampled_from(["batch", "flex"]), fractions),
)
matches = st.recursive(
    st.builds(Match, st.sampled_from(["equals", "prefix", "regex"]), st.text(max_size=5)),
    lambda inner: st.builds(
        Match, st.just("any"), st.just(""), st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=5,
)
entries = st.builds(
    Entry,
    st.text(max_size=5),
    st.text(max_size=5),
    matches,
    st.lists(periods, max_size=2).map(tuple),
    st.sampled_from(["own", "genai-prices"]),
)


@given(st.lists(entries, max_size=3).map(tuple))
def test_json_round_trip_is_exact_and_canonical(entries):
    book = PriceBook("2026-11-01+ab12cd34", (Provider("p", fallbacks=("q",)),), entries)
    data = book_to_json(book)
    again = book_from_json(data)
    assert again == book
    assert book_to_json(again) == data


def test_the_installed_book():
    book = installed_book()
    assert installed_book() is book
    assert check_book(book) == []
    assert book.notes == ()
    assert len(book.entries) > 1_000
    data = book_to_json(book)
    assert book_from_json(data) == book
    assert len(data) < 4 * 2**20  # the largest message of its topic


def test_the_version_is_a_date_and_a_digest_of_the_content():
    book, later = build_book(None, NOW), build_book(None, NOW.replace(month=12))
    assert book.version.startswith("2026-11-01+")
    assert later.version == "2026-12-01+" + book.version.split("+")[1]
    assert book.entries == installed_book().entries
    cheap, dear = (build_book(parse_own_prices(OWN.format(usd)), NOW) for usd in (1, 2))
    assert len({book.version, cheap.version, dear.version}) == 3


def test_two_processes_give_the_installed_book_one_version():
    program = "from callmeter.pricing import installed_book; print(installed_book().version)"
    out = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert out.stdout.strip() == installed_book().version


def test_what_is_no_book_is_refused():
    data = book_to_json(PriceBook("v", (), ()))
    with pytest.raises(NewerSchemaError, match="format 2"):
        book_from_json(data.replace(b'"format":1', b'"format":2'))
    for bad in (b"", b"{}", b"[]", b'{"format":1}', data[:-2], b"\xff", b'{"format":"1"}'):
        with pytest.raises(DataError, match="not a price book"):
            book_from_json(bad)
    entry = Entry("p", "m", Match("equals", "m"), (Period({"input": Rate(Fraction(5))}),), "own")
    data = book_to_json(PriceBook("v", (), (entry,)))
    for price in (b"5", b'"-5"', b'"5.0"', b'"05"', b'"5/0"', b"null"):
        with pytest.raises(DataError, match="not a price book"):
            book_from_json(data.replace(b'"price":"5"', b'"price":' + price))


def test_files(tmp_path):
    book = build_book(parse_own_prices(OWN.format(1)), NOW)
    path = tmp_path / "book.json"
    save_book(book, path)
    save_book(book, path)
    assert load_book(path) == book
    assert [each.name for each in tmp_path.iterdir()] == ["book.json"]
    with pytest.raises(DataError, match="cannot read"):
        load_book(tmp_path / "none.json")
    with pytest.raises(CannotWriteError):
        save_book(book, tmp_path / "no" / "book.json")
    path.write_bytes(b"{")
    with pytest.raises(DataError, match=r"book\.json: not a price book"):
        load_book(path)


def test_a_failed_write_leaves_the_old_book_and_no_rubbish(tmp_path):
    target = tmp_path / "book.json"
    target.mkdir()  # a directory in the way: the rename fails
    with pytest.raises(CannotWriteError):
        save_book(PriceBook("v", (), ()), target)
    assert [each.name for each in tmp_path.iterdir()] == ["book.json"]


def test_differences():
    old = build_book(parse_own_prices(OWN.format(1)), NOW)
    new = build_book(parse_own_prices(OWN.format(2) + OWN.format(1).replace('"m"', '"n"')), NOW)
    assert diff_books(old, old) == []
    assert diff_books(old, new) == [
        PriceChange("changed", "p", "m", "own"),
        PriceChange("added", "p", "n", "own"),
    ]
    assert diff_books(new, old)[1].what == "removed"


def test_check_finds_what_is_wrong():
    def sound(**changes):
        book = replace(PriceBook("", (Provider("p"),), ()), **changes)
        return replace(book, version=f"2026-01-01+{content_digest(book)}")

    def entry(rates, match=Match("equals", "m")):  # noqa: B008
        return Entry("p", "m", match, (Period(rates),), "own")

    assert check_book(sound()) == []
    five = Rate(Fraction(5))
    for book, problem in [
        (PriceBook("2026-01-01+00000000", (), ()), "is not of this content"),
        (sound(notes=("something",)), "something"),
        (sound(providers=(Provider("p", fallbacks=("q",)),)), "falls back to q"),
        (sound(entries=(entry({}, Match("regex", "(")),)), "not a regular expression"),
        (sound(entries=(entry({"input": Rate(Fraction(-1))}),)), "negative price"),
        (sound(entries=(entry({"cache_read": five}),)), "its whole, input, has no price"),
        (
            sound(entries=(entry(dict.fromkeys(("input", "cache_read", "audio_input"), five)),)),
            "cache_audio_read",
        ),
        (
            sound(
                entries=(
                    entry(
                        {"input": Rate(Fraction(1), (Tier(5, Fraction(1)), Tier(4, Fraction(2))))}
                    ),
                )
            ),
            "tiers out of order",
        ),
    ]:
        problems = check_book(book)
        assert len(problems) == 1
        assert problem in problems[0]


def test_without_genai_prices_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "genai_prices.data_snapshot", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'callmeter\[prices\]'"):
        build_book()


def test_importing_pricing_does_not_import_genai_prices():
    program = "import sys, callmeter.pricing; sys.exit('genai_prices' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
