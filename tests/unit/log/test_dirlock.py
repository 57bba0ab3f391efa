"""One owner of a directory; the kernel lets go when the owner dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from callmeter.errors import CannotWriteError
from callmeter.log.dirlock import DirectoryLock

HOLD = (
    "import sys, time; from pathlib import Path\n"
    "from callmeter.log.dirlock import DirectoryLock\n"
    "DirectoryLock(Path(sys.argv[1])).acquire()\n"
    "print('held', flush=True); time.sleep(60)\n"
)


def test_a_second_owner_is_told_the_pid_and_a_dead_one_lets_go(tmp_path: Path) -> None:
    home = tmp_path / "new" / "directory"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(home)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "held\n"
        assert DirectoryLock(home).held_by_another()
        with pytest.raises(CannotWriteError, match=rf"in use .*\(pid {owner.pid}\)"):
            DirectoryLock(home).acquire()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert not DirectoryLock(home).held_by_another()
    with DirectoryLock(home) as lock:
        assert lock.owner() == os.getpid()


def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    assert not DirectoryLock(tmp_path / "none").held_by_another()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWriteError, match="file"):
        DirectoryLock(tmp_path / "file" / "below").acquire()
