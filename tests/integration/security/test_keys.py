"""Who may do what: no key, another project's, a revoked one, an expired one, a read key."""

from __future__ import annotations

import signal
import time

import orjson
import pytest

from callmeter.collector.keyfile import create_key, last_used, read_keys, revoke_key
from callmeter.ids import uuid7
from support.cli import callmeter, environment

WRITES = ["/v1/envelopes", "/trace", "/v1/traces", "/v1/metrics", "/v1/logs"]


def envelope(guarded) -> bytes:
    from callmeter.schema.envelope import Header, encode

    return encode(
        Header(source=uuid7(), seq=0, n=1, sent_us=1, project="shop"),
        [b'{"kind":"annotation","text":"a payload of hunter2"}'],
    )


def status_of(guarded, name: str) -> int:
    """What a write to the project `shop` with the key of this name is answered."""
    status, _, _ = guarded.post("/v1/envelopes", envelope(guarded), guarded.keys[name])
    return status


def test_no_write_without_a_key_that_writes(guarded) -> None:
    body = envelope(guarded)
    for path in WRITES:
        for key, status, why in (
            (None, 401, "unauthorized"),
            ("hunter2hunter2", 401, "unauthorized"),
            (guarded.keys["old"], 401, "unauthorized"),
            (guarded.keys["shop"][:-1], 401, "unauthorized"),
            (guarded.keys["reads"], 403, "read_key"),
        ):
            kind = {"Content_Type": "application/json"}
            answered, headers, said = guarded.post(path, body, key, **kind)
            assert answered == status
            if path != "/v1/traces":  # there it is a google.rpc.Status
                assert orjson.loads(said)["reason"] == why
            assert ("WWW-Authenticate" in headers) == (status == 401)
            assert headers["Server"] == "callmeter"
            assert b"hunter2" not in said
    guarded.serves()


def test_another_projects_key(guarded) -> None:
    status, _, said = guarded.post("/v1/envelopes", envelope(guarded), guarded.keys["other"])
    assert (status, orjson.loads(said)["reason"]) == (403, "project")
    span = {"traceId": "ab" * 16, "spanId": "cd" * 8, "name": "hunter2"}
    now_ns = time.time_ns()
    span |= {"startTimeUnixNano": str(now_ns - 1000), "endTimeUnixNano": str(now_ns)}
    resource = {"attributes": [{"key": "callmeter.project", "value": {"stringValue": "shop"}}]}
    document = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}
    sent = orjson.dumps(document)
    kind = {"Content_Type": "application/json"}
    status, _, said = guarded.post("/v1/traces", sent, guarded.keys["other"], **kind)
    assert (status, orjson.loads(said)["code"]) == (403, 7)
    assert guarded.post("/v1/traces", sent, guarded.keys["shop"], **kind)[0] == 200


def test_keys_made_and_revoked_while_it_runs(guarded) -> None:
    """By the command line, as an operator does it; and uses are told of."""
    env = environment(CALLMETER_KEYS_FILE=str(guarded.keys_file))
    made = callmeter("keys", "create", "--project", "shop", "--name", "late", "--json", env=env)
    key = made.json()["key"]
    guarded.wait(lambda: guarded.post("/v1/envelopes", envelope(guarded), key)[0] == 200)
    assert callmeter("keys", "revoke", "late", env=env).code == 0
    guarded.wait(lambda: guarded.post("/v1/envelopes", envelope(guarded), key)[0] == 401)
    guarded.serves()
    guarded.process.terminate()  # what was used is written down at the end at the latest
    guarded.process.wait()
    listed = callmeter("keys", "list", "--json", env=env)
    rows = {row["name"]: row for row in listed.json()["rows"]}
    assert rows["late"]["state"] == "revoked"
    assert rows["late"]["last_used_at"] is not None
    assert rows["other"]["last_used_at"] is None
    assert key not in listed.out
    assert key not in guarded.keys_file.read_text(encoding="utf-8")


def test_a_key_file_that_is_gone_or_broken(guarded) -> None:
    """Half an edit shuts nobody out; no file at all is no keys."""
    whole = guarded.keys_file.read_bytes()
    guarded.keys_file.write_bytes(whole[:-20])
    guarded.wait(lambda: "keys stay as they were" in guarded.told())
    assert status_of(guarded, "shop") == 200
    assert status_of(guarded, "reads") == 403
    guarded.keys_file.unlink()
    guarded.wait(lambda: status_of(guarded, "shop") != 200)
    assert [status_of(guarded, name) for name in ("shop", "other", "reads")] == [401] * 3
    guarded.keys_file.write_bytes(whole)
    guarded.wait(lambda: status_of(guarded, "shop") != 401)
    assert [status_of(guarded, name) for name in ("shop", "other", "reads")] == [200, 403, 403]


@pytest.mark.parametrize("guarded", [3600.0], indirect=True, ids=["seldom looked at"])
def test_sighup_reads_the_key_file_at_once_and_ends_nothing(guarded) -> None:
    guarded.keys_file.unlink()
    assert status_of(guarded, "shop") == 200  # nobody has looked
    guarded.process.send_signal(signal.SIGHUP)
    guarded.wait(lambda: status_of(guarded, "shop") != 200)
    assert status_of(guarded, "shop") == 401
    assert guarded.process.poll() is None


def test_beyond_loopback_nothing_starts_without_keys(tmp_path) -> None:
    """An empty key file, or one whose keys are all revoked, is no key."""
    path = tmp_path / "keys.json"
    home = tmp_path / "home"
    serving = ("up", "--host", "0.0.0.0", "--port", 0, "--dir", home)
    for more, said in (
        ((), "without API keys"),
        (("--keys-file", path), "there is no key file"),
    ):
        ran = callmeter(*serving, *more)
        assert (ran.code, ran.out) == (78, "")
        assert said in ran.err
        assert len(ran.err.splitlines()) == 1
    _, record = create_key(path, ["shop"], "write", now_us=1)
    revoke_key(path, record.id, now_us=2)
    ran = callmeter(*serving, "--keys-file", path)
    assert ran.code == 78
    assert "without API keys" in ran.err
    assert not home.exists()


def test_a_keys_own_limits(guarded) -> None:
    from callmeter.collector.keys import KeyLimits

    now_us = time.time_ns() // 1000
    limits = KeyLimits(envelopes_per_s=0.01, body_bytes=10_000, envelope_bytes=1_000)
    key, record = create_key(guarded.keys_file, ["shop"], "write", now_us=now_us, limits=limits)
    guarded.wait(lambda: guarded.post("/v1/envelopes", b"x" * 20_000, key)[0] == 413)
    large = envelope(guarded).replace(b"a payload", b"x" * 2_000)
    assert guarded.post("/v1/envelopes", large, key)[0] == 413
    answers = [guarded.post("/v1/envelopes", envelope(guarded), key) for _ in range(3)]
    assert answers[0][0] == 200
    status, headers, _ = answers[-1]
    assert status == 429
    assert 1 <= int(headers["Retry-After"]) <= 101
    guarded.serves()  # others are not held up
    revoke_key(guarded.keys_file, record.id, now_us=now_us)
    assert [r.id for r in read_keys(guarded.keys_file) if r.revoked_us] == [record.id]
    assert last_used(guarded.keys_file) == {} or record.id in last_used(guarded.keys_file)
