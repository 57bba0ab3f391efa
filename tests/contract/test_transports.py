"""What every transport promises (``callmeter.transports.protocol``), over all of them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from callmeter.collector.config import CollectorConfig
from callmeter.collector.keys import KeyRing
from callmeter.collector.memory import MemoryAppender
from callmeter.collector.thread import CollectorThread
from callmeter.ids import uuid7
from callmeter.log.partitioner import partition_for
from callmeter.schema.envelope import Header, encode, split_envelopes
from callmeter.transports.factory import open_transport
from callmeter.transports.memory import MemoryTransport
from callmeter.transports.options import TransportOptions
from callmeter.transports.protocol import Delivery, Outcome, Sealed, Transport

_POLLS = 600
_POLL_S = 0.05


def sealed(source: str, seq: int, *, events: int = 3, pad: int = 20) -> Sealed:
    header = Header(source=source, seq=seq, n=events, sent_us=1_700_000_000_000_000, project="p")
    text = "x" * pad
    line = f'{{"kind":"annotation","ts_us":1700000000000000,"text":"{text}"}}'.encode()
    return Sealed(source, seq, events, encode(header, [line] * events))


@dataclass
class Backend:
    """One kind of transport and how to look at what it delivered; None where nothing is kept."""

    url: str
    arrived: Callable[[Transport], list[bytes]] | None
    places: bool = False
    options: TransportOptions = field(default_factory=TransportOptions)

    def open(self, **changes: object) -> Transport:
        fields = {name: getattr(self.options, name) for name in TransportOptions.__slots__}
        return open_transport(self.url, settings=TransportOptions(**{**fields, **changes}))


class Sender:
    """Stands in for the SDK's shipper."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.reports: list[Delivery] = []
        transport.open(self.reports.append)

    def send_all(self, envelopes: list[Sealed]) -> None:
        for envelope in envelopes:
            for _ in range(_POLLS):
                if self.transport.send(envelope):
                    break
                self.transport.poll(_POLL_S)
            else:
                pytest.fail("the transport stayed full")

    def wait(self, count: int) -> None:
        for _ in range(_POLLS):
            if len(self.reports) >= count:
                return
            self.transport.poll(_POLL_S)
        pytest.fail(f"{len(self.reports)} of {count} reports, {self.reports[-1:]}")


@contextmanager
def memory() -> Iterator[Backend]:
    def arrived(transport: Transport) -> list[bytes]:
        assert isinstance(transport, MemoryTransport)
        return [envelope.data for envelope in transport.envelopes]

    yield Backend("memory:", arrived)


@contextmanager
def http(**options: object) -> Iterator[Backend]:
    appender = MemoryAppender()
    config = CollectorConfig(port=0, keys=KeyRing.parse(["test-key-1:p"]))
    collector = CollectorThread(appender, config)
    collector.start()
    settings = TransportOptions(api_key="test-key-1", **options)  # type: ignore[arg-type]
    try:
        yield Backend(collector.url, lambda _: appender.values(), places=True, options=settings)
    finally:
        collector.stop()


@pytest.fixture(
    params=[
        "memory",
        "noop",
        "jsonl",
        "http",
        "http-gzip",
        "http-zstd",
        pytest.param("kafka", marks=pytest.mark.kafka),
    ]
)
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    kind, _, codec = str(request.param).partition("-")
    if kind == "memory":
        with memory() as made:
            yield made
    elif kind == "noop":
        yield Backend("noop:", None)
    elif kind == "jsonl":
        file = tmp_path / "deep" / "er" / "envelopes.jsonl"
        yield Backend(f"jsonl:{file}", lambda _: list(split_envelopes(file.read_bytes())))
    elif kind == "http":
        with http(compression=codec or "auto") as made:
            yield made
    else:
        from support.kafka_events import EventsTopic

        broker = request.getfixturevalue("kafka")
        with EventsTopic(broker.bootstrap, request.getfixturevalue("topic_prefix")) as topic:
            yield Backend(topic.url, lambda _: topic.values(), places=True)


def test_every_envelope_arrives_as_it_is_and_is_reported_once(backend: Backend) -> None:
    sender = Sender(transport := backend.open())
    source = uuid7()
    envelopes = [sealed(source, seq, pad=50 * seq) for seq in range(40)]
    sender.send_all(envelopes)
    sender.wait(len(envelopes))
    transport.close(5.0)
    assert [r.outcome for r in sender.reports] == [Outcome.DELIVERED] * 40
    assert [r.envelope for r in sender.reports] == envelopes
    if backend.arrived is not None:
        assert backend.arrived(transport) == [e.data for e in envelopes]


def test_places_are_those_of_the_log(backend: Backend) -> None:
    sender = Sender(transport := backend.open())
    envelopes = [sealed(uuid7(), 0) for _ in range(12)]
    sender.send_all(envelopes)
    sender.wait(12)
    transport.close(5.0)
    if not backend.places:
        assert all(r.offset is None for r in sender.reports) or transport.name == "memory"
        return
    offsets: dict[int, list[int]] = {}
    for report in sender.reports:
        assert report.partition == partition_for(report.envelope.source.encode(), 4)
        assert report.offset is not None
        offsets.setdefault(report.partition, []).append(report.offset)
    assert all(sorted(seen) == list(range(len(seen))) for seen in offsets.values())


def test_a_full_transport_takes_nothing_and_goes_on_later(backend: Backend) -> None:
    sender = Sender(transport := backend.open(max_in_flight_bytes=200_000))
    source = uuid7()
    envelopes = [sealed(source, seq, events=1, pad=60_000) for seq in range(30)]
    sender.send_all(envelopes)
    transport.close(10.0)
    assert sorted(r.envelope.seq for r in sender.reports) == list(range(30))
    assert {r.outcome for r in sender.reports} == {Outcome.DELIVERED}


def test_an_envelope_may_be_sent_again(backend: Backend) -> None:
    sender = Sender(transport := backend.open())
    envelope = sealed(uuid7(), 0)
    sender.send_all([envelope, envelope])
    sender.wait(2)
    transport.close(5.0)
    assert [r.outcome for r in sender.reports] == [Outcome.DELIVERED] * 2
    if backend.arrived is not None:
        assert backend.arrived(transport) == [envelope.data] * 2


def test_close_delivers_what_is_in_hand_and_may_be_repeated(backend: Backend) -> None:
    sender = Sender(transport := backend.open())
    envelopes = [sealed(uuid7(), 0) for _ in range(5)]
    sender.send_all(envelopes)
    transport.close(10.0)
    transport.close(0.0)
    assert sorted(r.envelope.source for r in sender.reports) == sorted(e.source for e in envelopes)
    assert {r.outcome for r in sender.reports} == {Outcome.DELIVERED}
    assert transport.send(envelopes[0]) is False
    assert len(sender.reports) == 5


def test_an_idle_transport_polls_and_closes(backend: Backend) -> None:
    sender = Sender(transport := backend.open())
    transport.poll(0.0)
    transport.poll(0.01)
    transport.close(5.0)
    assert sender.reports == []


def test_a_transport_that_was_never_opened_closes(backend: Backend) -> None:
    transport = backend.open()
    transport.close(0.1)
    assert transport.send(sealed(uuid7(), 0)) is False


@pytest.fixture(params=["http", "https", "kafka", "jsonl"])
def away(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URL where nobody answers."""
    if request.param == "jsonl":
        (tmp_path / "file").write_text("not a directory")
        return f"jsonl:{tmp_path}/file/envelopes.jsonl"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"{request.param}://127.0.0.1:{port}"


def test_a_backend_that_is_away_is_a_retry_with_a_reason_in_one_line(away: str) -> None:
    transport = open_transport(away, settings=TransportOptions(timeout_s=5.0))
    sender = Sender(transport)
    for round_number in (1, 2):
        sender.send_all([sealed(uuid7(), seq) for seq in range(3)])
        sender.wait(3 * round_number)
    transport.close(5.0)
    assert [r.outcome for r in sender.reports] == [Outcome.RETRY] * 6
    assert all(r.error and "\n" not in r.error for r in sender.reports)


def test_closing_while_the_backend_is_away_reports_everything_once(away: str) -> None:
    transport = open_transport(away, settings=TransportOptions(timeout_s=5.0))
    sender = Sender(transport)
    sender.send_all([sealed(uuid7(), seq) for seq in range(8)])
    transport.close(0.5)
    assert sorted(r.envelope.seq for r in sender.reports) == list(range(8))
    assert {r.outcome for r in sender.reports} == {Outcome.RETRY}
