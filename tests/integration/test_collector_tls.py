"""HTTPS: a certificate that is changed while it serves, and pairs that do not fit."""

from __future__ import annotations

import signal
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest
import trustme

from callmeter.collector.config import CollectorConfig
from callmeter.collector.memory import MemoryAppender
from callmeter.collector.thread import CollectorThread
from callmeter.errors import ConfigError
from callmeter.transports.factory import open_transport
from callmeter.transports.options import TransportOptions
from callmeter.transports.protocol import Outcome
from support.shipping import Shipper, envelope

_PROGRAM = """
import asyncio, sys
from pathlib import Path
from callmeter.collector import app
from callmeter.collector.config import CollectorConfig
from callmeter.collector.memory import MemoryAppender

app._CERTIFICATE_POLL_S = 3600.0  # the signal alone
config = CollectorConfig(port=0, tls_cert=Path(sys.argv[1]), tls_key=Path(sys.argv[2]))
asyncio.run(app.run_collector(
    MemoryAppender(), config, on_started=lambda url: print(url, flush=True)
))
"""


class Pair:
    """A certificate and its key in files, from one authority; made anew on demand."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.cert, self.key, self.ca = (folder / n for n in ("cert.pem", "key.pem", "ca.pem"))
        self.authority.cert_pem.write_to_path(str(self.ca))
        self.renew()

    def renew(self) -> None:
        made = self.authority.issue_cert("127.0.0.1", "localhost")
        self.key.write_bytes(made.private_key_pem.bytes())
        self.cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))

    def served(self, port: int) -> bytes:
        """The certificate that a new connection is shown, verified."""
        context = ssl.create_default_context(cafile=str(self.ca))
        connection = HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
        try:
            connection.request("GET", "/healthz")
            assert connection.sock is not None
            shown = connection.sock.getpeercert(binary_form=True)
            assert connection.getresponse().status == 200
            return shown
        finally:
            connection.close()


def wait_until(holds) -> None:
    deadline_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


@pytest.fixture
def collector(pair: Pair) -> Iterator[CollectorThread]:
    config = CollectorConfig(port=0, tls_cert=pair.cert, tls_key=pair.key)
    made = CollectorThread(MemoryAppender(), config)
    made.start()
    yield made
    made.stop()


def test_a_new_certificate_is_taken_up_and_a_wrong_one_is_not(
    pair: Pair, collector: CollectorThread
) -> None:
    assert collector.url.startswith("https://127.0.0.1:")
    port = int(collector.url.rpartition(":")[2])
    first = pair.served(port)
    pair.renew()
    wait_until(lambda: pair.served(port) != first)
    second = pair.served(port)
    pair.key.write_text("no key", encoding="ascii")
    options = TransportOptions(timeout_s=10.0, ca_file=str(pair.ca), environ={})
    shipper = Shipper(open_transport(collector.url, settings=options))
    shipper.deliver([envelope(0)])
    assert [report.outcome for report in shipper.reports] == [Outcome.DELIVERED]
    shipper.transport.close(5.0)
    assert pair.served(port) == second
    pair.renew()
    wait_until(lambda: pair.served(port) != second)


def test_sighup_reads_it_anew(pair: Pair) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(pair.cert), str(pair.key)], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().decode().rpartition(":")[2])
            first = pair.served(port)
            pair.renew()
            process.send_signal(signal.SIGHUP)
            wait_until(lambda: pair.served(port) != first)
            process.terminate()
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()


def test_old_versions_and_plain_http_are_not_answered(
    pair: Pair, collector: CollectorThread
) -> None:
    import socket

    port = int(collector.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=30) as conn:
        conn.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"HTTP/1.1 200" not in conn.recv(1000)
    context = ssl.create_default_context(cafile=str(pair.ca))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that they are old is the point
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        context.minimum_version = ssl.TLSVersion.TLSv1
    with socket.create_connection(("127.0.0.1", port), timeout=30) as conn, pytest.raises(OSError):
        context.wrap_socket(conn, server_hostname="127.0.0.1")


def test_a_pair_that_does_not_fit_is_refused_at_the_start(pair: Pair, tmp_path: Path) -> None:
    other = trustme.CA().issue_cert("127.0.0.1")
    pair.key.write_bytes(other.private_key_pem.bytes())
    config = CollectorConfig(port=0, tls_cert=pair.cert, tls_key=pair.key)
    with pytest.raises(ConfigError, match="no certificate and its key"):
        CollectorThread(MemoryAppender(), config).start()
    with pytest.raises(ConfigError, match="a certificate and its key"):
        CollectorConfig(tls_cert=pair.cert)
