"""A place in a topic as one word: the log's id and the next offset of each partition.

    0199…-…:12.0.7      partition 0 from offset 12, 1 from 0, 2 from 7; those not named from 0

Offsets of one log mean nothing in another, so the id travels along.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from callmeter.errors import DataError

_FORM = re.compile(r"([0-9A-Za-z-]{1,64}):((?:[0-9]{1,18}\.)*[0-9]{1,18})", re.ASCII)


class Place(NamedTuple):
    """The next offset to read, by partition, in the log of this id."""

    log_id: str
    offsets: Mapping[int, int]


def encode_place(place: Place) -> str:
    """The word: letters, digits, ``-``, ``:`` and ``.``, so it stands in a URL as it is."""
    count = max(place.offsets, default=0) + 1
    return f"{place.log_id}:{'.'.join(str(place.offsets.get(n, 0)) for n in range(count))}"


def decode_place(text: str) -> Place:
    """The place that a word names; ``DataError`` if it is none, without repeating it."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise DataError("a position is a log's id, a colon, and offsets with dots between them")
    return Place(found[1], {n: int(each) for n, each in enumerate(found[2].split("."))})
