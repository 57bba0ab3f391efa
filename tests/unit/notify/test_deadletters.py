"""Dead letters: written whole, read once each, sent again under their ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec import Raw

from callmeter.clock import ManualClock
from callmeter.errors import CannotWriteError, DataError, UsageError
from callmeter.schema.alerts import encode_alert
from callmeter_processors.notify.config import NotifyConfig
from callmeter_processors.notify.deadletters import DeadLetter, DeadLetterFile, read_letters
from callmeter_processors.notify.outcome import Again, Outcome, Refused
from callmeter_processors.notify.redelivery import redeliver
from callmeter_processors.notify.targets import Webhook
from support.alerting import NOW_US, ScriptedSender, alert

CONFIG = NotifyConfig((Webhook(name="w", url="http://localhost/"),))


def letter(number: int = 1, **fields: object) -> DeadLetter:
    return DeadLetter(
        **{
            "at_us": NOW_US, "target": "w", "kind": "webhook", "reason": "HTTP 410 Gone",
            "tries": 1, "alert": Raw(encode_alert(alert(number))),
        }
        | fields
    )  # fmt: skip


def test_a_line_cut_by_a_kill_spoils_no_other(tmp_path: Path) -> None:
    file = DeadLetterFile(tmp_path / "dead.jsonl")
    file.write(letter(1))
    with file.path.open("ab") as torn:
        torn.write(b'{"v":1,"at_us":17')
    file.write(letter(2))
    lines = file.path.read_bytes().splitlines()
    assert len(lines) == 3
    file.write(letter(2))
    assert [bytes(x.alert) for x in read_letters(file.path)] == [
        encode_alert(alert(1)), encode_alert(alert(2)),
    ]  # fmt: skip
    with file.path.open("ab") as other:
        other.write(b'\n{"v":1}\n')
    with pytest.raises(DataError, match="line 6"):
        list(read_letters(file.path))


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotWriteError, match="nowhere"):
        DeadLetterFile(tmp_path / "nowhere" / "dead.jsonl").write(letter())


def again(
    tmp_path: Path, letters: list[DeadLetter], script: list[Outcome]
) -> tuple[tuple[int, int], ScriptedSender, list[float]]:
    sender, slept = ScriptedSender(script), []
    result = redeliver(
        letters, CONFIG, sender, DeadLetterFile(tmp_path / "dead.jsonl"), ManualClock(NOW_US),
        sleep=slept.append,
    )  # fmt: skip
    return result, sender, slept


def test_letters_are_sent_again_under_their_ids(tmp_path: Path) -> None:
    result, sender, slept = again(tmp_path, [letter(1), letter(2)], [Again("busy", 7.0)])
    assert result == (2, 0)
    assert sender.sent == [("w", alert(1).id), ("w", alert(2).id)]
    assert slept == [7.0]


def test_what_fails_again_is_a_letter_again(tmp_path: Path) -> None:
    result, sender, _ = again(
        tmp_path, [letter(1), letter(2)], [Refused("HTTP 404"), *[Again("away")] * 3]
    )
    assert result == (0, 2)
    assert len(sender.tried) == 4
    found = list(read_letters(tmp_path / "dead.jsonl"))
    assert [(x.reason, x.tries) for x in found] == [("HTTP 404", 2), ("away", 4)]


def test_nothing_is_sent_if_a_target_is_not_there(tmp_path: Path) -> None:
    sender = ScriptedSender()
    letters = [letter(1), letter(2, target="gone")]
    with pytest.raises(UsageError, match="gone"):
        redeliver(letters, CONFIG, sender, DeadLetterFile(tmp_path / "d"), ManualClock(NOW_US))
    with pytest.raises(DataError, match="no alert"):
        redeliver(
            [letter(alert=Raw(b"{}"))], CONFIG, sender, DeadLetterFile(tmp_path / "d"),
            ManualClock(NOW_US),
        )  # fmt: skip
    assert not sender.tried
