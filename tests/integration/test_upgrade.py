"""A data directory that an older release has written: opened, migrated, and gone on with exactly.

``tests/golden/upgrade`` has the directories and the program that wrote them.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from callmeter.embedded import Embedded
from callmeter_sinks.audit import AuditReader
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.verify import verify
from support.cli import callmeter
from support.wire_producer import CALLS, WireProducer, send

GOLDEN = Path(__file__).parents[1] / "golden" / "upgrade"
GOES_ON = "019a0000-0000-7000-8000-0000000000a1"
#: What ``make_directory.py`` sent: four envelopes that were stored and one that was in the log.
ENVELOPES = 5


def counts(store: Store) -> dict[str, int]:
    """Rows by their identity, and rows: equal unless something stands twice."""
    found = {}
    for table in ("calls", "costs", "metrics", "annotations", "dead_letters"):
        sql = f"SELECT count(), uniqExact(log_id, partition, origin, idx) FROM {table}"
        rows, different = store.query(sql).rows[0]
        assert rows == different, table
        found[table] = int(rows)
    return found


@pytest.mark.parametrize("archive", sorted(GOLDEN.glob("*.tar.xz")), ids=lambda path: path.name)
def test_an_older_directory_goes_on(archive: Path, tmp_path: Path) -> None:
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path, filter="data")
    home = tmp_path / "home"
    with Embedded(home) as pipeline:  # reads what the old one had left, and ends
        send(pipeline.url, [WireProducer().envelope()])
    producer = WireProducer(source=GOES_ON, sent=3, accepted=21)
    goes_on = producer.envelope()
    with Embedded(home) as pipeline:
        send(pipeline.url, [goes_on, goes_on])  # and again: once
    with Embedded(home) as pipeline:
        assert counts(pipeline.store) == {
            "calls": 3 * ENVELOPES + 2 * CALLS,
            "costs": ENVELOPES,
            "metrics": ENVELOPES,
            "annotations": ENVELOPES,
            "dead_letters": ENVELOPES,
        }
        audit = AuditReader(pipeline.store).query(user="someone")
        assert len(audit) == ENVELOPES  # the table came with the upgrade
        result = verify(pipeline.store)
        logs = pipeline.store.query("SELECT uniqExact(log_id) FROM envelopes").rows
    assert [check for check in result.checks if not check.equal] == []
    assert list(result.unverifiable) == []
    assert list(result.gaps) == []
    assert logs == [(1,)]
    totals = callmeter("report", "--dir", home, "--project", "shop", "--json").json()["totals"]
    assert totals["calls"] == 3 * ENVELOPES + 2 * CALLS
