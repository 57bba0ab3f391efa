"""callmeter repair: what it says before, does, and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from callmeter.embedded import LOG_FILE, STORE_DIRECTORY, Embedded
from callmeter.log.dirlock import DirectoryLock
from callmeter.log.sqlite_log import SqliteLog
from callmeter_sinks.clickhouse.opening import open_store
from support.cli import callmeter
from support.wire_producer import CALLS, WireProducer, send

ENVELOPES = 4


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory at rest whose calls somebody has deleted."""
    directory = tmp_path_factory.mktemp("repair") / "home"
    producer = WireProducer()
    with Embedded(directory) as pipeline:
        send(pipeline.url, [producer.envelope() for _ in range(ENVELOPES)])
    store = open_store(f"chdb:{directory / STORE_DIRECTORY}")
    store.command("DELETE FROM calls WHERE 1", None, {"lightweight_deletes_sync": "2"})
    store.close()
    return directory


def verify_code(home: Path) -> int:
    return callmeter("verify", "--dir", home, "--json").code


def test_shows_asks_repairs_and_verifies(home: Path) -> None:
    assert verify_code(home) == 1
    dry = callmeter("repair", "--dir", home, "--dry-run")
    assert dry.code == 0, dry.err
    assert f"offsets 0 to {ENVELOPES - 1}, {ENVELOPES * CALLS} events" in dry.out
    asked = callmeter("repair", "--dir", home)  # nobody answers
    assert asked.code != 0
    done = callmeter("repair", "--dir", home, "--yes", "--json")
    assert done.json()["done"]["events"] == ENVELOPES * CALLS
    assert verify_code(home) == 0
    report = callmeter("report", "--dir", home, "--json").json()["totals"]
    assert report["calls"] == ENVELOPES * CALLS


def test_refuses_a_directory_in_use_and_bounds_that_make_no_sense(home: Path) -> None:
    with DirectoryLock(home):
        ran = callmeter("repair", "--dir", home, "--yes")
    assert (ran.code, "is in use by another callmeter" in ran.err) == (73, True)
    ran = callmeter("repair", "--dir", home, "--first", 3)
    assert (ran.code, "name it too" in ran.err) == (64, True)
    ran = callmeter("repair", "--store", "chdb:x")
    assert (ran.code, "from which log?" in ran.err) == (64, True)


def test_names_what_the_log_no_longer_has(tmp_path: Path) -> None:
    home = tmp_path / "home"
    producer = WireProducer()
    for _ in range(2):
        with Embedded(home) as pipeline:
            send(pipeline.url, [producer.envelope()])
    with SqliteLog(home / LOG_FILE) as log:
        below = dict.fromkeys(range(log.partitions), 2)
        log.prune("metered", before_us=2**62, below=below)
    ran = callmeter("repair", "--dir", home, "--yes")
    assert ran.code == 2
    assert "offsets 0 to 0 are gone from the log" in ran.err
