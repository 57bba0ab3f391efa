"""The journal: what was written is restored after any number of checkpoints, in bounded rows."""

from __future__ import annotations

import random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from callmeter.errors import NewerSchemaError
from callmeter_processors.watch.journal import Journal


def apply(rows: dict[bytes, bytes], changed: dict[bytes, bytes | None]) -> None:
    for key, value in changed.items():
        if value is None:
            assert key in rows, "deleted a row that was not there"
            del rows[key]
        else:
            rows[key] = value


_keys = st.sampled_from([f"k{i}" for i in range(12)])
_changes = st.dictionaries(_keys, st.one_of(st.none(), st.integers(0, 99)), max_size=6)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(_changes, st.booleans()), max_size=120))
def test_restores_what_was_written_whenever_it_is_restored(steps):
    rows: dict[bytes, bytes] = {}
    truth: dict[str, int] = {}
    journal = Journal("log")
    for changes, restart in steps:
        apply(
            rows, journal.write({k: None if v is None else b"%d" % v for k, v in changes.items()})
        )
        for key, value in changes.items():
            if value is None:
                truth.pop(key, None)
            else:
                truth[key] = value
        if restart:
            journal = Journal("log")
            assert {k: int(v) for k, v in journal.restore(dict(rows))} == truth
    assert {k: int(v) for k, v in Journal("log").restore(rows)} == truth


def test_the_journal_never_outgrows_the_values_by_much():
    rng = random.Random(1)
    rows: dict[bytes, bytes] = {}
    journal = Journal("log")
    value = b"[" + b"1," * 100 + b"1]"
    written = changed = 0
    for _ in range(600):
        changes = {f"key {rng.randrange(2000)}": value for _ in range(200)}
        done = journal.write(changes)
        written += sum(len(each or b"") for each in done.values())
        changed += sum(len(key) + len(each) for key, each in changes.items())
        apply(rows, done)
    held = sum(map(len, rows.values()))
    values = 2000 * len(value)
    assert held < 3 * values
    assert written < 2.5 * changed


def test_large_chunks_are_split_and_shrink_again():
    journal = Journal("log")
    rows: dict[bytes, bytes] = {}
    big = orjson.dumps("x" * 200_000)
    apply(rows, journal.write({f"k{i}": big for i in range(300)}))
    assert max(map(len, rows.values())) < 800_000
    assert any(name.endswith(b":1") for name in rows if name.startswith(b"c:"))
    for i in range(300):
        apply(rows, journal.write({f"k{i}": None}))
    for _ in range(70):
        apply(rows, journal.write({"k0": b"1"}))
    assert dict(Journal("log").restore(rows)) == {"k0": b"1"}
    assert sum(map(len, rows.values())) < 20_000


def test_rows_of_another_log_are_ignored_and_newer_ones_refused():
    rows = {k: v for k, v in Journal("log").write({"a": b"1"}).items() if v is not None}
    assert dict(Journal("another").restore(rows)) == {}
    newer = {key: value.replace(b'"v":1', b'"v":2') for key, value in rows.items()}
    with pytest.raises(NewerSchemaError):
        list(Journal("log").restore(newer))


def test_no_change_writes_nothing():
    assert Journal("log").write({}) == {}
