"""Price books on disk: the only I/O of pricing beside reading an own price file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from callmeter.errors import CannotWriteError, DataError
from callmeter.pricing.book import PriceBook
from callmeter.pricing.codec import book_from_json, book_to_json


def load_book(path: str | os.PathLike[str]) -> PriceBook:
    """Read a book. ``DataError`` if there is none or it is damaged, ``NewerSchemaError`` if too
    new.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as exc:
        raise DataError(f"{path}: cannot read the price book: {exc.strerror}") from exc
    try:
        return book_from_json(data)
    except DataError as exc:
        raise DataError(f"{path}: {exc}") from exc


def save_book(book: PriceBook, path: str | os.PathLike[str]) -> None:
    """Write a book so that a reader, or a crash, sees the old file or the new one, never a half.

    Raises ``CannotWriteError``; the directory must exist.
    """
    target = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(book_to_json(book))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(target)
        except OSError:
            Path(temporary).unlink()
            raise
        directory = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(directory)  # the rename itself must survive a power cut
        finally:
            os.close(directory)
    except OSError as exc:
        raise CannotWriteError(f"{target}: cannot write the price book: {exc.strerror}") from exc
