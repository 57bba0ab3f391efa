"""The envelope's codec: round trips, and headers that are refused by the name of their field."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callmeter.schema.envelope import (
    Header,
    HeaderError,
    decode_header,
    encode,
    split_envelopes,
    split_lines,
)
from callmeter.schema.reasons import DropReason

SOURCE = "01920f3e-7a10-7c44-9d21-3b5e8f6a9c01"
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=256)
counts = st.integers(0, 2**63 - 1)
headers = st.builds(
    Header,
    source=st.just(SOURCE),
    seq=counts,
    n=st.just(2),
    sent_us=counts,
    project=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=256),
    environment=texts,
    service=texts,
    sdk=texts,
    accepted=counts,
    dropped=st.dictionaries(st.text("abc_", max_size=64), counts, max_size=5),
    last=st.booleans(),
)


@given(headers)
def test_a_header_survives_the_wire(header):
    value = encode(header, [b'{"kind":"a"}', b"{}"])
    head, *lines = split_lines(value)
    assert value.startswith(b'{"v":')
    assert decode_header(head) == header
    assert lines == [b'{"kind":"a"}', b"{}"]


@given(st.lists(headers, min_size=1, max_size=4))
def test_envelopes_back_to_back_split_as_they_were_sent(many):
    values = [encode(header, [b'{"kind":"a"}', b'{"kind":"b"}']) for header in many]
    assert list(split_envelopes(b"".join(values))) == values


def test_drops_may_be_told_by_their_typed_reason():
    header = Header(
        source="018f0000-0000-7000-8000-000000000001",
        seq=0,
        n=1,
        sent_us=1,
        project="p",
        dropped={DropReason.QUEUE_FULL: 3},
    )
    data = encode(header, [b'{"kind":"x"}'])
    assert decode_header(split_lines(data)[0]).dropped == {"queue_full": 3}


def test_the_count_must_be_true():
    with pytest.raises(ValueError, match="says 2 events, 1 lines"):
        encode(Header(SOURCE, 0, 2, 0, "p"), [b"{}"])


def test_a_body_begins_with_a_header():
    with pytest.raises(HeaderError):
        list(split_envelopes(b'{"kind":"metric"}\n'))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", SOURCE.upper()),
        ("source", SOURCE.replace("-", " ")),
        ("source", SOURCE[1:9] + "0" + SOURCE[9:]),
        ("source", SOURCE + "\n"),
        ("source", 7),
        ("seq", -1),
        ("seq", 2**63),
        ("seq", 1.0),
        ("sent_us", "1"),
        ("project", ""),
        ("project", "p" * 257),
        ("accepted", None),
        ("last", 1),
        ("dropped", []),
        ("dropped", {"a": -1}),
        ("dropped", {"a" * 65: 1}),
        ("dropped", {str(i): 1 for i in range(65)}),
    ],
)
def test_a_bad_field_is_named(name, value):
    header = {"v": 1, "source": SOURCE, "seq": 0, "n": 0, "sent_us": 0, "project": "p"}
    decode_header(json.dumps(header).encode())
    with pytest.raises(HeaderError, match=repr(name)):
        decode_header(json.dumps(header | {name: value}).encode())


@pytest.mark.parametrize("name", ["v", "source", "seq", "n", "sent_us", "project"])
def test_a_missing_field_is_named(name):
    header = {"v": 1, "source": SOURCE, "seq": 0, "n": 0, "sent_us": 0, "project": "p"}
    del header[name]
    with pytest.raises(HeaderError, match=repr(name)):
        decode_header(json.dumps(header).encode())
