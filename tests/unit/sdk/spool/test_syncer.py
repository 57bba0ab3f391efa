"""The disk's own thread: whoever writes never waits for a sync, and a close waits for all."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from callmeter.sdk.spool.syncer import Syncer

PATIENCE_S = 60


class SlowDisk:
    """Syncs when it is let; tells the inodes that it synced."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.synced: list[int] = []

    def fdatasync(self, fd: int) -> None:
        self.begun.set()
        assert self.may_end.wait(PATIENCE_S)
        self.synced.append(os.fstat(fd).st_ino)


def test_a_file_may_be_closed_while_the_disk_syncs_it(tmp_path: Path) -> None:
    disk = SlowDisk()
    syncer = Syncer(0.01, disk.fdatasync)
    with (tmp_path / "a").open("wb") as file, (tmp_path / "b").open("wb") as other:
        inode = os.fstat(file.fileno()).st_ino
        syncer.written(file.fileno())
        assert disk.begun.wait(PATIENCE_S)
        syncer.forget(file.fileno())  # returns though the disk has not
        os.dup2(other.fileno(), file.fileno())  # the number is another file's now
        disk.may_end.set()
        syncer.close()
    assert disk.synced == [inode]
    assert syncer.errors == 0


def test_a_close_brings_what_was_written_to_the_disk(tmp_path: Path) -> None:
    disk = SlowDisk()
    disk.may_end.set()
    syncer = Syncer(1e6, disk.fdatasync)  # its own turn does not come in this test
    with (tmp_path / "a").open("wb") as file, (tmp_path / "b").open("wb") as other:
        syncer.written(file.fileno())
        syncer.written(other.fileno())
        syncer.forget(other.fileno())
        syncer.close()
        assert disk.synced == [os.fstat(file.fileno()).st_ino]


def test_a_disk_that_cannot_sync_is_counted(tmp_path: Path) -> None:
    tried = threading.Event()

    def failing(fd: int) -> None:
        tried.set()
        raise OSError("no")

    syncer = Syncer(0.01, failing)
    with (tmp_path / "a").open("wb") as file:
        syncer.written(file.fileno())
        assert tried.wait(PATIENCE_S)
        syncer.close()
    assert syncer.errors == 1
