"""The outbox file: what it refuses to be, and who may use it."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from callmeter.errors import CannotWriteError, ConfigError, NewerSchemaError
from callmeter_processors.notify.outbox import Outbox, Taken
from support.alerting import LOG, NOW_US


def test_when_it_began_is_kept(tmp_path: Path) -> None:
    Outbox(tmp_path / "outbox.db", NOW_US).close()
    with Outbox(tmp_path / "outbox.db", NOW_US + 5) as again:
        assert again.begun_us == NOW_US


def test_alerts_and_positions_move_together_or_not_at_all(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox.db", NOW_US) as outbox:

        def broken():
            yield Taken("a", b"{}", ["w"])
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            outbox.take(LOG, broken(), {0: 1}, NOW_US)
        assert outbox.positions(LOG) == {}
        assert outbox.waiting() == {}
        assert outbox.take(LOG, [Taken("a", b"{}", ["w"])], {0: 1}, NOW_US) == 1


def test_the_body_goes_when_the_last_target_has_it(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    with Outbox(path, NOW_US) as outbox:
        outbox.take(LOG, [Taken("a", b"{}", ["v", "w"])], {0: 1}, NOW_US)
        for target, left in (("v", b"{}"), ("w", None)):
            outbox.done(outbox.due(target)[0])
            with sqlite3.connect(path) as reader:
                assert reader.execute("SELECT body FROM alerts").fetchone() == (left,)
            reader.close()


def test_another_file_is_not_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(ConfigError, match="no outbox"):
        Outbox(path, NOW_US)
    path.unlink()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE things (x)")
    other.close()
    with pytest.raises(ConfigError, match="no outbox"):
        Outbox(path, NOW_US)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "outbox.db"
    Outbox(path, NOW_US).close()
    with sqlite3.connect(path) as newer:
        newer.execute("UPDATE meta SET value = 99 WHERE name = 'format'")
    newer.close()
    with pytest.raises(NewerSchemaError, match="format 99"):
        Outbox(path, NOW_US)


def test_a_place_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CannotWriteError):
        Outbox(tmp_path / "nowhere" / "outbox.db", NOW_US)
