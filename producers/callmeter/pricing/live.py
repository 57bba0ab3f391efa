"""The book in use: published on the log, replaced while a meter runs."""

from __future__ import annotations

from callmeter.log.record import NewRecord
from callmeter.pricing.book import PriceBook
from callmeter.pricing.codec import book_to_json
from callmeter.pricing.pricer import Pricer

#: The book that meters price from; further ids are free for drafts.
BOOK_KEY = b"default"


def book_record(book: PriceBook) -> NewRecord:
    """The record that publishes a book to the topic ``prices``."""
    return NewRecord("prices", BOOK_KEY, book_to_json(book), 0)


class LivePricer:
    """Prices by a book that can be replaced at any time, from any thread.

    ``price`` and ``quote`` are the bound methods of the current ``Pricer`` itself, so replacing
    costs the hot path nothing. A call that is being priced during ``replace`` uses one book or the
    other, never a mix.
    """

    def __init__(self, book: PriceBook) -> None:
        self.replace(book)

    def replace(self, book: PriceBook) -> None:
        """Price by this book from the next call on."""
        self.version = book.version
        pricer = Pricer(book)
        self.price = pricer.price
        self.quote = pricer.quote
