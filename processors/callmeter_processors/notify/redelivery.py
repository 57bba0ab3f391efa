"""Sends the lines of a dead-letter file again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from callmeter.errors import DataError, UsageError
from callmeter.schema.alerts import decode_alert
from callmeter_processors.notify.outcome import Again, Outcome, Sent
from callmeter_processors.notify.render import link_of
from callmeter_processors.notify.sending import Message, Sender

if TYPE_CHECKING:
    from callmeter.clock import Clock
    from callmeter_processors.notify.config import NotifyConfig
    from callmeter_processors.notify.deadletters import DeadLetter, DeadLetterFile
    from callmeter_processors.notify.targets import Target

#: Somebody waits for it: fewer attempts than while following.
_ATTEMPTS = 3


def redeliver(
    letters: Sequence[DeadLetter],
    config: NotifyConfig,
    sender: Sender,
    dead_letters: DeadLetterFile,
    clock: Clock,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[int, int]:
    """Send each letter to the target of its name, under its alert's id; (delivered, failed).

    What fails is written to ``dead_letters``. ``UsageError``, and nothing sent, if a target is not
    configured; ``DataError`` if a letter holds no alert.
    """
    targets = {target.name: target for target in config.targets}
    for letter in letters:
        if letter.target not in targets:
            raise UsageError(
                f"letters wait for {letter.target[:100]!r}: configure a target of this name"
            )
    rng = random.Random()
    attempts = min(_ATTEMPTS, config.retry.attempts)

    def pause(tries: int, outcome: Again) -> None:
        sleep(config.retry.delay_s(tries, rng, outcome.retry_after_s))

    messages = [_message(letter, config.link) for letter in letters]
    done = failed = 0
    for letter, message in zip(letters, messages, strict=True):
        target = targets[letter.target]
        tries, outcome = _send(target, message, sender, attempts, pause)
        if isinstance(outcome, Sent):
            done += 1
            continue
        failed += 1
        again = replace(
            letter, at_us=clock.now_us(), reason=outcome.reason, tries=letter.tries + tries
        )
        dead_letters.write(again)
    return done, failed


def _send(
    target: Target,
    message: Message,
    sender: Sender,
    attempts: int,
    pause: Callable[[int, Again], None],
) -> tuple[int, Outcome]:
    tries = 1
    outcome = sender.send(target, message)
    while isinstance(outcome, Again) and tries < attempts:
        pause(tries, outcome)
        outcome = sender.send(target, message)
        tries += 1
    return tries, outcome


def _message(letter: DeadLetter, link: str) -> Message:
    raw = bytes(letter.alert)
    try:
        alert = decode_alert(raw)
    except msgspec.DecodeError as exc:
        raise DataError(f"a dead letter for {letter.target[:100]!r} holds no alert: {exc}") from exc
    return Message(alert, raw, link_of(alert, link))
