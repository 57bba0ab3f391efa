"""Places in a topic as words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callmeter.errors import DataError
from callmeter.ids import uuid7
from callmeter.log.place import Place, decode_place, encode_place


@given(st.lists(st.integers(0, 10**17), min_size=1, max_size=64))
def test_a_word_says_the_log_and_every_offset(offsets: list[int]) -> None:
    place = Place(uuid7(), dict(enumerate(offsets)))
    word = encode_place(place)
    assert decode_place(word) == place
    assert not set(word) - set("0123456789abcdef-:.")


def test_partitions_that_are_not_named_begin_at_0() -> None:
    assert encode_place(Place("log", {2: 7})) == "log:0.0.7"
    assert encode_place(Place("log", {})) == "log:0"


@pytest.mark.parametrize(
    "word",
    ["", "log", "log:", ":1", "log:1.", "log:.1", "log:-1", "log:1,2", "log:1 ", "log:1\n", "a/b:1",
     "log:x", "log:٣", "l\r\nX: y:1", "log:" + "9" * 19, "x" * 65 + ":1"],
)  # fmt: skip
def test_other_words_are_refused_and_not_repeated(word: str) -> None:
    with pytest.raises(DataError, match="a position is a log's id, a colon, and offsets"):
        decode_place(word)
