"""Price books as canonical JSON: the same content gives the same bytes, and so the same version."""

from __future__ import annotations

import hashlib
import re
from fractions import Fraction
from typing import Any

import msgspec

from callmeter.errors import DataError, NewerSchemaError
from callmeter.pricing.book import PriceBook

FORMAT = 1

_FRACTION = re.compile(r"(0|[1-9][0-9]{0,39})(?:/([1-9][0-9]{0,39}))?\Z")


class _Stamp(msgspec.Struct):
    format: int


class _File(msgspec.Struct):
    format: int
    book: PriceBook


def _encode_fraction(value: Any) -> Any:
    if isinstance(value, Fraction):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")


def _decode_fraction(kind: type, value: Any) -> Any:
    match = _FRACTION.match(value) if isinstance(value, str) else None
    if kind is not Fraction or match is None:
        raise ValueError(f"expected pico-USD as text, like 150000 or 4000000000/3: {value!r:.60}")
    return Fraction(int(match[1]), int(match[2] or 1))


_encoder = msgspec.json.Encoder(enc_hook=_encode_fraction, order="deterministic")
_decoder = msgspec.json.Decoder(_File, dec_hook=_decode_fraction)
_stamp = msgspec.json.Decoder(_Stamp)


def book_to_json(book: PriceBook) -> bytes:
    """The book as one JSON object, canonical: keys sorted, no spaces, money as text."""
    return _encoder.encode(_File(FORMAT, book))


def book_from_json(data: bytes) -> PriceBook:
    """The inverse of :func:`book_to_json`.

    Raises ``NewerSchemaError`` for a format this version does not know, ``DataError`` for anything
    that is no price book.
    """
    try:
        stamp = _stamp.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise DataError(f"not a price book: {exc}") from exc
    if stamp.format > FORMAT:
        raise NewerSchemaError(
            f"the price book has format {stamp.format}, newer than {FORMAT}: upgrade callmeter"
        )
    try:
        return _decoder.decode(data).book
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise DataError(f"not a price book: {exc}") from exc


def content_digest(book: PriceBook) -> str:
    """Eight hex digits of the book's content, its version left out."""
    nameless = msgspec.structs.replace(book, version="")
    return hashlib.sha256(book_to_json(nameless)).hexdigest()[:8]
