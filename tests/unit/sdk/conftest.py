"""The public test kit is what these tests stand on; every event is checked against its record
type.
"""

from collections.abc import Iterator

import msgspec
import orjson
import pytest

from callmeter.schema.envelope import MAX_BYTES, MAX_EVENTS, decode_header, split_lines
from callmeter.schema.events import Event
from callmeter.testing import Capture, capture


@pytest.fixture
def captured() -> Iterator[Capture]:
    """A capturing client with default settings."""
    with capture() as it:
        yield it
        check_wire(it)


def check_wire(it: Capture) -> None:
    """Every delivered envelope keeps the wire contract, and seq has no holes."""
    it.client.flush(0.0)
    decoder = msgspec.json.Decoder(Event)
    for expected_seq, sealed in enumerate(sorted(it.transport.delivered, key=lambda e: e.seq)):
        lines = split_lines(sealed.data)
        header = decode_header(lines[0])
        assert header.seq == sealed.seq == expected_seq
        assert header.n == sealed.n == len(lines) - 1
        assert 1 <= header.n <= MAX_EVENTS
        assert len(sealed.data) <= MAX_BYTES
        for line in lines[1:]:
            assert line.startswith(b'{"kind":')
            decoder.decode(line)
            assert orjson.loads(line)["ts_us"] > 0
