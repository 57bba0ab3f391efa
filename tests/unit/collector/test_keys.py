"""Who may write to what, and where the collector may listen."""

from __future__ import annotations

import pytest

from callmeter.collector.config import CollectorConfig
from callmeter.collector.keys import KeyRing
from callmeter.errors import ConfigError


def test_a_key_covers_its_projects_and_only_writes() -> None:
    ring = KeyRing.parse(["sesame-key:shop, search"])
    grant = ring.find("Bearer sesame-key")
    assert grant is not None
    assert (grant.may_write, grant.may_read) == (True, False)
    assert grant.covers("shop")
    assert grant.covers("search")
    assert not grant.covers("other")


def test_the_key_alone_is_understood_as_the_monitor_hook_sends_it() -> None:
    ring = KeyRing.parse(["sesame-key:shop"])
    assert ring.find("sesame-key") is not None
    assert ring.find("bearer   sesame-key ") is not None


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong-key", "Basic sesame-key"])
def test_anything_else_is_nobody(header: str | None) -> None:
    assert KeyRing.parse(["sesame-key:shop"]).find(header) is None


def test_read_keys_are_separate_and_a_key_in_both_lists_does_both() -> None:
    ring = KeyRing.parse(
        ["writes-only:a", "does-both-things:a"], ["reads-all", "does-both-things:a"]
    )
    reader, both = ring.find("reads-all"), ring.find("does-both-things")
    assert reader is not None
    assert both is not None
    assert (reader.may_write, reader.may_read, reader.covers("anything")) == (False, True, True)
    assert (both.may_write, both.may_read) == (True, True)
    assert ring.has_read_keys
    assert not KeyRing.parse(["writes-only:a"]).has_read_keys


def test_a_star_is_every_project_and_a_key_may_hold_colons() -> None:
    grant = KeyRing.parse(["pre:fix:key:*"]).find("Bearer pre:fix:key")
    assert grant is not None
    assert grant.covers("anything")


def test_without_keys_everybody_may_do_everything() -> None:
    grant = KeyRing().find(None)
    assert grant is not None
    assert grant.may_write
    assert grant.may_read
    assert grant.covers("anything")


@pytest.mark.parametrize("entry", ["hunter2-secret", "hunter2-secret:", "hunt:p", "hun ter2xx:p"])
def test_a_wrong_entry_is_counted_and_not_shown(entry: str) -> None:
    with pytest.raises(ConfigError) as caught:
        KeyRing.parse(["good-key-1:p", entry])
    assert "API key 2" in str(caught.value)
    assert "hun" not in str(caught.value)


def test_no_key_in_any_text() -> None:
    ring = KeyRing.parse(["hunter2-secret:p"])
    grant = ring.find("hunter2-secret")
    assert "hunter2" not in repr(ring) + repr(grant) + repr(CollectorConfig(keys=ring))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_loopback_needs_no_keys(host: str) -> None:
    assert CollectorConfig(host=host).host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "collector.example", ""])
def test_any_other_address_does(host: str) -> None:
    with pytest.raises(ConfigError, match="without API keys"):
        CollectorConfig(host=host)
    assert CollectorConfig(host=host, keys=KeyRing.parse(["sesame-key:p"])).host == host


def test_the_same_key_with_other_projects_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="twice"):
        KeyRing.parse(["sesame-key:a", "sesame-key:b"])
