from __future__ import annotations

from pathlib import Path

import pytest

from callmeter.errors import ConfigError
from callmeter_sinks.clickhouse.http_url import HttpUrl
from callmeter_sinks.clickhouse.store import open_store

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


def test_a_missing_password_file_is_named() -> None:
    with pytest.raises(ConfigError, match="CALLMETER_STORE_PASSWORD_FILE: /no/such"):
        HttpUrl.parse("clickhouse://h", {"CALLMETER_STORE_PASSWORD_FILE": "/no/such"})


@pytest.mark.parametrize("url", ["chdb:", "sqlite:/x", "chdb", "http://host"])
def test_other_urls_are_no_stores(url: str) -> None:
    with pytest.raises(ConfigError, match="chdb:DIR"):
        open_store(url)
