"""The key file: hashes only, whole edits, expiry, revocation, and the ring that follows it."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import orjson
import pytest

from callmeter.collector.access import may_read, readable_projects, reading_grant
from callmeter.collector.config import CollectorConfig
from callmeter.collector.keyfile import (
    create_key,
    grants_of,
    last_used,
    note_used,
    read_keys,
    revoke_key,
)
from callmeter.collector.keys import KeyRing
from callmeter.collector.keywatch import KeyWatch
from callmeter.errors import CannotWriteError, ConfigError, NewerSchemaError, UsageError

NOW = 1_790_000_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys" / "keys.json"


def test_a_key_is_not_in_its_file(path: Path) -> None:
    key, record = create_key(path, ["shop"], "write", now_us=NOW, name="ci")
    other, _ = create_key(path, ["*"], "read", now_us=NOW)
    text = path.read_text(encoding="utf-8")
    assert key not in text
    assert other not in text
    assert key.startswith(record.prefix)
    assert len(record.prefix) == 9
    assert len(key) == len("cmw_") + 43  # 256 bits in base64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [r.scope for r in read_keys(path)] == ["write", "read"]


def test_what_a_key_may_do(path: Path) -> None:
    key, record = create_key(path, ["shop", "search"], "write", now_us=NOW, expires_us=NOW + 10)
    ring = KeyRing()
    ring.replace_filed(grants_of(read_keys(path)))
    grant = ring.find(f"Bearer {key}", NOW + 9)
    assert grant is not None
    assert (grant.name, grant.may_write, grant.may_read) == (record.id, True, False)
    assert grant.covers("search")
    assert not grant.covers("else")
    assert ring.find(key, NOW + 10) is None  # expired
    assert ring.used_us == {record.id: NOW + 9}
    revoke_key(path, record.id, now_us=NOW)
    ring.replace_filed(grants_of(read_keys(path)))
    assert ring.find(key, NOW + 1) is None
    assert ring  # the last key is revoked: nobody may, and not everybody


def test_revoking_names_one_key(path: Path) -> None:
    create_key(path, ["a"], "write", now_us=NOW, name="twin")
    create_key(path, ["a"], "write", now_us=NOW, name="twin")
    with pytest.raises(UsageError, match="several"):
        revoke_key(path, "twin", now_us=NOW)
    with pytest.raises(UsageError, match="no such key"):
        revoke_key(path, "nobody", now_us=NOW)
    assert all(r.revoked_us is None for r in read_keys(path))


def test_edits_at_the_same_time_lose_nothing(path: Path) -> None:
    threads = [
        threading.Thread(target=create_key, args=(path, ["p"], "write"), kwargs={"now_us": NOW})
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({r.id for r in read_keys(path)}) == 16
    assert {p.name for p in path.parent.iterdir()} == {"keys.json", ".keys.json.lock"}


@pytest.mark.parametrize("content", [b"", b"{}", b'{"v":1,"keys":[{"id":"x"}]}', b"\xff", b"[1"])
def test_what_is_no_key_file_is_said_without_its_content(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="is no key file"):
        read_keys(path)
    with pytest.raises(ConfigError):
        create_key(path, ["p"], "write", now_us=NOW)
    assert path.read_bytes() == content  # nothing is written over what is not understood


def test_a_newer_file_is_left_alone(path: Path) -> None:
    create_key(path, ["p"], "write", now_us=NOW)
    newer = orjson.loads(path.read_bytes()) | {"v": 2}
    path.write_bytes(orjson.dumps(newer))
    with pytest.raises(NewerSchemaError):
        read_keys(path)


def test_uses_are_merged(path: Path) -> None:
    create_key(path, ["p"], "write", now_us=NOW)
    note_used(path, {"a": 5, "b": 1})
    note_used(path, {"a": 3, "b": 2})
    assert last_used(path) == {"a": 5, "b": 2}
    path.with_name("keys.json.used").write_bytes(b"broken")
    assert last_used(path) == {}


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CannotWriteError):
        create_key(tmp_path / "file" / "keys.json", ["p"], "write", now_us=NOW)


def test_a_ring_follows_its_file(path: Path) -> None:
    first, record = create_key(path, ["p"], "write", now_us=NOW)
    ring = KeyRing.parse(["fixed-key-1:p"])
    watch = KeyWatch(path, ring)
    watch.look()
    assert ring.find(first, NOW) is not None
    second, _ = create_key(path, ["p"], "write", now_us=NOW)
    watch.look()
    assert ring.find(second, NOW) is not None
    revoke_key(path, record.id, now_us=NOW)
    watch.look()
    assert ring.find(first, NOW) is None
    path.unlink()
    watch.look()
    assert ring.find(second, NOW) is None
    assert ring.find("fixed-key-1", NOW) is not None
    watch.note()
    assert set(last_used(path)) >= {record.id}


def test_a_mounted_secret_is_swapped_by_a_link(path: Path) -> None:
    """As Kubernetes does it: the file is a link into a folder that is itself a link."""
    path.parent.mkdir()
    first, _ = create_key(path.parent / "..1" / "keys.json", ["p"], "write", now_us=NOW)
    second, _ = create_key(path.parent / "..2" / "keys.json", ["p"], "write", now_us=NOW)
    data = path.parent / "..data"
    data.symlink_to("..1")
    path.symlink_to("..data/keys.json")
    ring = KeyRing()
    watch = KeyWatch(path, ring)
    watch.look()
    assert ring.find(first, NOW) is not None
    draft = path.parent / "..draft"
    draft.symlink_to("..2")
    draft.replace(data)
    watch.look()
    assert ring.find(first, NOW) is None
    assert ring.find(second, NOW) is not None


def test_credentials_end_with_their_key(path: Path) -> None:
    key, record = create_key(path, ["p"], "write", now_us=NOW)
    ring = KeyRing()
    ring.replace_filed(grants_of(read_keys(path)))
    assert ring.lend(f"Bearer {key}", "cred_1") is not None
    assert ring.lend("Bearer cred_1", "cred_2") is None  # a credential makes no other
    lent = ring.find("Bearer cred_1", NOW)
    assert lent is not None
    assert (lent.name, lent.may_read) == (record.id, False)
    revoke_key(path, record.id, now_us=NOW)
    ring.replace_filed(grants_of(read_keys(path)))
    assert ring.find("Bearer cred_1", NOW) is None


def test_another_address_needs_a_key_that_somebody_has(path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no key file"):
        CollectorConfig(keys_file=path)
    _, record = create_key(path, ["p"], "write", now_us=NOW)
    assert CollectorConfig(host="0.0.0.0", keys_file=path, keys=KeyRing()).keys
    revoke_key(path, record.id, now_us=NOW)
    with pytest.raises(ConfigError, match="without API keys"):
        CollectorConfig(host="0.0.0.0", keys_file=path, keys=KeyRing())
    loopback = CollectorConfig(keys_file=path, keys=KeyRing())
    assert loopback.keys.find(None) is None  # a key file asks for keys, on loopback too


def test_whether_a_caller_reads_a_project() -> None:
    ring = KeyRing.parse(["writes-key:shop"], ["reads-shop:shop", "reads-all1"])
    assert readable_projects(ring, "Bearer reads-shop") == {"shop"}
    assert readable_projects(ring, "reads-all1") == {"*"}
    assert readable_projects(ring, "writes-key") is None
    assert readable_projects(ring, None) is None
    assert readable_projects(KeyRing(), None) == {"*"}
    grant = reading_grant(ring, "reads-shop")
    assert grant is not None
    assert not grant.covers("other")


def test_when_metrics_ask_for_a_key(path: Path) -> None:
    ring = KeyRing()
    assert not ring.has_read_keys
    create_key(path, ["p"], "write", now_us=NOW)
    ring.replace_filed(grants_of(read_keys(path)))
    assert not ring.has_read_keys
    create_key(path, ["*"], "read", now_us=NOW)
    ring.replace_filed(grants_of(read_keys(path)))
    assert ring.has_read_keys
    ring.replace_filed({})  # all revoked, or the file is gone: that opens nothing
    assert ring.has_read_keys


async def test_a_route_asks_whether_it_may_be_read(start) -> None:
    from aiohttp import web

    from callmeter.collector.context import json_response

    async def look(request: web.Request) -> web.Response:
        return json_response(
            [may_read(request, "shop"), may_read(request, "x"), may_read(request, None)]
        )

    ring = KeyRing.parse(["writes-key:shop"], ["reads-shop:shop", "reads-all1"])
    c = await start(keys=ring, extra=[lambda app: app.router.add_get("/look", look)])
    for key, seen in (
        ("reads-shop", [True, False, False]),
        ("reads-all1", [True, True, True]),
        ("writes-key", [False] * 3),
        ("nobodys-key", [False] * 3),
    ):
        _, text = await c.get("/look", Authorization=f"Bearer {key}")
        assert orjson.loads(text) == seen
