"""Prices: books of dated prices as data, and what a call costs by them (design 10).

    book = installed_book()
    Pricer(book).price("openai", "gpt-4o-mini", started_us, {"input": 440, "output": 920})

Pure but for ``load_…`` and ``save_book``; genai-prices is imported by ``build_book`` only.
"""

from __future__ import annotations

from callmeter.pricing.book import PriceBook
from callmeter.pricing.build import build_book, installed_book
from callmeter.pricing.codec import book_from_json, book_to_json
from callmeter.pricing.files import load_book, save_book
from callmeter.pricing.own import OwnPrices, load_own_prices, parse_own_prices
from callmeter.pricing.pricer import CostParts, Priced, Pricer
from callmeter.pricing.review import PriceChange, check_book, diff_books

__all__ = [
    "CostParts",
    "OwnPrices",
    "PriceBook",
    "PriceChange",
    "Priced",
    "Pricer",
    "book_from_json",
    "book_to_json",
    "build_book",
    "check_book",
    "diff_books",
    "installed_book",
    "load_book",
    "load_own_prices",
    "parse_own_prices",
    "save_book",
]
