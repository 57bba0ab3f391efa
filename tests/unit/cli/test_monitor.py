"""The endpoint beside a worker or a sink: routes, reasons, addresses, a port that is taken."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request

import pytest
from prometheus_client import Counter

from callmeter.cli.monitor import Monitor, parse_address
from callmeter.errors import CannotWriteError, UsageError


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read().decode()


def test_it_serves_metrics_and_says_why_it_is_not_well():
    counter = Counter("seen", "Things seen.", registry=None)
    reasons: dict[str, str | None] = {"unready": "restoring partitions 3", "ailing": None}
    monitor = Monitor(
        "0", [counter], unready=lambda: reasons["unready"], ailing=lambda: reasons["ailing"]
    )
    with monitor:
        counter.inc(2)
        status, text = get(f"{monitor.url}/metrics")
        assert status == 200
        assert "seen_total 2.0" in text
        assert "process_cpu_seconds_total" in text
        assert get(f"{monitor.url}/healthz") == (200, '{"status": "ok"}\n')
        status, text = get(f"{monitor.url}/readyz")
        assert (status, json.loads(text)) == (503, {"status": "restoring partitions 3"})
        reasons.update(unready=None, ailing="the worker has not moved for 61 s")
        assert get(f"{monitor.url}/readyz?verbose")[0] == 200
        assert get(f"{monitor.url}/healthz")[0] == 503
        assert get(f"{monitor.url}/")[0] == 404
    monitor.stop()


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(CannotWriteError, match=f"127.0.0.1:{port}"):
            Monitor(str(port)).start()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9464", ("127.0.0.1", 9464)),
        (":9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:9464", ("0.0.0.0", 9464)),
        ("[::1]:0", ("::1", 0)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "host", "host:", "host:http", "host:70000", "host:-1"])
def test_bad_addresses_are_refused(text: str):
    with pytest.raises(UsageError, match="HOST:PORT"):
        parse_address(text)
