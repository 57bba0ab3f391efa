"""The Kafka transport over a real Kafka: outages, refusals, missing topics, exits, security."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from callmeter.errors import ConfigError
from callmeter.ids import uuid7
from callmeter.log.kafka_server import KafkaServer
from callmeter.schema.envelope import decode_header, split_lines
from callmeter.transports.factory import open_transport
from callmeter.transports.options import TransportOptions
from callmeter.transports.protocol import Outcome, Sealed
from support.kafka_events import EventsTopic
from support.kafka_server import Broker, cannot_start, skip_or_fail
from support.secure_kafka import PASSWORD, USER, SecureKafka
from support.shipping import Shipper, envelope

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

OwnKafka = Callable[..., KafkaServer]


def shipper(url: str, **options) -> Shipper:
    options.setdefault("timeout_s", 5.0)
    return Shipper(open_transport(url, settings=TransportOptions(**options)))


def arrived(topic: EventsTopic) -> set[tuple[str, int]]:
    headers = [decode_header(split_lines(value)[0]) for value in topic.values()]
    return {(header.source, header.seq) for header in headers}


def run(program: str, *args: str) -> str:
    """A program of its own: what it prints, after it said nothing on stderr."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", program, *args],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
    return done.stdout


@pytest.mark.parametrize("compression", ["zstd", "lz4", "gzip", "none"])
def test_every_codec_arrives(kafka: Broker, topic_prefix: str, compression: str) -> None:
    with EventsTopic(kafka.bootstrap, topic_prefix) as topic:
        s = shipper(topic.url, compression=compression)
        sent = [envelope(seq, pad=1000) for seq in range(20)]
        s.deliver(sent)
        s.transport.close(5.0)
        assert sorted(topic.values()) == sorted(e.data for e in sent)
        assert {message.key() for message in topic.messages()} == {e.source.encode() for e in sent}


def test_a_missing_topic_says_what_to_run_and_is_not_made(
    own_kafka: OwnKafka, topic_prefix: str
) -> None:
    server = own_kafka(auto__create__topics__enable="true")
    s = shipper(f"kafka://{server.bootstrap}?prefix={topic_prefix}")
    s.offer([envelope(0)])
    (report,) = s.wait(1)
    assert report.outcome is Outcome.RETRY
    assert "callmeter topics apply" in (report.error or "")
    assert f"{topic_prefix}.events" in (report.error or "")
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    assert f"{topic_prefix}.events" not in admin.list_topics(timeout=10).topics
    with EventsTopic(server.bootstrap, topic_prefix) as topic:
        s.deliver([envelope(seq) for seq in range(3)])
        assert len(topic.values()) == 3
    s.transport.close(5.0)


def test_a_broker_killed_while_sending_loses_nothing(
    own_kafka: OwnKafka, topic_prefix: str
) -> None:
    server = own_kafka()
    with EventsTopic(server.bootstrap, topic_prefix) as topic:
        s = shipper(topic.url, timeout_s=2.0)
        sources = [uuid7() for _ in range(8)]
        sent = [envelope(seq, source=source, pad=2000) for seq in range(400) for source in sources]
        s.deliver(sent[:800])
        s.offer(sent[800:1600])
        server.kill()
        restart = threading.Thread(target=server.restart)
        restart.start()
        pending = {(e.source, e.seq) for e in sent[800:1600]}
        given_back = {
            (r.envelope.source, r.envelope.seq): r.envelope
            for r in s.wait(1600)[800:]
            if r.outcome is Outcome.RETRY
        }
        assert given_back.keys() <= pending
        retries = s.deliver([*given_back.values(), *sent[1600:]])
        restart.join()
        print(f"\n  injected: 1 broker kill, {len(given_back) + retries} retries")
        assert arrived(topic) == {(e.source, e.seq) for e in sent}
        s.transport.close(5.0)


def test_a_silent_broker_is_a_retry_in_bounded_time_and_memory(
    own_kafka: OwnKafka, topic_prefix: str
) -> None:
    server = own_kafka()
    with EventsTopic(server.bootstrap, topic_prefix) as topic:
        s = shipper(topic.url, timeout_s=1.0, max_in_flight_bytes=300_000)
        s.deliver([envelope(0)])
        server.pause()
        many = [envelope(seq, pad=50_000) for seq in range(20)]
        taken = [one for one in many if s.transport.send(one)]
        assert len(taken) == 5
        reports = s.wait(1 + len(taken), timeout_s=20.0)[1:]
        assert {r.outcome for r in reports} == {Outcome.RETRY}
        server.resume()
        s.deliver(many)
        s.transport.close(5.0)
        assert arrived(topic) >= {(e.source, e.seq) for e in many}


_LEAVES = """
import os, signal, sys, threading
from callmeter.transports.factory import open_transport
from callmeter.transports.options import TransportOptions
from support.shipping import Shipper, envelope
url, broker, pause = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "pause"
s = Shipper(open_transport(url, settings=TransportOptions(timeout_s=60.0, compression="none")))
s.deliver([envelope(seq) for seq in range(5)])
if pause:
    os.kill(broker, signal.SIGSTOP)
    s.offer([envelope(seq, pad=200_000) for seq in range(40)])
s.transport.close(0.3)
fds = [f"/proc/self/fd/{fd}" for fd in range(3, 50)]
links = [os.readlink(fd) for fd in fds if os.path.exists(fd)]
print(*[r.outcome.value for r in s.reports][5:])
print(sum(link.startswith("socket:") for link in links), threading.active_count())
"""


def test_a_clean_close_leaves_no_socket_and_no_thread(kafka: Broker, topic_prefix: str) -> None:
    with EventsTopic(kafka.bootstrap, topic_prefix) as topic:
        reports, left = run(_LEAVES, topic.url, "0", "close").splitlines()
        assert reports == ""
        assert left == "0 1"


def test_closing_while_the_broker_is_silent_is_bounded_and_leaves_nothing(
    own_kafka: OwnKafka, topic_prefix: str
) -> None:
    server = own_kafka()
    with EventsTopic(server.bootstrap, topic_prefix) as topic:
        try:
            reports, left = run(_LEAVES, topic.url, str(server.pid), "pause").splitlines()
        finally:
            server.resume()
        assert reports.split() == ["retry"] * 40
        assert left == "0 1"


def test_a_record_too_large_for_the_topic_is_refused_and_its_neighbours_go(
    kafka: Broker, topic_prefix: str
) -> None:
    limits = {"max.message.bytes": "20000"}
    with EventsTopic(kafka.bootstrap, topic_prefix, config=limits) as topic:
        s = shipper(topic.url, compression="none")
        source = uuid7()
        sizes = {3: 50_000, 7: 30_000}
        sent = [envelope(seq, source=source, pad=sizes.get(seq, 5000)) for seq in range(12)]
        s.offer(sent)
        verdicts: dict[int, Outcome] = {}
        seen = 0
        while len(verdicts) < len(sent):
            reports = s.wait(seen + 1)
            for report in reports[seen:]:
                if report.outcome is Outcome.RETRY:
                    s.offer([report.envelope])
                else:
                    verdicts[report.envelope.seq] = report.outcome
            seen = len(reports)
        s.transport.close(5.0)
        assert {seq for seq, verdict in verdicts.items() if verdict is Outcome.REFUSED} == {3, 7}
        assert {seq for _, seq in arrived(topic)} == set(range(12)) - {3, 7}


def test_envelopes_that_do_not_shrink_go_in_smaller_batches(
    kafka: Broker, topic_prefix: str
) -> None:
    with EventsTopic(kafka.bootstrap, topic_prefix) as topic:
        s = shipper(topic.url, compression="zstd")
        source = uuid7()
        # Base64 shrinks to three quarters: of two megabytes to more than the broker takes.
        noise = [b64encode(os.urandom(180_000)) for _ in range(40)]
        sent = [Sealed(source, seq, 1, one) for seq, one in enumerate(noise)]
        s.offer(sent)
        reports = s.wait(len(sent))
        s.transport.close(5.0)
        assert {report.outcome for report in reports} == {Outcome.DELIVERED}
        assert [report.envelope.seq for report in reports] == list(range(40))
        assert [report.offset for report in reports] == list(range(40))
        assert list(topic.values()) == noise


def test_the_host_s_log_stays_quiet_while_the_broker_is_away(
    own_kafka: OwnKafka, topic_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = own_kafka()
    with EventsTopic(server.bootstrap, topic_prefix) as topic:
        with caplog.at_level(logging.DEBUG):
            s = shipper(topic.url, timeout_s=1.0)
            s.deliver([envelope(0)])
            server.kill()
            for count in (2, 3, 4):
                s.offer([envelope(0)])
                s.wait(count)
            s.transport.close(1.0)
            logging.getLogger("aiokafka.conn").warning("the host's own use of aiokafka")
        lines = [r.getMessage() for r in caplog.records if r.name.startswith("aiokafka")]
        assert lines == ["the host's own use of aiokafka"]
        server.restart()


_SHORT_PROGRAM = """
import atexit, sys
from callmeter.transports.factory import open_transport
from support.shipping import envelope
reports = []
transport = open_transport(sys.argv[1])
transport.open(reports.append)
@atexit.register
def close():
    transport.close(20.0)
    print(*[report.outcome.value for report in reports])
assert all(transport.send(envelope(seq)) for seq in range(5))
"""


def test_a_program_that_ends_at_once_still_delivers_by_host_name(
    kafka: Broker, topic_prefix: str
) -> None:
    """The default executor, which resolves names for asyncio, is gone by then."""
    port = kafka.bootstrap.rpartition(":")[2]
    with EventsTopic(kafka.bootstrap, topic_prefix) as topic:
        told = run(_SHORT_PROGRAM, f"kafka://localhost:{port}?prefix={topic_prefix}")
        assert told.split() == ["delivered"] * 5
        assert len(topic.values()) == 5


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    reason = cannot_start()
    if reason is not None:
        skip_or_fail(reason)
    made = SecureKafka(tmp_path_factory.mktemp("secure"))
    try:
        made.start()
        yield made
    finally:
        made.server.stop()


class TestSecurity:
    def url(self, secure: SecureKafka, listener: str, user: str, query: str) -> str:
        scheme = "kafka+ssl" if "SSL" in listener else "kafka"
        return f"{scheme}://{user}localhost:{secure.port[listener]}?{query}"

    @pytest.mark.parametrize("listener", ["SASL_PLAINTEXT", "SASL_SSL"])
    @pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
    def test_a_known_user_delivers_and_a_wrong_password_is_told(
        self, secure: SecureKafka, topic_prefix: str, listener: str, mechanism: str
    ) -> None:
        query = f"prefix={topic_prefix}&mechanism={mechanism}"
        if "SSL" in listener:
            query += f"&ca={secure.ca_file}"
        with EventsTopic(secure.plain, topic_prefix) as topic:
            s = shipper(self.url(secure, listener, f"{USER}:p%40ss%2Fw0rd@", query))
            s.deliver([envelope(seq) for seq in range(3)])
            s.transport.close(5.0)
            assert len(topic.values()) == 3
            s = shipper(self.url(secure, listener, f"{USER}:wrong@", query))
            s.offer([envelope(0)])
            (report,) = s.wait(1)
            s.transport.close(5.0)
        assert report.outcome is Outcome.RETRY
        assert "uthentication" in (report.error or "")
        assert "wrong" not in (report.error or "")

    def test_oauth_with_a_token_from_a_file(
        self, secure: SecureKafka, topic_prefix: str, tmp_path: Path
    ) -> None:
        (tmp_path / "token").write_text(secure.token() + "\n")
        environ = {
            "CALLMETER_KAFKA_TOKEN_FILE": str(tmp_path / "token"),
            "CALLMETER_KAFKA_CA_FILE": str(secure.ca_file),
        }
        with EventsTopic(secure.plain, topic_prefix) as topic:
            url = self.url(secure, "SASL_SSL", "", f"prefix={topic_prefix}")
            s = shipper(url, environ=environ)
            s.deliver([envelope(seq) for seq in range(3)])
            s.transport.close(5.0)
            assert len(topic.values()) == 3

    def test_a_client_certificate(self, secure: SecureKafka, topic_prefix: str) -> None:
        environ = {
            "CALLMETER_KAFKA_CA_FILE": str(secure.ca_file),
            "CALLMETER_KAFKA_CERT_FILE": str(secure.cert_file),
            "CALLMETER_KAFKA_KEY_FILE": str(secure.key_file),
        }
        url = self.url(secure, "SSL", "", f"prefix={topic_prefix}")
        with EventsTopic(secure.plain, topic_prefix) as topic:
            s = shipper(url, environ=environ)
            s.deliver([envelope(seq) for seq in range(3)])
            s.transport.close(5.0)
            assert len(topic.values()) == 3
            without = {k: v for k, v in environ.items() if "CA_FILE" in k}
            s = shipper(url, environ=without)
            s.offer([envelope(0)])
            assert s.wait(1)[0].outcome is Outcome.RETRY
            s.transport.close(5.0)

    def test_an_unknown_authority_is_not_trusted(
        self, secure: SecureKafka, topic_prefix: str
    ) -> None:
        url = self.url(secure, "SASL_SSL", f"{USER}:x@", f"prefix={topic_prefix}")
        s = shipper(url, environ={})
        s.offer([envelope(0)])
        (report,) = s.wait(1)
        s.transport.close(5.0)
        assert report.outcome is Outcome.RETRY
        assert "ertificate" in (report.error or "")

    def test_secrets_are_in_no_text(self, secure: SecureKafka) -> None:
        url = self.url(secure, "SASL_PLAINTEXT", f"{USER}:p%40ss%2Fw0rd@", "mechanism=nonsense")
        with pytest.raises(ConfigError) as caught:
            open_transport(url)
        assert PASSWORD not in str(caught.value)
        assert "p%40ss" not in str(caught.value)
