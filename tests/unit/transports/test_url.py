"""Which URL is which transport, and what of a URL may be shown."""

from __future__ import annotations

import subprocess
import sys

import pytest

from callmeter.errors import ConfigError, MissingExtraError
from callmeter.transports.factory import open_transport
from callmeter.transports.options import TransportOptions
from callmeter.transports.url import display_url, http_endpoint, jsonl_path


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("memory:", "memory"),
        ("noop:", "noop"),
        ("jsonl:calls.jsonl", "jsonl"),
        ("http://h:4248", "http"),
        ("https://h/base", "http"),
        ("kafka://h:9092", "kafka"),
    ],
)
def test_the_scheme_chooses(url: str, name: str) -> None:
    assert open_transport(url).name == name


def test_http_endpoints() -> None:
    plain = http_endpoint("http://Collector.Example/")
    assert (plain.tls, plain.host, plain.port, plain.base) == (
        False,
        "collector.example",
        80,
        "",
    )
    tls = http_endpoint("HTTPS://[::1]:8443/meter/")
    assert (tls.tls, tls.port, tls.base, tls.authority) == (True, 8443, "/meter", "[::1]:8443")
    assert tls.loopback
    assert not plain.loopback


def test_jsonl_paths() -> None:
    assert jsonl_path("jsonl:a/b.jsonl") == "a/b.jsonl"
    assert jsonl_path("jsonl:/a/b") == "/a/b"
    assert jsonl_path("jsonl:///a/b") == "/a/b"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "kafka://"),
        ("/some/path", "kafka://"),
        ("redis://user:hunter2@h", "kafka://"),
        ("http://", "http[s]://host"),
        ("http://h:port", "http[s]://host"),
        ("http://key:hunter2@h", "CALLMETER_API_KEY"),
        ("http://h?key=hunter2", "no query"),
        ("jsonl:", "jsonl:PATH"),
        ("jsonl://host/path", "jsonl:PATH"),
        ("kafka://h/path", "?prefix="),
    ],
)
def test_a_wrong_url_says_so_in_one_line_without_secrets(url: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_transport(url)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_wrong_settings_are_config_errors() -> None:
    with pytest.raises(ConfigError, match="brotli"):
        open_transport("http://h", settings=TransportOptions(compression="brotli"))
    with pytest.raises(ConfigError, match="nowhere"):
        open_transport("https://h", settings=TransportOptions(ca_file="/nowhere.pem"))
    with pytest.raises(ConfigError, match="proxy"):
        open_transport("http://h", settings=TransportOptions(environ={"HTTP_PROXY": "socks5://p"}))


def test_options_and_display_hide_secrets() -> None:
    assert "hunter2" not in repr(TransportOptions(api_key="hunter2", environ={"A": "hunter2"}))
    assert display_url("clickhouse://u:hunter2@h:1/db?x=hunter2") == "clickhouse://h:1/db"
    assert display_url("kafka://u:hun/ter2@h") == "kafka://…"
    assert display_url("jsonl:file") == "jsonl:file"


_WITHOUT_KAFKA = """
import sys
sys.modules["aiokafka"] = None
from callmeter.errors import MissingExtraError
from callmeter.transports.factory import open_transport
open_transport("memory:")
open_transport("http://h")
heavy = ("aiokafka", "aiohttp", "faust", "zstandard")
print([name for name in heavy if sys.modules.get(name)])
try:
    open_transport("kafka://h")
except MissingExtraError as exc:
    print(exc)
"""


def test_kafka_without_its_client_names_the_extra() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_KAFKA], capture_output=True, text=True, check=True
    )
    loaded, error = done.stdout.splitlines()
    assert loaded in ("[]", "['zstandard']")
    assert "pip install 'callmeter[kafka]'" in error
    assert issubclass(MissingExtraError, ConfigError)


def test_the_url_s_prefix_wins_over_the_option() -> None:
    by_option = open_transport("kafka://h", settings=TransportOptions(prefix="team", environ={}))
    by_url = open_transport(
        "kafka://h?prefix=mine", settings=TransportOptions(prefix="team", environ={})
    )
    assert by_option.topic == "team.events"  # type: ignore[attr-defined]
    assert by_url.topic == "mine.events"  # type: ignore[attr-defined]
