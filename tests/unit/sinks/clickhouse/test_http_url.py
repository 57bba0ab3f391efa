from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from callmeter.errors import ConfigError
from callmeter_sinks.clickhouse.http_url import HttpUrl
from callmeter_sinks.clickhouse.opening import open_shards, open_store

SECRET = "hunter2"


def test_the_parts_of_a_url() -> None:
    url = HttpUrl.parse(f"clickhouses://me:{SECRET}@ch.example:9443/meter?cluster=main&ca=/ca", {})
    assert (url.host, url.port, url.database, url.secure) == ("ch.example", 9443, "meter", True)
    assert (url.user, url.password, url.cluster, url.ca_file) == ("me", SECRET, "main", "/ca")
    assert url.replicated


def test_defaults() -> None:
    url = HttpUrl.parse("clickhouse://host", {})
    assert (url.port, url.database, url.user, url.password) == (8123, "default", "default", "")
    assert HttpUrl.parse("clickhouses://host", {}).port == 8443


def test_secrets_from_the_environment_and_from_files(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\n")
    named = {"CALLMETER_STORE_PASSWORD_FILE": str(file), "CALLMETER_STORE_USER": "me"}
    assert HttpUrl.parse("clickhouse://h", named).password == SECRET
    assert HttpUrl.parse("clickhouse://h", named).user == "me"
    assert HttpUrl.parse("clickhouse://h", {"CALLMETER_STORE_PASSWORD": SECRET}).password == SECRET


def test_no_secret_is_shown() -> None:
    url = HttpUrl.parse(f"clickhouse://me:{SECRET}@[::1]:8123/db", {})
    assert SECRET not in repr(url) + url.display()
    assert url.display() == "clickhouse://[::1]:8123/db"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"clickhouse://me:{SECRET}@host:notaport/db", "port"),
        (f"clickhouse://me:{SECRET}@/db", "lacks a host"),
        (f"clickhouse://me:{SECRET}@host/db;DROP", "database"),
        (f"clickhouse://me:{SECRET}@host/db?cluster=a`b", "cluster"),
        (f"clickhouse://me:{SECRET}@host/db?color=red", "unknown option.*color"),
        (f"clickhouse://me:{SECRET}@host/db?timeout=soon", "timeout"),
        (f"clickhouse://me:{SECRET}@host/db?compress=rar", "compress"),
    ],
)
def test_what_is_wrong_is_said_without_the_secret(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        HttpUrl.parse(url, {})
    assert SECRET not in str(caught.value)


def test_one_address_a_shard_in_order() -> None:
    url = f"clickhouses://me:{SECRET}@one,two:9443,[::1]:9000/meter?cluster=main&timeout=5"
    shards = HttpUrl.parse_shards(url, {})
    assert [(s.host, s.port) for s in shards] == [("one", 8443), ("two", 9443), ("::1", 9000)]
    assert {(s.user, s.password, s.database, s.cluster, s.timeout_s, s.secure) for s in shards} == {
        ("me", SECRET, "meter", "main", 5, True)
    }
    named = HttpUrl.parse_shards("clickhouse://a,b/db", {"CALLMETER_STORE_CLUSTER": "main"})
    assert [shard.cluster for shard in named] == ["main", "main"]


def test_one_address_is_one_store_as_it_was() -> None:
    for url in ("clickhouse://host", f"clickhouses://me:{SECRET}@[::1]:9443/db?cluster=main"):
        assert HttpUrl.parse_shards(url, {}) == (HttpUrl.parse(url, {}),)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"clickhouse://me:{SECRET}@a,b/db", r"names 2 hosts.*add \?cluster=NAME"),
        (f"clickhouse://me:{SECRET}@a,b:8123,a:8123/db?cluster=c", "names a:8123 twice"),
        (f"clickhouse://me:{SECRET}@a,/db?cluster=c", "lacks a host"),
        (f"clickhouse://me:{SECRET}@a,b:x/db?cluster=c", "port"),
    ],
)
def test_what_is_wrong_with_several_is_said_without_the_secret(url: str, says: str) -> None:
    for take in (partial(HttpUrl.parse_shards, url, {}), partial(open_store, url, {}),
                 partial(open_shards, url, {})):  # fmt: skip
        with pytest.raises(ConfigError, match=says) as caught:
            take()
        assert SECRET not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_missing_password_file_is_named() -> None:
    with pytest.raises(ConfigError, match="CALLMETER_STORE_PASSWORD_FILE: /no/such"):
        HttpUrl.parse("clickhouse://h", {"CALLMETER_STORE_PASSWORD_FILE": "/no/such"})


@pytest.mark.parametrize("url", ["chdb:", "sqlite:/x", "chdb", "http://host"])
def test_other_urls_are_no_stores(url: str) -> None:
    with pytest.raises(ConfigError, match="chdb:DIR"):
        open_store(url)
