"""Backup, wipe, restore: equal by verify, and the pipeline goes on exactly from there."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from callmeter.cli.archive import at_rest, read_archive, write_archive
from callmeter.embedded import Embedded
from callmeter.errors import CannotWriteError, ConfigError, DataError
from callmeter.log.dirlock import DirectoryLock
from callmeter_sinks.clickhouse.store import Store
from callmeter_sinks.verify import verify
from support.cli import callmeter
from support.wire_producer import CALLS, WireProducer, send


def figures(store: Store) -> tuple[int, ...]:
    """Rows, different identities, input tokens raw and by day."""
    sql = (
        "SELECT count(), uniqExact(log_id, partition, origin, idx), sum(input_tokens), "
        "(SELECT sum(input_tokens) FROM rollup_1d) FROM calls"
    )
    return tuple(map(int, store.query(sql).rows[0]))


def exactly(envelopes: int) -> tuple[int, ...]:
    rows = envelopes * CALLS
    return (rows, rows, rows * 100, rows * 100)


@pytest.mark.parametrize("name", ["b.tar", "b.tar.gz"])
def test_backup_wipe_restore_and_go_on(tmp_path: Path, name: str) -> None:
    home, archive = tmp_path / "home", tmp_path / name
    producer = WireProducer()
    early = [producer.envelope() for _ in range(3)]
    with Embedded(home) as pipeline:
        send(pipeline.url, early)
    saved = callmeter("backup", archive, "--dir", home)
    assert saved.code == 0, saved.err
    late = [producer.envelope() for _ in range(2)]
    with Embedded(home) as pipeline:
        send(pipeline.url, late)
    shutil.rmtree(home)

    restored = callmeter("restore", archive, "--dir", home)
    assert restored.code == 0, restored.err
    verified = callmeter("verify", "--dir", home, "--json")
    assert (verified.code, verified.json()["equal"]) == (0, True)
    # The producer sends what it sent after the backup again, and some of before, and goes on.
    with Embedded(home) as pipeline:
        send(pipeline.url, [*early[1:], *late, producer.envelope()])
    with Embedded(home) as pipeline:
        result = verify(pipeline.store)
        assert figures(pipeline.store) == exactly(6)
    assert (result.equal, list(result.gaps), list(result.unverifiable)) == (True, [], [])


def test_what_came_after_the_backup_and_is_not_sent_again_is_a_gap(tmp_path: Path) -> None:
    home, archive = tmp_path / "home", tmp_path / "b.tar"
    producer = WireProducer()
    with Embedded(home) as pipeline:
        send(pipeline.url, [producer.envelope() for _ in range(2)])
    with at_rest(home):
        write_archive(home, archive)
    producer.envelope()  # came after the backup, and nobody has it any more
    shutil.rmtree(home)
    read_archive(archive, home)
    with Embedded(home) as pipeline:
        send(pipeline.url, [producer.envelope()])
    with Embedded(home) as pipeline:
        result = verify(pipeline.store)
        assert figures(pipeline.store) == exactly(3)
    assert result.equal
    assert [(gap.first, gap.last, gap.events) for gap in result.gaps] == [(2, 2, CALLS)]


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Path]:
    """A data directory that only looks like one, and its backup."""
    import sqlite3

    home = tmp_path / "home"
    (home / "store" / "data").mkdir(parents=True)
    (home / "store" / "data" / "part.bin").write_bytes(b"rows")
    (home / "store" / "link").symlink_to("data/part.bin")
    connection = sqlite3.connect(home / "log.db")
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    archive = tmp_path / "b.tar"
    with at_rest(home):
        manifest = write_archive(home, archive)
    assert set(manifest.files) == {"log.db", "store/data/part.bin"}
    return home, archive


def test_nothing_is_overwritten(saved: tuple[Path, Path]) -> None:
    home, archive = saved
    with at_rest(home), pytest.raises(CannotWriteError, match="never overwritten"):
        write_archive(home, archive)
    with pytest.raises(CannotWriteError, match="is not empty"):
        read_archive(archive, home)


def test_a_directory_in_use_is_refused(saved: tuple[Path, Path], tmp_path: Path) -> None:
    home, _ = saved
    with DirectoryLock(home):
        ran = callmeter("backup", tmp_path / "other.tar", "--dir", home)
    assert ran.code == 73
    assert "is in use by another callmeter" in ran.err
    assert not (tmp_path / "other.tar").exists()


def test_a_damaged_backup_puts_nothing_back(saved: tuple[Path, Path], tmp_path: Path) -> None:
    _, archive = saved
    content = archive.read_bytes()
    assert content.count(b"rows") == 1
    archive.write_bytes(content.replace(b"rows", b"owls"))
    with pytest.raises(DataError, match=r"store/data/part\.bin is not what the backup had"):
        read_archive(archive, tmp_path / "new")
    archive.write_bytes(content[:700])
    with pytest.raises(DataError):
        read_archive(archive, tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.tar", "home"]


def test_links_come_back_and_foreign_archives_do_not(
    saved: tuple[Path, Path], tmp_path: Path
) -> None:
    _, archive = saved
    read_archive(archive, tmp_path / "new")
    assert (tmp_path / "new" / "store" / "link").read_bytes() == b"rows"
    other = tmp_path / "other.tar"
    with tarfile.open(other, "w") as tar:
        tar.add(archive, "x")
    with pytest.raises(DataError, match="not a backup of callmeter"):
        read_archive(other, tmp_path / "newer")


def test_what_has_no_log_is_no_data_directory(tmp_path: Path) -> None:
    (tmp_path / "home" / "store").mkdir(parents=True)
    with at_rest(tmp_path / "home"), pytest.raises(ConfigError, match="has no log"):
        write_archive(tmp_path / "home", tmp_path / "b.tar")
